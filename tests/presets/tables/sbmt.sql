-- As Rails makes it.
create table order_outbox_items (
    id bigserial primary key,
    uuid uuid not null,
    event_key character varying not null,
    bucket integer not null,
    status integer default 0 not null,
    options jsonb,
    payload bytea not null,
    errors_count integer default 0 not null,
    error_log text,
    processed_at timestamp(6) without time zone,
    created_at timestamp(6) without time zone not null,
    updated_at timestamp(6) without time zone not null
);
create unique index index_order_outbox_items_on_uuid on order_outbox_items (uuid);
