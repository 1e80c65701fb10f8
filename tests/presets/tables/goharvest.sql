create table outbox (
    id bigserial primary key,
    create_time timestamp with time zone not null,
    kafka_topic varchar(249) not null,
    kafka_key varchar(100) not null,
    kafka_value varchar(10000),
    kafka_header_keys text[] not null,
    kafka_header_values text[] not null,
    leader_id uuid
);
