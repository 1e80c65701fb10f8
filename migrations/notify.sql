-- Optional: wakes idle relays at each commit that inserted events (one NOTIFY per statement, not per
-- row). Polling goes on all the same. A NOTIFY takes a lock at commit that all of the server's
-- notifying transactions share: leave this out on very busy writers.
create or replace function {notify_function}() returns trigger language plpgsql as $$
begin
    perform pg_notify('outboxd', {outbox_literal});
    return null;
end
$$;

create or replace trigger outboxd_notify after insert on {outbox}
    for each statement execute function {notify_function}();
