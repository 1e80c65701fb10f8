-- The outbox: a service inserts here, in the transaction of its business change, what others must
-- hear of. outboxd publishes each committed row and marks it (or deletes it).
create table if not exists {outbox} (
    -- The order of events, drawn by the INSERT: do not assign it yourself.
    id bigint generated always as identity primary key,
    -- Travels with every copy of the event; consumers drop what they have seen by it.
    event_id uuid not null default gen_random_uuid(),
    -- What the event is about ("order"). The default topic is named after it.
    aggregate_type text not null,
    -- The key ("order-42"): events of one key arrive in the order of their ids.
    aggregate_id text not null,
    -- What happened ("OrderPlaced").
    event_type text not null,
    -- Kafka topic or RabbitMQ routing key, where it is not the one of the --topic template.
    topic text,
    -- The body, sent as it is. NULL is a tombstone. May as well be bytea, text or json.
    payload jsonb,
    -- A JSON object; each member becomes a header of the message.
    headers jsonb not null default '{}',
    -- When it happened: the message's timestamp, and what lag is measured from.
    created_at timestamptz not null default clock_timestamp(),
    -- Set by outboxd once the broker has confirmed. NULL means pending.
    published_at timestamptz
)
-- Rows are updated once and soon deleted: vacuum often, in small portions.
with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.2);
