-- As Hibernate makes it for a String payload.
create table OutboxEvent (
    id uuid not null,
    aggregatetype varchar(255) not null,
    aggregateid varchar(255) not null,
    type varchar(255) not null,
    timestamp timestamp(6) with time zone not null,
    payload varchar(8000),
    tracingspancontext varchar(256),
    primary key (id)
);
