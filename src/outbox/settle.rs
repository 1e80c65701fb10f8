//! Settle: in the claim's transaction, mark what was confirmed, write down what failed, commit.

use std::collections::BTreeSet;

use sqlx::postgres::PgRow;

use super::{Link, Outbox, Table, error::DbError, session::statement, table::get};
use crate::event::{Event, Failure, RowId};

/// An event that the broker confirmed, told apart from a later row under a reused id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// The outbox row's id.
    pub id: RowId,
    /// Its event id.
    pub event_id: String,
}

impl Outbox {
    /// Marks (or deletes) confirmed rows and writes failures, in the claim's open transaction.
    /// `published` are indexes of `events`, `retried` those of them that have a failure row.
    ///
    /// # Errors
    /// Also when fewer rows changed than were confirmed (a trigger, a rule, row security): the others
    /// must be settled before anything else is published, or they would be published for ever.
    pub async fn settle(
        &self,
        link: &mut Link,
        events: &[Event],
        published: &[usize],
        retried: &[usize],
        failures: &[Failure],
    ) -> Result<(), DbError> {
        let ids = |indexes: &[usize]| -> Vec<&RowId> {
            indexes.iter().map(|&index| &events[index].id).collect()
        };
        let commits = failures.is_empty() && retried.is_empty();
        self.mark(link, &ids(published), &ids(retried), commits)
            .await?;
        if commits {
            return Ok(());
        }
        if !failures.is_empty() && !defect!(LoseFailure) {
            self.write_failures(link, events, failures).await?;
        }
        link.session.commit().await
    }

    /// Marks rows and forgets the failures of those retried. The plain case is one round trip, the commit
    /// in it: should fewer rows have changed then, those that did are rightly marked, as the broker has
    /// confirmed them. Failures and marks go together or not at all.
    async fn mark(
        &self,
        link: &mut Link,
        published: &[&RowId],
        retried: &[&RowId],
        commits: bool,
    ) -> Result<(), DbError> {
        let mut statements = Vec::new();
        if !published.is_empty() {
            statements.push(settle_sql(&link.table, published));
        }
        if !retried.is_empty() {
            let retried = link.table.id.array(retried.iter().copied());
            let failures = self.names.failures();
            statements.push(format!("delete from {failures} where id = any({retried})"));
        }
        if commits {
            statements.push("commit".into());
        }
        if statements.is_empty() {
            return Ok(());
        }
        let sql = statements.join("; ");
        let (_, counts) = link.session.batch_counted("settle", sql).await?;
        self.assert_settled(counts.first().copied(), published.len())
    }

    fn assert_settled(&self, changed: Option<u64>, published: usize) -> Result<(), DbError> {
        let changed = changed.unwrap_or_default();
        if published == 0 || changed == published as u64 {
            return Ok(());
        }
        Err(DbError::table(format!(
            "{changed} of {published} published rows of {} could be marked: does a trigger, rule or row security policy keep the relay from changing them?",
            self.names.display()
        )))
    }

