-- What outboxd knows about events that failed. Rows of the outbox itself stay the application's.
create table if not exists {failures} (
    -- The outbox row's id.
    id {id_type} primary key,
    -- The outbox row's event_id: ids are reused after TRUNCATE, event ids are not.
    event_id text not null,
    lane smallint not null,
    key text,
    destination text not null,
    -- retrying: tried again at next_attempt_at. dead: kept until `outboxd dead retry` or `discard`.
    state text not null check (state in ('retrying', 'dead', 'discarded')),
    -- Whether later events of the same destination and key wait for this one.
    holds boolean not null,
    -- Negative answers of the broker about this event alone.
    attempts integer not null check (attempts >= 0),
    next_attempt_at timestamptz,
    -- What the broker said, beginning with one of a fixed few words.
    reason text not null,
    failed_at timestamptz not null
);

-- What a claim asks: does anything hold this key, is a retry due in this lane?
create index if not exists {failures_index} on {failures} (lane, hashtextextended(key, 0))
    where holds or state = 'retrying';

-- One row per relay: who runs, and whether it keeps dying.
create table if not exists {instances} (
    instance text primary key,
    version text not null,
    ordering text not null,
    started_at timestamptz not null,
    -- Refreshed every few seconds while the relay runs.
    seen_at timestamptz not null,
    -- Whether it was shut down in order.
    clean boolean not null,
    -- Starts that followed an unclean end, the latest few.
    unclean_starts timestamptz[] not null default '{}',
    -- Careful mode: the event being tried, written before it is tried, and deaths while it was.
    trial_id {id_type},
    trial_deaths integer not null default 0,
    -- Destinations this relay does not publish to at the moment, with the reason.
    paused jsonb not null default '{}'
);
