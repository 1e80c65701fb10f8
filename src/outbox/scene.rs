//! What the status page shows beyond the metrics: who works on which lane, and what fails.

use serde_json::Value;

use super::{
    DbError, Link, Outbox,
    overview::LIVE_FOR,
    table::{LANES, get},
};

/// A page is read at a glance: so many relays, and so many events of each list.
const RELAYS: usize = 24;
const EVENTS: usize = 12;
/// The look is given up after this long.
const STATEMENT_TIMEOUT_MS: u32 = 2_000;

impl Outbox {
    /// Looks at lanes, relays and failures in one round trip that locks nothing; as JSON, in the
    /// words of the page. No payloads; keys and reasons are cut short.
    pub async fn scene(&self, link: &mut Link) -> Result<Value, DbError> {
        let sql = format!(
            "{begin}; set transaction read only; set local statement_timeout = {STATEMENT_TIMEOUT_MS};
             select json_build_object('lanes', ({lanes}), 'relays', ({relays}), 'held', ({held}), 'failures', ({failures}))::text;
             commit",
            begin = self.timeouts.begin_sql(),
            lanes = lanes_sql(link.table.found.oid),
            relays = self.relays_sql(),
            held = self.failures_sql("f.holds", "f.id"),
            failures = self.failures_sql("f.state in ('retrying', 'dead')", "f.failed_at desc"),
        );
        let rows = link.session.batch("scene", sql).await?;
        let text: &str = rows.first().map_or(Ok("null"), |row| get(row, 0))?;
        Ok(serde_json::from_str(text).unwrap_or_default())
    }

    fn relays_sql(&self) -> String {
        format!(
            "select coalesce(json_agg(r), '[]') from (
               select instance, version, clean, not clean and seen_at > now() - {LIVE_FOR} as live, paused,
                      round(extract(epoch from clock_timestamp() - seen_at)) as seen_seconds
                 from {instances} order by live desc, seen_at desc limit {RELAYS}) r",
            instances = self.names.instances(),
        )
    }

    fn failures_sql(&self, which: &str, order: &str) -> String {
        let seconds = |time: &str| format!("round(extract(epoch from {time})::numeric, 1)");
        format!(
            "select coalesce(json_agg(e), '[]') from (
               select f.event_id, left(f.destination, 250) as destination, left(f.key, 120) as key, f.state, f.holds,
                      f.attempts, left(f.reason, 400) as reason, {ago} as failed_seconds, {until} as retry_seconds
                 from {failures} f where {which} order by {order} limit {EVENTS}) e",
            failures = self.names.failures(),
            ago = seconds("clock_timestamp() - f.failed_at"),
            until = seconds("f.next_attempt_at - clock_timestamp()"),
        )
    }
}

/// Lanes, and by what name the session that holds each calls itself. `[[lane, name], ...]`.
fn lanes_sql(table: u32) -> String {
    format!(
        "select coalesce(json_agg(json_build_array(l.objid::bigint, coalesce(a.application_name, ''))), '[]')
           from pg_locks l left join pg_stat_activity a on a.pid = l.pid
          where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid = {table} and l.objid < {LANES}
            and l.database = (select oid from pg_database where datname = current_database())"
    )
}
