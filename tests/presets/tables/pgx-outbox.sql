create table outbox_messages (
    id bigint primary key generated always as identity,
    broker text not null,
    topic text not null,
    metadata jsonb,
    payload jsonb not null,
    created_at timestamp default current_timestamp not null,
    published_at timestamp
);
