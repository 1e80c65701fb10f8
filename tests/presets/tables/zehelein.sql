create table outbox (
    id uuid primary key,
    aggregate_type text not null,
    aggregate_id text not null,
    message_type text not null,
    segment text,
    concurrency text not null default 'sequential',
    payload jsonb not null,
    metadata jsonb,
    locked_until timestamptz not null default to_timestamp(0),
    created_at timestamptz not null default clock_timestamp(),
    processed_at timestamptz,
    abandoned_at timestamptz,
    started_attempts smallint not null default 0,
    finished_attempts smallint not null default 0,
    constraint outbox_concurrency_check check (concurrency in ('sequential', 'parallel'))
);
