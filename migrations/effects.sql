-- Exactly-once effects, the two halves around the relay: idempotency keys where requests come in, an
-- inbox where messages are consumed. Functions that any language can call; unique constraints and row
-- locks decide, so that of any number of callers at once exactly one is told to go on. They run with
-- the caller's rights: grant select, insert, update, delete on {keys} and select, insert on {inbox}.
-- The relay deletes what has expired.

-- Requests that were begun, and the responses of those that were completed. (Collation "C" here: that
-- of a library may change with an upgrade of the system, and break what these keys rest on.)
create table if not exists {keys} (
    -- Whose keys these are ("user-7 POST /orders"): two users may choose the same one.
    scope text collate "C" not null,
    -- What the client sent as Idempotency-Key.
    key text collate "C" not null,
    -- A hash of the request: tells a reused key with another request apart.
    request_hash text not null,
    -- The current holder; each take-over draws a new one, so a late holder is refused. At random: a
    -- number could be drawn again after a crash or a fail-over.
    token uuid not null unique,
    -- The holder's transaction, which must not be the effect's.
    begun_in xid8 not null,
    -- Until when a request that has no response yet keeps others off.
    locked_until timestamptz not null,
    -- When the key may be used afresh. Deleted some time afterwards.
    expires_at timestamptz not null,
    -- The response; NULL while there is none.
    status integer,
    headers jsonb,
    body bytea,
    primary key (scope, key)
)
-- Each row is updated once and deleted later.
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
create index if not exists outboxd_idempotency_keys_expired on {keys} (expires_at);

-- Messages that have had their effect, for each consumer.
create table if not exists {inbox} (
    -- Which effect: two consumers of one message are two.
    consumer text collate "C" not null,
    -- The message's id: header `id` on Kafka, message_id on RabbitMQ.
    message_id text collate "C" not null,
    -- When the broker will surely not deliver it again. Deleted some time afterwards.
    expires_at timestamptz not null,
    primary key (consumer, message_id)
)
with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.2);
create index if not exists outboxd_inbox_expired on {inbox} (expires_at);