    async fn write_failures(
        &self,
        link: &mut Link,
        events: &[Event],
        failures: &[Failure],
    ) -> Result<(), DbError> {
        let sql = format!(
            "insert into {failures_table} as f (id, event_id, lane, key, destination, state, holds, attempts, next_attempt_at, reason, failed_at)
             select id, event_id, lane, key, destination, case when retry_ms is null then 'dead' else 'retrying' end,
                    holds, attempts, clock_timestamp() + retry_ms * interval '1 millisecond', reason, clock_timestamp()
               from unnest({ids}, $1::text[], $2::int[], $3::text[], $4::text[], $5::bigint[], $6::bool[], $7::int[], $8::text[])
                 as u(id, event_id, lane, key, destination, retry_ms, holds, attempts, reason)
             on conflict (id) do update set event_id = excluded.event_id, lane = excluded.lane, key = excluded.key,
                destination = excluded.destination, state = excluded.state, holds = excluded.holds, attempts = excluded.attempts,
                next_attempt_at = excluded.next_attempt_at, reason = excluded.reason, failed_at = excluded.failed_at",
            failures_table = self.names.failures(),
            ids = link.table.id.array(failures.iter().map(|f| &events[f.index].id)),
        );
        let of = |failure: &Failure| &events[failure.index];
        let query = statement(sql)
            .bind(
                failures
                    .iter()
                    .map(|f| of(f).message.id.clone())
                    .collect::<Vec<_>>(),
            )
            .bind(failures.iter().map(|f| of(f).lane).collect::<Vec<_>>())
            .bind(
                failures
                    .iter()
                    .map(|f| of(f).message.key.clone())
                    .collect::<Vec<_>>(),
            )
            .bind(
                failures
                    .iter()
                    .map(|f| of(f).message.destination.clone())
                    .collect::<Vec<_>>(),
            )
            .bind(
                failures
                    .iter()
                    .map(|f| {
                        f.retry_in
                            .map(|delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
                    })
                    .collect::<Vec<_>>(),
            )
            .bind(failures.iter().map(|f| f.holds).collect::<Vec<_>>())
            .bind(
                failures
                    .iter()
                    .map(|f| i32::try_from(f.attempts).unwrap_or(i32::MAX))
                    .collect::<Vec<_>>(),
            )
            .bind(
                failures
                    .iter()
                    .map(|f| f.reason.to_string())
                    .collect::<Vec<_>>(),
            );
        link.session.execute("settle", query).await.map(drop)
    }

    /// Settles what was confirmed when its own settlement failed, or its outcome is not known: in a
    /// transaction of its own, by id and event id, as often as it takes. Publishing again before this
    /// has succeeded would send the same batch for ever.
    pub async fn settle_confirmed(
        &self,
        link: &mut Link,
        confirmed: &[Confirmed],
    ) -> Result<(), DbError> {
        link.session.begin(&self.timeouts).await?;
        let table = &link.table;
        let event_ids: Vec<&str> = confirmed
            .iter()
            .map(|event| event.event_id.as_str())
            .collect();
        let still = format!(
            "select {readable} from {outbox} o join unnest({ids}, $1::text[]) u(id, event_id)
                on {id} = u.id and {event_id} = u.event_id where {pending} for update of o",
            readable = table.id.readable(&table.id_column),
            outbox = self.names.outbox(),
            ids = table.id.array(confirmed.iter().map(|event| &event.id)),
            id = table.id_column,
            event_id = table.event_id,
            pending = table.pending,
        );
        let rows = link
            .session
            .fetch("settle", statement(still).bind(&event_ids))
            .await?;
        let read = |rows: &[PgRow], table: &Table| {
            let ids = rows.iter().map(|row| table.id.read(row, 0));
            ids.collect::<Result<Vec<RowId>, _>>()
        };
        let pending = read(&rows, &link.table)?;
        let sql = format!(
            "select {}, lane from {} where id = any({}) and state = 'retrying'",
            link.table.id.readable("id"),
            self.names.failures(),
            link.table.id.array(pending.iter()),
        );
        let rows = link.session.fetch("settle", statement(sql)).await?;
        self.lock_lanes(link, &rows).await?;
        let retried = read(&rows, &link.table)?;
        self.mark(
            link,
            &pending.iter().collect::<Vec<_>>(),
            &retried.iter().collect::<Vec<_>>(),
            true,
        )
        .await
    }

    /// Locks the lanes of failures that are to go: a claim that is reading one of them rests on them.
    /// (No deadlock: claims skip the rows locked here.)
    async fn lock_lanes(&self, link: &mut Link, failures: &[PgRow]) -> Result<(), DbError> {
        let lanes = failures.iter().map(|row| get::<i16>(row, 1));
        for lane in lanes.collect::<Result<BTreeSet<_>, _>>()? {
            let lock = link.table.lock_sql(&lane.to_string());
            let sql = format!("select pg_advisory_xact_lock({lock})");
            link.session.execute("settle", statement(sql)).await?;
        }
        Ok(())
    }
}

fn settle_sql(table: &Table, published: &[&RowId]) -> String {
    let outbox = table.names.outbox();
    let (id, ids) = (&table.id_column, table.id.array(published.iter().copied()));
    match &table.set {
        Some(set) => format!(
            "update {outbox} as o set {set} where {id} = any({ids}) and {}",
            table.pending
        ),
        None => format!("delete from {outbox} as o where {id} = any({ids})"),
    }
}
