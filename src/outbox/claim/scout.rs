//! The first round trip of a claim: begin, find lanes with work, lock up to a share of them, ask whether
//! failures matter, and read the [`first`](super::first) rows.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use sqlx::{Row, postgres::PgRow};

use super::{
    Claim, Lane, Want, array, exclusions, first::First, holding_sql, prepared::Arguments,
    text_array,
};
use crate::outbox::{
    Link, Ordering, Outbox,
    catalog::stamp_sql,
    error::DbError,
    floors::{Emptied, Look, Mark},
    row,
    table::{LANES, Order, Table, get},
};

/// Without these the planner sorts a whole lane (3 to 5 times slower), or compiles the plan (200 ms).
const PINS: &str = "set local enable_bitmapscan = off; set local enable_seqscan = off; \
     set local enable_sort = off; set local enable_hashjoin = off; set local enable_mergejoin = off; \
     set local jit = off";
/// How sqlx reads a bytea that comes as text.
const BYTES_AS_HEX: &str = "set local bytea_output = 'hex'";

/// What the statements of a scout are made of.
#[derive(Clone)]
pub(super) struct Scout<'a> {
    pub(super) table: &'a Table,
    pub(super) ordering: Ordering,
    pub(super) arguments: Arguments,
    /// Conditions on a row besides being pending, if any failure or pause may matter.
    pub(super) excluded: Option<String>,
    /// Whether to read the first rows at once.
    pub(super) reads_first: bool,
}

impl Outbox {
    pub(super) async fn scout(
        &self,
        link: &mut Link,
        want: &Want,
        marks: &[Mark; LANES],
        horizon: i64,
    ) -> Result<Claim, DbError> {
        // A floor that rests on failures must be compared with them, even when they seem to be gone.
        let careful = self.failures_seen.load(Relaxed)
            || !want.paused.is_empty()
            || marks.iter().any(|mark| mark.holding != 0);
        let first = First::of(want, &self.event_bytes);
        let scout = Scout {
            table: &link.table,
            ordering: self.ordering,
            arguments: arguments(marks, want, first),
            excluded: careful.then(|| exclusions(&link.table, &text_array(&want.paused))),
            reads_first: self.reads_first(careful, want),
        };
        let begin = [self.timeouts.begin_sql(), PINS.into(), BYTES_AS_HEX.into()];
        // Without a horizon no floor rises: where rows are ranked, none may.
        let look = match link.table.order {
            Order::Numbered(_) => self.floors().wants_horizon(Instant::now()),
            Order::Ranked(_) => None,
        };
        let mut further = Vec::new();
        if look.is_some() {
            further.extend([scout.find_empty_lanes(), scout.look_at_writers()]);
        }
        let session = &mut link.session;
        let mut answered = None;
        if scout.reads_first && !self.pooled.load(Relaxed) {
            answered = self
                .scout_prepared(session, &scout, &begin, &further)
                .await?;
        }
        let rows = if let Some(rows) = answered {
            rows
        } else {
            let statements = [&begin, &scout.statements()[..], &further].concat();
            session.batch("claim", statements.join("; ")).await?
        };
        // The answers are few columns each, the first of which says what it is.
        let (events, answers): (Vec<_>, Vec<_>) = rows
            .iter()
            .partition(|row| row.len() > row::count(&link.table));
        let mut claim = Claim::new(first, horizon);
        self.read_scouted(&answers, &link.table, marks, look, &mut claim)?;
        self.take_first(&events, &link.table, want, &mut claim)?;
        self.failures_seen.store(claim.failures, Relaxed);
        Ok(claim)
    }

    /// Whether rows are read in the round trip of the locks: nothing excludes any, as far as is known,
    /// and there were few of late.
    fn reads_first(&self, careful: bool, want: &Want) -> bool {
        // One event at a time is no time to hurry.
        !careful && want.events > 1 && self.finds_little.load(Relaxed) && !defect!(LockWhileReading)
    }

    fn read_scouted(
        &self,
        rows: &[&PgRow],
        table: &Table,
        marks: &[Mark; LANES],
        look: Option<Look>,
        claim: &mut Claim,
    ) -> Result<(), DbError> {
        let number = |row: &PgRow| {
            Ok::<_, DbError>(usize::try_from(get::<i64>(row, 1)?).unwrap_or_default() % LANES)
        };
        for &row in rows {
            match get::<&str>(row, 0)? {
                "lane" => {
                    let (number, head) = (number(row)?, get(row, 2)?);
                    let mark = marks[number];
                    let lane = Lane {
                        number,
                        mark,
                        head,
                        last: mark.floor,
                        rank: None,
                        exhausted: false,
                        skipped: None,
                        due: get(row, 3)?,
                        holding: 0,
                    };
                    claim.lanes.push(lane);
                }
                "empty" => {
                    let number = number(row)?;
                    let emptied = Emptied {
                        up_to: None,
                        holding: get(row, 2)?,
                        barren: false,
                    };
                    let now = Instant::now();
                    self.floors()
                        .raise(number, marks[number], emptied, claim.horizon, now);
                }
                "writers" => {
                    let writers: &str = get(row, 2)?;
                    let writers = writers
                        .split(',')
                        .filter(|writer| !writer.is_empty())
                        .map(Into::into)
                        .collect();
                    if let Some(look) = look {
                        self.floors().look(look, get(row, 1)?, writers);
                    }
                }
                _ => {
                    // No schema change comes between this and the claim's end: the table is locked.
                    if get::<&str>(row, 3)? != table.found.stamp {
                        return Err(DbError::table(format!(
                            "{} was replaced, rewritten or emptied: looking at it anew",
                            table.names.display()
                        )));
                    }
                    claim.now_us = get(row, 1)?;
                    claim.failures = get(row, 2)?;
                }
            }
        }
        Ok(())
    }
}