-- Takes a key. CALL IT IN A TRANSACTION OF ITS OWN and commit, before the effect's begins: otherwise a
-- second request would have to wait for the whole effect instead of hearing `in_progress`.
--
--   outcome      what to do
--   started      go on; the effect's transaction ends with idempotency_complete(token, …)
--   in_progress  another request holds the key (409): come again later
--   replay       answer with status, headers and body as they were stored
--   mismatch     the key was used with another request (422)
--
-- Who neither completes nor releases within lock_for (it died, or is too slow) may be taken over, by
-- one. (One that freezes between idempotency_complete and its commit keeps the key all the same: let the
-- effect's transaction have an idle_in_transaction_session_timeout of lock_for.) keep_for says for how
-- long the key is remembered. All by the database's clock.
create or replace function {schema}.idempotency_begin(
    scope text, key text, request_hash text, lock_for interval, keep_for interval,
    out outcome text, out token uuid, out status integer, out headers jsonb, out body bytea
)
language plpgsql as $outboxd$
#variable_conflict use_column
declare
    known {keys};
begin
    if lock_for is null or keep_for is null or lock_for <= interval '0' or keep_for < lock_for then
        raise exception 'lock_for (%) must be above zero, and keep_for (%) not below it', lock_for, keep_for
            using errcode = 'invalid_parameter_value';
    end if;
    for turn in 1..100 loop
        -- Looking only saves the work; what is done after it looks again, under a lock.
        select * into known from {keys} k
            where k.scope = idempotency_begin.scope and k.key = idempotency_begin.key;
        if not found then
            insert into {keys} as k (scope, key, request_hash, token, begun_in, locked_until, expires_at)
            values (idempotency_begin.scope, idempotency_begin.key, idempotency_begin.request_hash,
                gen_random_uuid(), pg_current_xact_id(),
                clock_timestamp() + lock_for, clock_timestamp() + keep_for)
            on conflict (scope, key) do nothing
            returning k.token into token;
            if found then
                outcome := 'started';
                return;
            end if;
            continue; -- Somebody was faster: see what it is.
        end if;
        if known.expires_at > clock_timestamp() then
            if known.request_hash is distinct from idempotency_begin.request_hash then
                outcome := 'mismatch';
                return;
            elsif known.status is not null then
                outcome := 'replay';
                status := known.status;
                headers := known.headers;
                body := known.body;
                return;
            elsif known.locked_until > clock_timestamp() then
                outcome := 'in_progress';
                return;
            end if;
        end if;
        -- Expired, or abandoned. A holder that completes it at this moment, or the cleaner, has it locked.
        perform from {keys} k where k.token = known.token for update skip locked;
        if not found then
            outcome := 'in_progress';
            return;
        end if;
        update {keys} k
        set token = gen_random_uuid(), begun_in = pg_current_xact_id(),
            request_hash = idempotency_begin.request_hash,
            locked_until = clock_timestamp() + lock_for, expires_at = clock_timestamp() + keep_for,
            status = null, headers = null, body = null
        where k.token = known.token and (k.status is null or k.expires_at <= clock_timestamp())
        returning k.token into token;
        if found then
            outcome := 'started';
            return;
        end if;
    end loop;
    raise exception 'the key can be neither inserted nor seen' using
        hint = 'Does a policy (row level security) or a trigger on idempotency_keys hide it?';
end
$outboxd$;

-- Stores the response, in the transaction of the effect: both are committed, or neither. Raises (OX001)
-- when the key is held no longer, since its lock ran out and another took over: roll back, answer 409.
create or replace function {schema}.idempotency_complete(token uuid, status integer, headers jsonb, body bytea)
returns void
language plpgsql as $outboxd$
#variable_conflict use_column
begin
    if idempotency_complete.status is null then
        raise exception 'a response needs a status' using errcode = 'null_value_not_allowed';
    end if;
    update {keys} k
    set status = idempotency_complete.status, headers = idempotency_complete.headers,
        body = idempotency_complete.body
    where k.token = idempotency_complete.token and k.status is null
        and k.expires_at > clock_timestamp() and k.begun_in <> pg_current_xact_id();
    if found then
        return;
    end if;
    perform from {keys} k
        where k.token = idempotency_complete.token and k.begun_in = pg_current_xact_id();
    if found then
        raise exception 'idempotency_begin was called in the transaction of the effect'
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Commit it in a transaction of its own first: others would wait for this one instead of hearing in_progress.';
    end if;
    raise exception 'the idempotency key of token % is held no longer', idempotency_complete.token
        using errcode = 'OX001',
            hint = 'Its lock ran out and another request took over, or it expired, or was completed or released. Roll back; a longer lock_for makes this rarer.';
end
$outboxd$;

-- Gives a key up after a failure that may be retried, in a transaction of its own after the effect's was
-- rolled back: the next request starts afresh at once. Gives whether it was still held.
create or replace function {schema}.idempotency_release(token uuid)
returns boolean
language plpgsql as $outboxd$
#variable_conflict use_column
begin
    delete from {keys} k where k.token = idempotency_release.token and k.status is null;
    return found;
end
$outboxd$;

-- Whether a message is new to this consumer. Call it first in the transaction of the effect, and
-- acknowledge after its commit; false means that the effect has been there before: acknowledge only.
-- A second caller at the same time waits for the first one's commit: let the transaction have an
-- idle_in_transaction_session_timeout, lest a frozen consumer keep the message for ever. keep_for must be
-- longer than the broker can deliver the message again: its retention, and whatever anybody replays.
create or replace function {schema}.inbox_accept(consumer text, message_id text, keep_for interval)
returns boolean
language plpgsql as $outboxd$
#variable_conflict use_column
begin
    if message_id = '' then
        raise exception 'a message without an id cannot be told from others' using errcode = 'invalid_parameter_value';
    elsif keep_for is null or keep_for <= interval '0' then
        raise exception 'keep_for (%) must be above zero', keep_for using errcode = 'invalid_parameter_value';
    end if;
    insert into {inbox} (consumer, message_id, expires_at)
    values (inbox_accept.consumer, inbox_accept.message_id, clock_timestamp() + keep_for)
    on conflict (consumer, message_id) do nothing;
    return found;
end
$outboxd$;
