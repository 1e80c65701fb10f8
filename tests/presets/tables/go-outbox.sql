create schema outbox;
create table outbox.messages (
    id uuid primary key,
    stream text not null,
    topic text not null,
    payload bytea not null,
    headers jsonb not null default '{}',
    target jsonb not null default '{}',
    status smallint not null default 0,
    attempts integer not null default 0,
    available_at timestamptz not null default now(),
    lease_token uuid,
    lease_until timestamptz,
    owner text,
    last_error text,
    created_at timestamptz not null default now(),
    dispatched_at timestamptz,
    deferred_since timestamptz,
    constraint messages_status_check check (status between 0 and 3),
    constraint messages_attempts_check check (attempts >= 0),
    constraint messages_lease_check check (
        (status = 1) = (lease_token is not null) and (lease_token is null) = (lease_until is null)
    )
);
