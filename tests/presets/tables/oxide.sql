create type status as enum ('Pending', 'Processing', 'Sent');
create table outbox_events (
    id uuid primary key default gen_random_uuid(),
    idempotency_token text default null,
    event_type text not null,
    payload jsonb not null,
    status status not null default 'Pending',
    created_at timestamptz not null default now(),
    locked_until timestamptz not null default '-infinity'
);
create unique index idx_outbox_idempotency on outbox_events (idempotency_token);
