//! Claim: take lanes with work, then their oldest pending rows, in a transaction that stays open
//! until they are settled.
//!
//! # Design notes
//! * Lanes are locked in one statement ([`scout`]) and rows are read by later ones ([`first`] in the same
//!   round trip, [`read`] what that leaves): a snapshot taken before the lock is stale, and a row that
//!   another relay has just declared dead would be claimed again.
//! * `SKIP LOCKED` also skips rows that [`strangers`] hold (an UPDATE, a foreign key's check). A plain
//!   count over the same range finds that out, and the key's later events are withheld.
//! * Whether failures matter to this claim at all is asked in the round trip of the locks; where they
//!   do not, the rows' statement carries no exclusions and pays nothing.
//! * Batches are cut at the byte budget inside the statement, by a running sum in the order of
//!   reading: what is cut is always the end of a lane, never its middle.

mod first;
mod prepared;
mod read;
mod scout;
mod strangers;

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use self::first::First;
pub(super) use self::read::EventBytes;
use super::{
    Link, Ordering, Outbox,
    error::DbError,
    floors::{Emptied, Mark},
    table::{Table, array},
};
use crate::{
    event::{Event, RowId},
    template::quote_literal,
};

/// How much to claim.
#[derive(Debug, Clone)]
pub struct Want {
    /// Rows at most.
    pub events: usize,
    /// Bytes of payload and headers at most; the first row is taken whatever its size.
    pub bytes: usize,
    /// Lanes at most.
    pub lanes: usize,
    /// Rows larger than this are claimed without their payload, and cannot be sent.
    pub event_bytes: usize,
    /// Destinations not to be published to.
    pub paused: Vec<String>,
}

/// Events taken, locked until the transaction ends, in order within a lane; a due retry comes
/// before everything else, and nothing else of its key is there.
#[derive(Debug)]
pub struct Claim {
    /// What to publish.
    pub events: Vec<Event>,
    /// Bytes of payloads and headers, but for those of retries.
    pub bytes: usize,
    /// The database's clock when the claim began, in microseconds since the epoch.
    pub now_us: i64,
    lanes: Vec<Lane>,
    /// Whether any failure matters to these lanes.
    failures: bool,
    /// No stranger holds a row that was to be taken: known already, need not be asked for.
    no_strangers: bool,
    /// What a round trip reads along with the locks.
    first: First,
    horizon: i64,
}

/// A lane this claim has locked.
#[derive(Debug, Clone)]
struct Lane {
    number: usize,
    mark: Mark,
    /// The head that the scout saw, where it saw one.
    head: Option<i64>,
    /// The last number read.
    last: i64,
    /// The last row read, where rows are ranked: what ranks it first, and its id.
    rank: Option<(Option<String>, RowId)>,
    /// Nothing was left above `last`.
    exhausted: bool,
    /// The first number that was seen and not taken, because a stranger holds it.
    skipped: Option<i64>,
    /// A retry is due there, as the scout saw it.
    due: bool,
    /// The set of holding failures, as read under the lock.
    holding: i64,
}

impl Lane {
    /// Rows up to this id that are pending and were not taken are held by strangers. In a lane that
    /// was read to its end that goes as far as its floor may rise; above the last row taken and the
    /// horizon, it may as well have become visible since.
    fn accounted(&self, horizon: i64) -> i64 {
        if self.exhausted {
            self.last.max(horizon)
        } else {
            self.last
        }
    }
}

impl Claim {
    fn new(first: First, horizon: i64) -> Self {
        Self {
            events: Vec::new(),
            bytes: 0,
            now_us: 0,
            lanes: Vec::new(),
            failures: false,
            no_strangers: false,
            first,
            horizon,
        }
    }

    /// Nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn lane_mut(&mut self, number: usize) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.number == number)
    }
}

impl Outbox {
    /// Opens a transaction and claims. The caller settles or rolls back.
    ///
    /// What is wanted is asked for once the floors are noted: should a destination be resumed, and the
    /// floors fall for its rows, this claim either does not leave them out or raises no floor.
    pub async fn claim(
        &self,
        link: &mut Link,
        want: impl FnOnce() -> Want,
    ) -> Result<Claim, DbError> {
        let (marks, horizon) = self.floors().marks(Instant::now());
        let want = &want();
        if !want.paused.is_empty() {
            self.floors().pass_paused();
        }
        let mut claim = self.scout(link, want, &marks, horizon).await?;
        if claim.lanes.is_empty() {
            self.finds_little.store(true, Relaxed);
            return Ok(claim);
        }
        self.floors().stir();
        self.read_holding(link, &mut claim).await?;
        if claim.failures {
            self.read_retries(link, want, &mut claim).await?;
        }
        self.read_rows(link, want, &mut claim).await?;
        self.finds_little
            .store(claim.first.is_enough_for(&claim), Relaxed);
        if self.ordering == Ordering::Key && !claim.no_strangers && !defect!(OvertakeStranger) {
            self.withhold_behind_strangers(link, want, &mut claim)
                .await?;
        }
        Ok(claim)
    }

    /// Notes how far the claim emptied its lanes; call it once the settlement is committed.
    /// `unsettled` are the indexes of claimed events that are still pending.
    pub fn raise_floors(&self, claim: &Claim, unsettled: &[usize]) {
        let is_of = |event: &Event, lane: &Lane| usize::try_from(event.lane) == Ok(lane.number);
        for lane in &claim.lanes {
            let unsettled = unsettled.iter().map(|&index| &claim.events[index]);
            let of_lane = unsettled.filter(|event| is_of(event, lane));
            let left = of_lane
                .map(|event| event.position)
                .chain(lane.skipped)
                .min();
            let up_to = match (self.ordering, left) {
                // Others may hold rows of this lane: only what lies below its head is surely gone.
                (Ordering::None, _) => Some(lane.head.unwrap_or(lane.mark.floor + 1) - 1),
                (Ordering::Key, Some(id)) => Some(id - 1),
                (Ordering::Key, None) if lane.exhausted => None,
                (Ordering::Key, None) => Some(lane.last),
            };
            // Where nobody else holds its rows, another worker has just emptied it: what comes next need
            // not wait.
            let may_rest = lane.skipped.is_some() || lane.due || self.ordering == Ordering::None;
            let barren = may_rest && !claim.events.iter().any(|event| is_of(event, lane));
            let emptied = Emptied {
                up_to,
                holding: lane.holding,
                barren,
            };
            let now = Instant::now();
            self.floors()
                .raise(lane.number, lane.mark, emptied, claim.horizon, now);
        }
    }
}

/// A number for the set of failures that hold a key in the lane `u.lane`: 0 for none, another with
/// near certainty for another set.
fn holding_sql(table: &Table) -> String {
    let hash = (table.id).hash("f.id", "hashtextextended(f.destination || f.key, 0)");
    format!(
        "(select coalesce(sum({hash} >> 24), 0)::bigint from {} f where f.lane = u.lane and f.holds)",
        table.names.failures()
    )
}

/// What claims leave out: events with a failure of their own (those due are fetched by id), held
/// keys, and paused destinations (an SQL array).
fn exclusions(table: &Table, paused: &str) -> String {
    let failures = table.names.failures();
    format!(
        " and not exists (select from {failures} f where {own}) \
         and not exists (select from {failures} f where {held}) \
         and not coalesce({destination}, '') = any({paused})",
        own = table.is_of_failure(),
        held = defect!(ReorderRetry: "false".into(), else table.held_sql()),
        destination = table.destination,
    )
}

/// Texts as an SQL array.
fn text_array(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quote_literal(text)).collect();
    format!("array[{}]::text[]", texts.join(","))
}
