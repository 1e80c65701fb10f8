create table outbox_events (
    id uuid primary key default gen_random_uuid(),
    event_type varchar(255) not null,
    payload jsonb not null,
    status varchar(20) not null default 'PENDING',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    processed_at timestamptz,
    retry_count int not null default 0,
    max_retries int not null default 5,
    last_error text,
    tenant_id varchar(255),
    aggregate_type varchar(255),
    aggregate_id varchar(255),
    partition_key varchar(255),
    idempotency_key varchar(255),
    correlation_id varchar(255),
    causation_id varchar(255),
    headers jsonb not null default '{}',
    occurred_at timestamptz not null default now(),
    claim_token uuid,
    constraint chk_status check (status in ('PENDING', 'PROCESSING', 'SENT', 'FAILED'))
);
create unique index idx_outbox_processing_claim_token on outbox_events (claim_token) where status = 'PROCESSING';
