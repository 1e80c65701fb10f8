//! Settle: in the claim's transaction, mark what was confirmed, write down what failed, commit.

use std::collections::BTreeSet;

use sqlx::postgres::PgRow;

use super::{
    Link, OnPublished, Outbox,
    error::DbError,
    session::statement,
    table::{Table, array, get},
};
use crate::event::{Event, Failure};

/// An event that the broker confirmed, told apart from a later row under a reused id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// The outbox row's id.
    pub id: i64,
    /// Its event id.
    pub event_id: String,
}

impl Outbox {
    /// Marks (or deletes) confirmed rows and writes failures, in the claim's open transaction.
    /// `retried` are those of `published` that have a failure row.
    ///
    /// # Errors
    /// Also when fewer rows changed than were confirmed (a trigger, a rule, row security): the others
    /// must be settled before anything else is published, or they would be published for ever.
    pub async fn settle(
        &self,
        link: &mut Link,
        events: &[Event],
        published: &[i64],
        retried: &[i64],
        failures: &[Failure],
    ) -> Result<(), DbError> {
        // The plain case is one round trip, the commit in it. Should fewer rows have changed then, those
        // that did are rightly marked, as the broker has confirmed them. Failures and marks go together or
        // not at all.
        let plain = failures.is_empty() && retried.is_empty();
        let mut statements = Vec::new();
        if !published.is_empty() {
            statements.push(self.settle_sql(published));
        }
        if !retried.is_empty() {
            let retried = array(retried.iter().copied());
            let failures = self.names.failures();
            statements.push(format!("delete from {failures} where id = any({retried})"));
        }
        if plain {
            statements.push("commit".into());
        }
        if !statements.is_empty() {
            let sql = statements.join("; ");
            let (_, counts) = link.session.batch_counted("settle", sql).await?;
            self.assert_settled(counts.first().copied(), published.len())?;
        }
        if plain {
            return Ok(());
        }
        if !failures.is_empty() && !defect!(LoseFailure) {
            self.write_failures(link, events, failures).await?;
        }
        link.session.commit().await
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

    fn settle_sql(&self, published: &[i64]) -> String {
        let outbox = self.names.outbox();
        let ids = array(published.iter().copied());
        match self.on_published {
            OnPublished::Mark => {
                format!(
                    "update {outbox} as o set published_at = statement_timestamp() where id = any({ids}) and {}",
                    Table::PENDING
                )
            }
            OnPublished::Delete => format!("delete from {outbox} as o where id = any({ids})"),
        }
    }

    async fn write_failures(
        &self,
        link: &mut Link,
        events: &[Event],
        failures: &[Failure],
    ) -> Result<(), DbError> {
        let sql = format!(
            "insert into {} as f (id, event_id, lane, key, destination, state, holds, attempts, next_attempt_at, reason, failed_at)
             select id, event_id, lane, key, destination, case when retry_ms is null then 'dead' else 'retrying' end,
                    holds, attempts, clock_timestamp() + retry_ms * interval '1 millisecond', reason, clock_timestamp()
               from unnest($1::bigint[], $2::text[], $3::int[], $4::text[], $5::text[], $6::bigint[], $7::bool[], $8::int[], $9::text[])
                 as u(id, event_id, lane, key, destination, retry_ms, holds, attempts, reason)
             on conflict (id) do update set event_id = excluded.event_id, lane = excluded.lane, key = excluded.key,
                destination = excluded.destination, state = excluded.state, holds = excluded.holds, attempts = excluded.attempts,
                next_attempt_at = excluded.next_attempt_at, reason = excluded.reason, failed_at = excluded.failed_at",
            self.names.failures()
        );
        let of = |failure: &Failure| &events[failure.index];
        let query = statement(sql)
            .bind(failures.iter().map(|f| of(f).id).collect::<Vec<_>>())
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
        let ids: Vec<i64> = confirmed.iter().map(|event| event.id).collect();
        let event_ids: Vec<&str> = confirmed
            .iter()
            .map(|event| event.event_id.as_str())
            .collect();
        let outbox = self.names.outbox();
        let still = format!(
            "select o.id from {outbox} o join unnest($1::bigint[], $2::text[]) u(id, event_id)
                on o.id = u.id and {} = u.event_id where {} for update of o",
            Table::EVENT_ID,
            Table::PENDING
        );
        let rows = link
            .session
            .fetch("settle", statement(still).bind(&ids).bind(&event_ids))
            .await?;
        let pending = rows
            .iter()
            .map(|row| get(row, 0))
            .collect::<Result<Vec<i64>, _>>()?;
        let retried: Vec<i64> = {
            let sql = format!(
                "select id, lane from {} where id = any($1) and state = 'retrying'",
                self.names.failures()
            );
            let rows = link
                .session
                .fetch("settle", statement(sql).bind(&pending))
                .await?;
            self.lock_lanes(link, &rows).await?;
            rows.iter()
                .map(|row| get(row, 0))
                .collect::<Result<_, _>>()?
        };
        self.settle(link, &[], &pending, &retried, &[]).await
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
