create sequence outbox_kafka_id_seq;
create table outbox_kafka (
    id bigint primary key default nextval('outbox_kafka_id_seq'::regclass),
    created timestamp without time zone not null,
    processed timestamp without time zone null,
    topic character varying(128) not null,
    key character varying(128) null,
    value bytea not null,
    headers jsonb null
);
create table outbox_kafka_lock (
    id character varying(32) primary key,
    owner_id character varying(128) not null,
    valid_until timestamp without time zone not null
);
