//! Failed events, as the commands see and change them.
//!
//! # Design notes
//! * A change takes the lane's lock, as a claim does: nothing of that lane is on its way meanwhile. One
//!   lane at a time, each in a short transaction, so that commands cannot deadlock and no lane waits for
//!   another. What was found before the lock is looked at again under it.
//! * Whoever has no pending row any more (deleted, or marked by hand) is dropped instead of changed.

use super::{
    DbError, Link, Outbox,
    session::{Statement, statement},
    table::get,
};
use crate::{event::RowId, sink::ReasonKind};

/// Where a failed event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Tried again by itself.
    Retrying,
    /// Given up on.
    Dead,
    /// Not to be published at all.
    Discarded,
}

impl State {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retrying => "retrying",
            Self::Dead => "dead",
            Self::Discarded => "discarded",
        }
    }
}

/// Which failed events are meant. All conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In one of these states.
    pub states: Vec<State>,
    /// One of these events; all where there are none.
    pub event_ids: Vec<String>,
    /// Of this destination.
    pub destination: Option<String>,
    /// Of this key.
    pub key: Option<String>,
    /// With this kind of reason or, if it is none of the kinds, this text in it.
    pub reason: Option<String>,
    /// Failed before this time.
    pub before: Option<Before>,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Before {
    /// Seconds since the epoch.
    At(f64),
    /// Seconds ago, by the database's clock.
    Ago(f64),
}

/// A failed event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedEvent {
    /// The outbox row's id.
    pub id: RowId,
    /// Its event id.
    pub event_id: String,
    /// Where it goes.
    pub destination: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// `retrying`, `dead` or `discarded`.
    pub state: String,
    /// Whether later events of its key wait for it.
    pub holds: bool,
    /// Negative answers so far.
    pub attempts: i32,
    /// What the broker said.
    pub reason: String,
    /// When it failed last, in UTC.
    pub failed_at: String,
    /// When it is tried again, in UTC.
    pub next_attempt_at: Option<String>,
}

/// What to do with failed events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Try again at once, as if for the first time.
    Retry,
    /// Never publish.
    Discard,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Events changed.
    pub changed: u64,
    /// Those of them whose key did not wait for them: later events of it may be out already.
    pub overtaken: u64,
    /// Failures dropped, since no pending row was left.
    pub gone: u64,
}

const MATCHES: &str = "f.state = any($1) and (cardinality($2::text[]) = 0 or f.event_id = any($2))
    and ($3::text is null or f.destination = $3) and ($4::text is null or f.key = $4)
    and ($5::text is null or case when $6 then split_part(f.reason, ':', 1) = $5
                                  else position(lower($5) in lower(f.reason)) > 0 end)
    and ($7::float8 is null or f.failed_at < to_timestamp($7))
    and ($8::float8 is null or f.failed_at < now() - $8 * interval '1 second')";

impl Filter {
    fn bind(&self, sql: String) -> Statement<'_> {
        let (at, ago) = match self.before {
            Some(Before::At(at)) => (Some(at), None),
            Some(Before::Ago(ago)) => (None, Some(ago)),
            None => (None, None),
        };
        let is_kind = |reason: &str| ReasonKind::ALL.iter().any(|kind| kind.as_str() == reason);
        statement(sql)
            .bind(words(&self.states))
            .bind(&self.event_ids)
            .bind(&self.destination)
            .bind(&self.key)
            .bind(&self.reason)
            .bind(self.reason.as_deref().is_some_and(is_kind))
            .bind(at)
            .bind(ago)
    }
}

fn words(states: &[State]) -> Vec<&'static str> {
    states.iter().map(|state| state.as_str()).collect()
}

