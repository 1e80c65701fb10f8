create table watermill_orders (
    "offset" serial primary key,
    "uuid" varchar(36) not null,
    "payload" json default null,
    "metadata" json default null,
    "acked" boolean not null default false,
    "created_at" timestamp with time zone not null default current_timestamp
);
