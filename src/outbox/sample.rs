//! Backlog and lag, cheap enough to be asked for every few seconds with millions of rows about.
//!
//! # Design notes
//! * Rows are looked for as claims do it: lane by lane through the pending index, above the floors,
//!   below which published rows have left nothing but dead index entries.
//! * What floors may have passed are events that wait for a retry and have no key: these are few, and
//!   found by way of their failures.
//! * Counting stops at a cap; beyond it, the number comes from the index's statistics.

use std::time::Duration;

use super::{
    DbError, Link, Outbox,
    table::{Table, get},
};

/// Backlogs are counted up to here, and estimated above.
const COUNTED: u32 = 100_000;

/// How an outbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Events that are pending and neither dead nor discarded. Those that wait count: for a retry,
    /// behind another event of their key (a dead one, too), for a paused destination. Exact up to
    /// 100,000, an estimate above.
    pub pending_events: i64,
    /// Age of the oldest event that is neither dead, discarded nor held by a dead one, by the
    /// database's clock; 0 if there is none.
    pub lag: Duration,
    /// Events that failed and are tried again.
    pub retrying_events: i64,
    /// Keys (per destination) whose events wait for a failed one.
    pub held_keys: i64,
    /// Dead letters.
    pub dead_letters: i64,
    /// Lanes with an event that waits and is held by no dead one: bit n for lane n.
    pub lanes: u64,
}

impl Outbox {
    /// Looks at backlog, lag and failures, in one round trip that locks nothing.
    pub async fn sample(&self, link: &mut Link) -> Result<Sample, DbError> {
        let failures = self.names.failures();
        let sql = format!(
            "with {scope}, heads as (
               select lane, (select {created_at} from {waiting} order by {order} limit 1) as created_at
                 from u
             ), {counted}
             select case when more then greatest(n, {estimate} - (select n from ended)) else n end,
               (select coalesce(greatest(extract(epoch from clock_timestamp() - min(created_at) filter (where isfinite(created_at))), 0), 0)::float8
                  from (select created_at from heads union all select created_at from retrying) e),
               (select count(*) from {failures} where state = 'retrying'),
               (select count(*) from (select distinct key, destination from {failures} where holds) k),
               (select count(*) from {failures} where state = 'dead'),
               (select coalesce(bit_or(1::bigint << lane::int) filter (where created_at is not null), 0) from heads)
             from backlog",
            scope = self.scope_sql(link),
            created_at = link.table.created_at,
            order = link.table.order_by(),
            waiting = waiting_sql(&link.table),
            counted = counted_sql(&link.table),
            estimate = estimate_sql(&link.table),
        );
        let rows = self.look(link, &sql).await?;
        let Some(row) = rows.first() else {
            return Ok(Sample::default());
        };
        let lag = Duration::try_from_secs_f64(get(row, 1)?).unwrap_or_default();
        Ok(Sample {
            pending_events: get(row, 0)?,
            lag,
            retrying_events: get(row, 2)?,
            held_keys: get(row, 3)?,
            dead_letters: get(row, 4)?,
            lanes: get::<i64>(row, 5)?.cast_unsigned(),
        })
    }

    /// Whether a drain has something to wait for: events that are pending, and neither dead, discarded nor
    /// held by a dead one.
    pub async fn is_anything_left(&self, link: &mut Link) -> Result<bool, DbError> {
        let sql = format!(
            "with {scope} select exists (select from u cross join lateral (select from {waiting} limit 1) o) \
               or exists (select from retrying where passed)",
            scope = self.scope_sql(link),
            waiting = waiting_sql(&link.table),
        );
        let rows = self.look(link, &sql).await?;
        rows.first().map_or(Ok(false), |row| get(row, 0))
    }

    /// `u`: where each lane is read from. `retrying`: pending events that wait for a retry, and whether
    /// the floor has passed them. `ended`: how many of the rows above the floors are dead or discarded.
    fn scope_sql(&self, link: &Link) -> String {
        let firm: Vec<String> = self
            .floors()
            .firm()
            .iter()
            .map(ToString::to_string)
            .collect();
        let failed = |lane_and_state: &str| {
            format!(
                "from {failures} f join u on u.lane = f.lane join {outbox} o on {is_of} and {pending} \
                 where {lane_and_state}",
                failures = self.names.failures(),
                outbox = link.table.names.outbox(),
                is_of = link.table.is_of_failure(),
                pending = link.table.pending,
            )
        };
        format!(
            "u as materialized (
               select lane - 1 as lane, floor from unnest('{{{firm}}}'::bigint[]) with ordinality u(floor, lane)
             ), retrying as materialized (
               select {created_at} as created_at, {passed} as passed {retrying}
             ), ended as materialized (select count(*) as n {ended})",
            firm = firm.join(","),
            retrying = failed("f.state = 'retrying'"),
            created_at = link.table.created_at,
            passed = link.table.passed_sql(),
            ended = failed(&format!("f.state in ('dead', 'discarded') and not ({})", link.table.passed_sql())),
        )
    }

    /// Runs one statement in a transaction of its own, planned as claims are, in one round trip.
    async fn look(
        &self,
        link: &mut Link,
        sql: &str,
    ) -> Result<Vec<sqlx::postgres::PgRow>, DbError> {
        let begin = self.timeouts.begin_sql();
        let sql = format!(
            "{begin}; set transaction read only; set local enable_seqscan = off; set local enable_bitmapscan = off; \
             set local enable_sort = off; set local jit = off; {sql}; commit"
        );
        link.session.batch("sample", sql).await
    }
}

