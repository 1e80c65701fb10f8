//! Pruning: delete what was published longer ago than the retention.
//!
//! # Design notes
//! * No index on `published_at`, which every settlement would pay for: one pruner walks the primary key
//!   from where it got to. An event is published after it was created, so the walk may stop where rows
//!   were created within the retention: later ones are younger still. Pages of pending rows and dead
//!   letters (old, and not due) are walked past.
//! * What was walked past may be published and become due later: every few minutes a walk begins at
//!   the start again.
//! * Of a table that somebody else made only failures are pruned: its owner knows how long rows are kept.
//! * Failures whose outbox row is gone go as well. Under their lane's lock, since a snapshot older than
//!   the lock might miss the row of a new event under a reused id; lanes in use wait for another step.

use std::time::{Duration, Instant};

use super::{DbError, Link, Outbox, locks, session::statement, table::get};
use crate::event::RowId;

/// Rows looked at in one step.
const PAGE: i64 = 2_000;
/// Failures looked at in one step.
const FAILURES_PAGE: i64 = 500;
const RESTART_EVERY: Duration = Duration::from_mins(5);

/// Where a pruner got to. Keep it from one step to the next.
#[derive(Debug, Clone, Default)]
pub struct PruneCursor {
    row: i64,
    failure: Option<RowId>,
    restarted_at: Option<Instant>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Published rows deleted.
    pub events: u64,
    /// How long ago the oldest of these should have been deleted.
    pub overdue: Duration,
    /// Failures without an event deleted.
    pub failures: u64,
    /// Whether the walk has not come to its end yet.
    pub more: bool,
    /// Whether another pruner is at work on this table, so that nothing was done.
    pub elsewhere: bool,
}

impl Outbox {
    /// Deletes published rows past retention among the next few thousand rows. Dead letters and pending
    /// rows stay.
    pub async fn prune_step(
        &self,
        link: &mut Link,
        cursor: &mut PruneCursor,
        retention: Duration,
    ) -> Result<Step, DbError> {
        if cursor
            .restarted_at
            .is_none_or(|at| at.elapsed() > RESTART_EVERY)
        {
            *cursor = PruneCursor {
                restarted_at: Some(Instant::now()),
                ..PruneCursor::default()
            };
        }
        link.session.begin(&self.timeouts).await?;
        let lock = format!(
            "select pg_try_advisory_xact_lock({})",
            link.table.lock_sql(&locks::PRUNER.to_string())
        );
        let locked = link.session.fetch_one("prune", statement(lock)).await?;
        if !get::<bool>(&locked, 0)? {
            link.session.rollback().await?;
            return Ok(Step {
                elsewhere: true,
                ..Step::default()
            });
        }
        let (events, overdue, more_events) = if self.mapping.is_own() {
            self.prune_rows(link, cursor, retention).await?
        } else {
            (0, Duration::ZERO, false)
        };
        let (failures, more_failures) = self.prune_failures(link, cursor).await?;
        link.session.commit().await?;
        Ok(Step {
            events,
            overdue,
            failures,
            more: more_events || more_failures,
            elsewhere: false,
        })
    }

    async fn prune_rows(
        &self,
        link: &mut Link,
        cursor: &mut PruneCursor,
        retention: Duration,
    ) -> Result<(u64, Duration, bool), DbError> {
        let outbox = self.names.outbox();
        let published_at = defect!(PruneUnpublished: "o.created_at", else "o.published_at");
        let sql = format!(
            "with page as materialized (
               select o.id, {published_at} as published_at, {published_at} < now() - $2 * interval '1 second' as due,
                      o.created_at >= now() - $2 * interval '1 second' as young
                 from {outbox} o where o.id > $1 order by o.id limit $3
             ), gone as (
               delete from {outbox} o where o.id = any(array(select id from page where due))
                  and {published_at} < now() - $2 * interval '1 second'
               returning o.id
             ), last as (select id, young from page order by id desc limit 1)
             select (select count(*) from page), (select count(*) from gone), (select id from last),
                    (select min(id) from page where young and (select young from last)),
                    (select coalesce(extract(epoch from now() - $2 * interval '1 second' - min(published_at)), 0)::float8
                       from page where due and isfinite(published_at))"
        );
        let query = statement(sql)
            .bind(cursor.row)
            .bind(retention.as_secs_f64())
            .bind(PAGE);
        let page = link.session.fetch_one("prune", query).await?;
        let (seen, gone): (i64, i64) = (get(&page, 0)?, get(&page, 1)?);
        let (last, frontier): (Option<i64>, Option<i64>) = (get(&page, 2)?, get(&page, 3)?);
        cursor.row = match (frontier, last) {
            (Some(first_young), _) => first_young - 1,
            (None, Some(last)) => last,
            (None, None) => cursor.row,
        };
        let overdue = Duration::try_from_secs_f64(get(&page, 4)?).unwrap_or_default();
        Ok((
            gone.unsigned_abs(),
            overdue,
            seen == PAGE && frontier.is_none(),
        ))
    }

    async fn prune_failures(
        &self,
        link: &mut Link,
        cursor: &mut PruneCursor,
    ) -> Result<(u64, bool), DbError> {
        let failures = self.names.failures();
        let orphan = format!(
            "not exists (select from {} o where {} and {})",
            self.names.outbox(),
            link.table.is_of_failure(),
            link.table.pending
        );
        let id = link.table.id;
        let sql = format!(
            "select {readable}, f.lane::bigint, {orphan} from {failures} f where {after} order by f.id limit $1",
            readable = id.readable("f.id"),
            after = id.after("f.id", cursor.failure.as_ref()),
        );
        let query = statement(sql).bind(FAILURES_PAGE);
        let page = link.session.fetch("prune", query).await?;
        let (mut ids, mut lanes) = (Vec::new(), Vec::new());
        for row in &page {
            let failure = id.read(row, 0)?;
            if get(row, 2)? {
                ids.push(failure.clone());
                lanes.push(get::<i64>(row, 1)?);
            }
            cursor.failure = Some(failure);
        }
        let more = i64::try_from(page.len()) == Ok(FAILURES_PAGE);
        if !more {
            cursor.failure = None;
        }
        if ids.is_empty() {
            return Ok((0, more));
        }
        let locked = self.try_lanes(link, lanes).await?;
        let sql = format!(
            "delete from {failures} f where f.id = any({}) and f.lane = any($1) and {orphan}",
            id.array(ids.iter())
        );
        let query = statement(sql).bind(locked);
        let gone = link.session.execute("prune", query).await?;
        Ok((gone, more))
    }

    /// Locks those of the lanes that are free; a statement of its own, so that the next one sees what
    /// was committed before.
    async fn try_lanes(&self, link: &mut Link, mut lanes: Vec<i64>) -> Result<Vec<i64>, DbError> {
        lanes.sort_unstable();
        lanes.dedup();
        let sql = format!(
            "select lane from unnest($1::bigint[]) lane where pg_try_advisory_xact_lock({})",
            link.table.lock_sql("lane::int")
        );
        let query = statement(sql).bind(lanes);
        let rows = link.session.fetch("prune", query).await?;
        rows.iter().map(|row| get(row, 0)).collect()
    }
}
