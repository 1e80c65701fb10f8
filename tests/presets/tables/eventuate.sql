create schema eventuate;
create table eventuate.message (
    id varchar(1000) primary key,
    destination text not null,
    headers text not null,
    payload text not null,
    published smallint default 0,
    message_partition smallint,
    creation_time bigint
);
create index message_published_idx on eventuate.message (published, id);