impl Outbox {
    /// Failed events with ids above `after`, if given, in id order.
    pub async fn failed_events(
        &self,
        link: &mut Link,
        filter: &Filter,
        after: Option<&RowId>,
        limit: i64,
    ) -> Result<Vec<FailedEvent>, DbError> {
        let id = link.table.id;
        let utc = |column: &str| {
            format!("to_char({column} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        };
        let sql = format!(
            "select {}, f.event_id, f.destination, f.key, f.state, f.holds, f.attempts, f.reason, {}, {}
               from {} f where {MATCHES} and {} order by f.id limit $9",
            id.readable("f.id"),
            utc("f.failed_at"),
            utc("f.next_attempt_at"),
            self.names.failures(),
            id.after("f.id", after),
        );
        link.session.begin_reading(&self.timeouts).await?;
        let query = filter.bind(sql).bind(limit);
        let rows = link.session.fetch("list", query).await?;
        link.session.commit().await?;
        let events = rows.iter().map(|row| {
            Ok(FailedEvent {
                id: id.read(row, 0)?,
                event_id: get(row, 1)?,
                destination: get(row, 2)?,
                key: get(row, 3)?,
                state: get(row, 4)?,
                holds: get(row, 5)?,
                attempts: get(row, 6)?,
                reason: get(row, 7)?,
                failed_at: get(row, 8)?,
                next_attempt_at: get(row, 9)?,
            })
        });
        events.collect()
    }

    /// The ids of failed events, oldest first within each lane, each list of one lane.
    pub async fn failed_lanes(
        &self,
        link: &mut Link,
        filter: &Filter,
        limit: Option<i64>,
    ) -> Result<Vec<(i64, Vec<RowId>)>, DbError> {
        let id = link.table.id;
        let sql = format!(
            "select lane::bigint, {} from (
               select f.lane, f.id from {} f where {MATCHES} order by f.id limit $9) f order by lane, id",
            id.readable("f.id"),
            self.names.failures()
        );
        link.session.begin_reading(&self.timeouts).await?;
        let query = filter.bind(sql).bind(limit);
        let rows = link.session.fetch("list", query).await?;
        link.session.commit().await?;
        let mut lanes: Vec<(i64, Vec<RowId>)> = Vec::new();
        for row in &rows {
            let (lane, id) = (get(row, 0)?, id.read(row, 1)?);
            match lanes.last_mut().filter(|(last, _)| *last == lane) {
                Some((_, ids)) => ids.push(id),
                None => lanes.push((lane, vec![id])),
            }
        }
        Ok(lanes)
    }

    /// The states of events, of those that failed at all.
    pub async fn failed_states(
        &self,
        link: &mut Link,
        event_ids: &[String],
    ) -> Result<Vec<(String, String)>, DbError> {
        let sql = format!(
            "select event_id, state from {} where event_id = any($1)",
            self.names.failures()
        );
        link.session.begin_reading(&self.timeouts).await?;
        let query = statement(sql).bind(event_ids);
        let rows = link.session.fetch("list", query).await?;
        link.session.commit().await?;
        rows.iter()
            .map(|row| Ok((get(row, 0)?, get(row, 1)?)))
            .collect()
    }

    /// Changes those of the events that still are in one of the states, under their lane's lock.
    ///
    /// # Errors
    /// Also when the lane is not free within the lock timeout ([`DbError::is_lock_timeout`]).
    pub async fn change_failed(
        &self,
        link: &mut Link,
        change: Change,
        states: &[State],
        lane: i64,
        ids: &[RowId],
    ) -> Result<Changed, DbError> {
        let failures = self.names.failures();
        let ids = link.table.id.array(ids.iter());
        link.session.begin(&self.timeouts).await?;
        let lock = format!(
            "select pg_advisory_xact_lock({})",
            link.table.lock_sql(&lane.to_string())
        );
        link.session.fetch("lock", statement(lock)).await?;
        let drop = format!(
            "delete from {failures} f where f.id = any({ids}) and f.state = any($1)
                and not exists (select from {} o where {} and {})",
            self.names.outbox(),
            link.table.is_of_failure(),
            link.table.pending
        );
        let bound = |sql: String| statement(sql).bind(words(states));
        let gone = link.session.execute("change", bound(drop)).await?;
        let set = match change {
            // Where keys have no order, nothing is held.
            Change::Retry => format!(
                "state = 'retrying', attempts = 0, next_attempt_at = clock_timestamp(), holds = f.key is not null
                   and coalesce((select ordering from {} order by seen_at desc limit 1), 'key') <> 'none'",
                self.names.instances()
            ),
            Change::Discard => "state = 'discarded', next_attempt_at = null, holds = false".into(),
        };
        let sql = format!(
            "with before as (select id, holds from {failures} f where f.id = any({ids}) and f.state = any($1))
             update {failures} f set {set} from before b where f.id = b.id returning f.key is not null and not b.holds"
        );
        let rows = link.session.fetch("change", bound(sql)).await?;
        link.session.commit().await?;
        let overtaken = rows.iter().map(|row| get::<bool>(row, 0));
        let overtaken = overtaken.collect::<Result<Vec<_>, _>>()?;
        Ok(Changed {
            changed: rows.len() as u64,
            overtaken: overtaken.iter().filter(|overtaken| **overtaken).count() as u64,
            gone,
        })
    }

    /// Who holds a lane, in words.
    pub async fn lane_holder(&self, link: &mut Link, lane: i64) -> Result<Option<String>, DbError> {
        let sql = "select format('%s (pid %s%s)', coalesce(nullif(a.application_name, ''), 'a session'), l.pid,
                          ', for ' || round(extract(epoch from clock_timestamp() - a.xact_start), 1) || ' s')
                     from pg_locks l left join pg_stat_activity a on a.pid = l.pid
                    where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.classid = $1::bigint::oid and l.objid = $2::bigint::oid
                      and l.database = (select oid from pg_database where datname = current_database())";
        link.session.begin_reading(&self.timeouts).await?;
        let query = statement(sql)
            .bind(i64::from(link.table.found.oid))
            .bind(lane);
        let rows = link.session.fetch("lock", query).await?;
        link.session.commit().await?;
        rows.first().map(|row| get(row, 0)).transpose()
    }
}
