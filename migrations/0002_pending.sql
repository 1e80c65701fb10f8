-- Pending rows by lane and id. A lane is a hash of the key; 64 of them are part of this format.
create index if not exists {outbox_index} on {outbox}
    ((hashtextextended(coalesce(aggregate_id, id::text), 0) & 63), id)
    where published_at is null;