/// `backlog`: how many events are pending and neither dead nor discarded, and whether there are more
/// than were counted.
fn counted_sql(table: &Table) -> String {
    format!(
        "counted as materialized (
           select count(*) as n from (select from u cross join lateral (
             select from {outbox} o where {pending} and {lane} = u.lane{above}) o
             limit {COUNTED} + 1 + (select n from ended)) o
         ), backlog as (
           select greatest(counted.n - ended.n + (select count(*) from retrying where passed), 0) as n,
                  counted.n > {COUNTED} + ended.n as more
             from counted, ended
         )",
        outbox = table.names.outbox(),
        pending = table.pending,
        lane = table.lane,
        above = table.above_floor(),
    )
}

/// The rows `o` of lane `u.lane` above `u.floor` that a drain waits for and lag is measured from: pending,
/// and neither dead, discarded nor held by a dead one.
fn waiting_sql(table: &Table) -> String {
    format!(
        "{outbox} o where {pending} and {lane} = u.lane{above} \
           and not {ended} and not exists (select from {failures} f where {held})",
        outbox = table.names.outbox(),
        pending = table.pending,
        lane = table.lane,
        above = table.above_floor(),
        ended = ended_sql(table),
        failures = table.names.failures(),
        held = held_by_dead_sql(table),
    )
}

/// Whether row `o` is dead or discarded.
fn ended_sql(table: &Table) -> String {
    format!(
        "exists (select from {} f where {} and f.state in ('dead', 'discarded'))",
        table.names.failures(),
        table.is_of_failure(),
    )
}

/// Whether failure `f` is dead and holds row `o` of lane `u`.
fn held_by_dead_sql(table: &Table) -> String {
    format!("f.state = 'dead' and {}", table.held_sql())
}

/// Pending rows by the statistics of the indexes over them; -1 where there are none.
fn estimate_sql(table: &Table) -> String {
    format!(
        "(select coalesce(max(c.reltuples), -1)::bigint from pg_index i join pg_class c on c.oid = i.indexrelid \
           where i.indrelid = {} and i.indisvalid and pg_get_indexdef(i.indexrelid) like '%hashtextextended%')",
        table.found.oid
    )
}
