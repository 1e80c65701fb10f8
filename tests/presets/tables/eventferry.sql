create table outbox (
    id bigint generated always as identity primary key,
    message_id uuid not null default gen_random_uuid(),
    aggregate_type varchar(255) not null,
    aggregate_id varchar(255) not null,
    topic varchar(255) not null,
    "key" text,
    payload jsonb not null,
    headers jsonb not null default '{}',
    trace_id varchar(64),
    status smallint not null default 0,
    attempts int not null default 0,
    next_retry_at timestamptz,
    claimed_at timestamptz,
    created_at timestamptz not null default now(),
    processed_at timestamptz
);
create unique index uq_outbox_message_id on outbox (message_id);
