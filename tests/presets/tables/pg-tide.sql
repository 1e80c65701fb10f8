create schema tide;
create table tide.tide_outbox_config (
    outbox_name text not null primary key,
    retention_hours int not null default 24,
    inline_threshold int not null default 10000,
    enabled boolean not null default true,
    created_at timestamptz not null default now()
);
create table tide.tide_outbox_messages (
    id bigint generated always as identity primary key,
    outbox_name text not null references tide.tide_outbox_config (outbox_name) on delete cascade,
    payload jsonb,
    headers jsonb,
    created_at timestamptz not null default now(),
    consumed_at timestamptz,
    consumer_group text
);
create index idx_tide_outbox_messages_pending on tide.tide_outbox_messages (outbox_name, id) where consumed_at is null;
