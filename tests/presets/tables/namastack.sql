create table outbox_record (
    id varchar(255) not null,
    status varchar(20) not null,
    record_key varchar(255) not null,
    record_type varchar(255) not null,
    payload text not null,
    context text,
    created_at timestamp with time zone not null,
    completed_at timestamp with time zone,
    failure_count int not null,
    failure_reason varchar(1000),
    next_retry_at timestamp with time zone not null,
    partition_no integer not null,
    handler_id varchar(1000) not null,
    primary key (id)
);