impl Scout<'_> {
    /// Locks lanes, asks for failures, and reads the first rows.
    pub(super) fn statements(&self) -> Vec<String> {
        let first = self.reads_first.then(|| self.first_rows());
        [self.lock_lanes(), self.ask_for_failures()]
            .into_iter()
            .chain(first)
            .collect()
    }

    /// The lanes to look at, as `u(lane, floor, known)`.
    fn lanes(&self) -> String {
        let Arguments {
            floors,
            known,
            awake,
            ..
        } = &self.arguments;
        format!(
            "(select lane, ({floors})[lane + 1] as floor, ({known})[lane + 1] as known from unnest({awake}) lane) u"
        )
    }

    /// The pending rows of lane `u.lane` above `u.floor` that may be claimed.
    pub(super) fn claimable(&self) -> String {
        format!(
            "{} o where {} and {} = u.lane{}{}",
            self.table.names.outbox(),
            self.table.pending,
            self.table.lane,
            self.table.above_floor(),
            self.excluded.as_deref().unwrap_or_default(),
        )
    }

    /// Rows `lane, number, head, due`: lanes with work, oldest first, locked. `due` says that a retry is.
    /// (A fifth column only notes the lanes for [`Scout::first_rows`].)
    fn lock_lanes(&self) -> String {
        let failures = self.table.names.failures();
        let (due, holding) = match self.excluded {
            None => ("null::bigint".into(), "u.known".into()),
            Some(_) => (
                format!(
                    "(select min({age}) from {failures} f where f.lane = u.lane and f.state = 'retrying' \
                       and f.next_attempt_at <= clock_timestamp())",
                    age = if self.table.is_ordered_by_id() {
                        "f.id"
                    } else {
                        "0::bigint"
                    },
                ),
                holding_sql(self.table),
            ),
        };
        let lock = match self.ordering {
            Ordering::Key if !defect!(SkipLaneLock | LockWhileReading) => format!(
                "where pg_try_advisory_xact_lock({})",
                self.table.lock_sql("lane::int")
            ),
            Ordering::Key | Ordering::None => String::new(),
        };
        format!(
            "with heads as materialized (
               select u.lane, u.known, (select {age} from {claimable} order by {order} limit 1) as head,
                      {due} as due, {holding} as holding
                 from {lanes}
             ), work as materialized (
               select lane, head, due is not null as due from heads
                where head is not null or due is not null or holding <> known order by least(head, heads.due)
             ), taken as materialized (select lane, head, due from work {lock} limit {most})
             select 'lane', lane, head, due{note} from taken",
            note = if self.reads_first {
                format!(", {}", First::note_lanes())
            } else {
                String::new()
            },
            // Where nothing tells the older one, all lanes have their turn.
            age = self.table.number_sql().unwrap_or_else(|| "(random() * 1000000000)::bigint".into()),
            order = self.table.order_by(),
            claimable = self.claimable(),
            lanes = self.lanes(),
            most = self.arguments.most,
        )
    }

    /// The row `now, clock, failures, stamp`: asked after the locks are taken, since a failure written
    /// before that by the lane's last owner counts.
    fn ask_for_failures(&self) -> String {
        let failures = self.table.names.failures();
        format!(
            "select 'now', (extract(epoch from clock_timestamp()) * 1000000)::bigint, \
               exists (select from {failures} f where f.holds or f.state = 'retrying') \
               or exists (select from {failures} f where {may_matter}), {stamp}",
            may_matter = if self.table.is_ordered_by_id() {
                format!("f.id > {}", self.arguments.lowest)
            } else {
                "true".into()
            },
            stamp = stamp_sql(&self.table.names, &self.table.payload_name)
        )
    }

    /// Rows `empty, lane, holding`: nothing claimable is left there. Keeps the floors of lanes without
    /// traffic up with the others'.
    fn find_empty_lanes(&self) -> String {
        let holding = match self.excluded {
            None => "0::bigint".into(),
            Some(_) => holding_sql(self.table),
        };
        format!(
            "select 'empty', u.lane, {holding} from {lanes} where not exists (select from {claimable})",
            lanes = self.lanes(),
            claimable = self.claimable(),
        )
    }

    /// The row `writers, max(id), transactions`: the visible id first (by the statement's snapshot),
    /// then who may still be writing.
    fn look_at_writers(&self) -> String {
        format!(
            "select 'writers', coalesce((select max({number})::bigint from {outbox} o), 0), coalesce((\
               select string_agg(virtualtransaction, ',') from pg_locks \
                where locktype = 'relation' and relation = {oid} \
                  and database = (select oid from pg_database where datname = current_database()) \
                  and mode not in ('AccessShareLock', 'RowShareLock') and pid is distinct from pg_backend_pid()), '')",
            number = self.table.order_by(),
            outbox = self.table.names.outbox(),
            oid = self.table.found.oid,
        )
    }
}

/// What a scout asks with.
fn arguments(marks: &[Mark; LANES], want: &Want, first: First) -> Arguments {
    // A floor that rests on holding failures may fall during this very claim: every failure counts.
    let read_from = marks.iter().map(|mark| match mark.holding {
        0 => mark.floor,
        _ => 0,
    });
    let awake = (0..LANES).filter(|&lane| !marks[lane].resting);
    Arguments {
        floors: array(marks.iter().map(|mark| mark.floor)),
        known: array(marks.iter().map(|mark| mark.holding)),
        awake: array(awake.map(|lane| lane as i64)),
        most: want.lanes.to_string(),
        lowest: read_from.min().unwrap_or_default().to_string(),
        first_rows: first.rows.to_string(),
        first_bytes: first.bytes.to_string(),
        event_bytes: want.event_bytes.to_string(),
    }
}
