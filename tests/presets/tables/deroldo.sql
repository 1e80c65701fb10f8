create table outbox (
    idempotent_key uuid not null,
    partition_key uuid not null,
    destinations jsonb not null,
    headers jsonb,
    payload text not null,
    attempts int not null default 0,
    created_at timestamptz not null default now(),
    process_after timestamptz not null default now(),
    processed_at timestamptz,
    primary key (idempotent_key)
);
create table outbox_lock (
    partition_key uuid not null,
    lock_id uuid not null,
    processed_at timestamptz,
    processing_until timestamptz not null default now() + interval '30 seconds'
);
