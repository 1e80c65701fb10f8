//! Floors: per lane, an id at or below which nothing is pending.
//!
//! # Design notes
//! Claims and scouting begin above the floor, and so do not walk over the dead index entries that
//! published rows leave behind (3–7 us an event in a plain drain, hundreds of times that under a long
//! transaction or behind a held key). A floor is a hint in memory; what it may rise to is the smaller of
//!
//! * what a claim saw: every row at or below it was settled, or is excluded by a failure;
//! * the [`Horizon`]: a visible `max(id)` taken *before* asking which transactions hold a writer's lock
//!   on the table, once all of those have ended. Ids become visible out of order; whoever may still
//!   fill a hole drew its id under that lock, and keeps it to its end, if by another name where a
//!   prepared transaction outlives a restart. (A bare `max(id)` strands a late commit; xids do not
//!   do: a writer may have an id and no xid yet.)
//!
//! A floor that passed rows *held* by a failure falls back to `firm` when the lane's set of holding
//! failures changes, whoever changed it. All floors fall to 0 on a database error, when a destination
//! is resumed, and every few minutes, which also heals what nobody foresaw (rows re-armed by hand).
//!
//! Pure, with the time given, so that a model of the whole protocol runs this very code over every
//! interleaving (`tests/claim_model`).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::table::LANES;

const FALL_EVERY: Duration = Duration::from_mins(3);
const HORIZON_EVERY: Duration = Duration::from_millis(200);
/// The same while nothing moves: what other relays publish must be passed by, too.
const HORIZON_AT_REST_EVERY: Duration = Duration::from_secs(5);
/// A lane whose rows could not be taken (a stranger holds them) steps back for this long: else a few
/// such lanes, being the oldest, would take every claim's share for ever.
const REST: Duration = Duration::from_millis(50);

/// The floors of all lanes, shared by the workers of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Floors<const N: usize = LANES> {
    lanes: [Lane; N],
    horizon: Horizon,
    fallen_at: Instant,
    /// Whether the horizon has not risen of late, and nobody writes.
    at_rest: bool,
    /// Whether floors may have passed rows of paused destinations.
    passed_paused: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Lane {
    floor: i64,
    /// The floor that does not rest on any key being held.
    firm: i64,
    /// The set of holding failures that `floor` was raised under.
    holding: i64,
    /// Counts falls, so that a claim begun before a fall cannot raise the floor after it.
    falls: u64,
    rests_until: Option<Instant>,
}

/// What a claim knew about a lane when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Where to read from.
    pub floor: i64,
    /// The holding failures the floor rests on.
    pub holding: i64,
    /// Not to be claimed at the moment.
    pub resting: bool,
    falls: u64,
}

/// How far a claim emptied a lane.
#[derive(Debug, Clone, Copy)]
pub struct Emptied {
    /// Nothing at or below this id is left to claim; `None` is no bound: the lane was read to its end.
    pub up_to: Option<i64>,
    /// The set of holding failures it was read under; 0 is none.
    pub holding: i64,
    /// Whether it gave nothing, though it looked as if there was work.
    pub barren: bool,
}

impl<const N: usize> Floors<N> {
    /// All at 0.
    pub fn new(now: Instant) -> Self {
        Self {
            lanes: [Lane::default(); N],
            horizon: Horizon::default(),
            fallen_at: now,
            at_rest: false,
            passed_paused: false,
        }
    }

    /// The floors a claim begins with, and the horizon: the id at or below which no row could become
    /// visible any more by then. To be taken before anything is read: only what was safe then is safe
    /// for what is read.
    pub fn marks(&mut self, now: Instant) -> ([Mark; N], i64) {
        if now.duration_since(self.fallen_at) > FALL_EVERY {
            self.fall(now);
        }
        let marks = self.lanes.map(|lane| Mark {
            floor: lane.floor,
            holding: lane.holding,
            resting: lane.rests_until.is_some_and(|until| until > now),
            falls: lane.falls,
        });
        (marks, self.horizon.safe)
    }

    /// Ids at or below which nothing is pending, but for events with a failure of their own.
    pub fn firm(&self) -> [i64; N] {
        self.lanes
            .map(|lane| if self.passed_paused { 0 } else { lane.firm })
    }

    /// Claims leave out paused destinations: floors pass their rows.
    pub fn pass_paused(&mut self) {
        self.passed_paused = true;
    }

    /// Everything may be pending again.
    pub fn fall(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            *lane = Lane {
                falls: lane.falls + 1,
                ..Lane::default()
            };
        }
        self.horizon.fall();
        self.at_rest = false;
        self.passed_paused = false;
        self.fallen_at = now;
    }

    /// The holding failures of a lane are not those that its floor rests on: held rows may be free.
    /// Gives the mark to read with, in place of the one that the claim began with.
    pub fn fall_to_firm(&mut self, lane: usize, mark: Mark, holding: i64) -> Mark {
        let lane = &mut self.lanes[lane];
        let known = lane.falls == mark.falls;
        lane.floor = lane.firm;
        lane.holding = holding;
        lane.falls += 1;
        Mark {
            floor: lane.floor,
            holding,
            resting: false,
            // A claim that another fall overtook still raises nothing.
            falls: if known { lane.falls } else { mark.falls },
        }
    }

    /// Raises a lane's floor to what a claim emptied, no higher than the horizon it began with. Under
    /// another set of holding failures than the mark's, what lies below it may be claimable again:
    /// then nothing rises.
    pub fn raise(&mut self, lane: usize, mark: Mark, emptied: Emptied, horizon: i64, now: Instant) {
        let lane = &mut self.lanes[lane];
        lane.rests_until = emptied.barren.then(|| now + REST);
        if lane.falls != mark.falls || emptied.holding != mark.holding {
            return;
        }
        let floor = emptied.up_to.map_or(horizon, |id| id.min(horizon));
        lane.floor = lane.floor.max(floor);
        if emptied.holding == 0 {
            lane.firm = lane.floor;
        }
    }

    /// A look at the writers, if one is due.
    pub fn wants_horizon(&mut self, now: Instant) -> Option<Look> {
        let last = self.horizon.asked_at;
        let every = if self.at_rest {
            HORIZON_AT_REST_EVERY
        } else {
            HORIZON_EVERY
        };
        let due = last.is_none_or(|at| now.duration_since(at) > every);
        due.then(|| {
            self.horizon.asked_at = Some(now);
            self.ask()
        })
    }

    /// A look at the writers, due or not.
    pub fn ask(&mut self) -> Look {
        self.horizon.asked += 1;
        Look(self.horizon.asked)
    }

    /// Notes what a look saw: the visible `max(id)`, and the transactions that then held a writer's lock.
    pub fn look(&mut self, look: Look, max_id: i64, writers: BTreeSet<String>) {
        let before = self.horizon.safe;
        self.horizon.look(look, max_id, writers);
        self.at_rest = self.horizon.safe == before && self.horizon.waiting.is_none();
    }

    /// There is work: floors rise.
    pub fn stir(&mut self) {
        self.at_rest = false;
    }
}

/// A look at the writers that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Look(u64);

/// See the design notes above. `safe` rises only when every writer seen has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Horizon {
    safe: i64,
    waiting: Option<(i64, BTreeSet<String>)>,
    asked_at: Option<Instant>,
    /// The latest look asked for, and the latest when `waiting` was noted: that a writer is missing in
    /// an older one does not say that it has ended.
    asked: u64,
    noted: u64,
}

impl Horizon {
    /// As new, but for the looks that are under way: they saw the table before.
    fn fall(&mut self) {
        *self = Self {
            asked: self.asked,
            noted: self.asked,
            ..Self::default()
        };
    }

    fn look(&mut self, look: Look, max_id: i64, writers: BTreeSet<String>) {
        if look.0 <= self.noted {
            return;
        }
        if let Some((bound, mut awaited)) = self.waiting.take() {
            let gone = |name: &String| !is_prepared(name) && !writers.contains(name);
            if awaited.iter().any(gone) {
                // It may be one of these now.
                awaited.extend(writers.iter().filter(|name| is_prepared(name)).cloned());
            }
            awaited.retain(|name| writers.contains(name));
            if !awaited.is_empty() {
                self.waiting = Some((bound, awaited));
                return;
            }
            self.safe = self.safe.max(bound);
        }
        // This look starts the next wait.
        if writers.is_empty() || defect!(BareFloor) {
            self.safe = self.safe.max(max_id);
        } else {
            self.waiting = Some((max_id, writers));
        }
        self.noted = self.asked;
    }
}

/// `pg_locks.virtualtransaction` of a transaction that is prepared for two-phase commit, once the
/// server restarted (which a pooler may hide); before 14.1, once it was prepared.
fn is_prepared(writer: &str) -> bool {
    writer.starts_with("-1/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writers(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn emptied(up_to: Option<i64>) -> Emptied {
        Emptied {
            up_to,
            holding: 0,
            barren: false,
        }
    }

    #[test]
    fn the_horizon_waits_for_every_writer_seen_with_the_id() {
        let mut floors = Floors::<1>::new(Instant::now());
        let mut look = |max_id, names: &[&str]| {
            let look = floors.ask();
            floors.look(look, max_id, writers(names));
            floors.horizon.safe
        };
        assert_eq!(look(10, &["1/1", "2/7"]), 0);
        assert_eq!(look(20, &["2/7", "3/1"]), 0);
        assert_eq!(look(30, &["3/1"]), 10);
        assert_eq!(look(40, &[]), 40);
    }

    #[test]
    fn a_look_that_comes_late_says_nothing_of_writers_that_began_after_it() {
        let mut floors = Floors::<1>::new(Instant::now());
        let (late, in_time) = (floors.ask(), floors.ask());
        floors.look(in_time, 20, writers(&["2/7"]));
        floors.look(late, 10, writers(&[]));
        assert_eq!(floors.horizon.safe, 0);
        // Nor does one that saw the table before a fall.
        let late = floors.ask();
        floors.fall(Instant::now());
        floors.look(late, 90, writers(&[]));
        assert_eq!(floors.horizon.safe, 0);
    }

    #[test]
    fn the_horizon_waits_for_a_writer_that_goes_on_as_a_prepared_transaction() {
        let mut floors = Floors::<1>::new(Instant::now());
        let mut look = |max_id, names: &[&str]| {
            let look = floors.ask();
            floors.look(look, max_id, writers(names));
            floors.horizon.safe
        };
        look(10, &["1/1"]);
        assert_eq!(look(20, &["-1/900"]), 0);
        // One that was prepared later is not waited for: there may always be one.
        assert_eq!(look(30, &["-1/901"]), 10);
    }

    #[test]
    fn writers_are_looked_at_rarely_while_nothing_moves() {
        let start = Instant::now();
        let mut floors = Floors::<1>::new(start);
        let mut look = |after_ms, names: &[&str]| {
            let look = floors.wants_horizon(start + Duration::from_millis(after_ms));
            look.is_some_and(|look| {
                floors.look(look, 10, writers(names));
                true
            })
        };
        // The horizon rises, then a writer is there, then none, and it has risen.
        assert!(look(0, &[]) && look(300, &["1/1"]) && look(600, &[]));
        assert!(!look(900, &[]) && look(6_000, &[]));
        floors.stir();
        assert!(
            floors
                .wants_horizon(start + Duration::from_millis(6_300))
                .is_some()
        );
    }

    #[test]
    fn a_floor_never_passes_the_horizon() {
        let now = Instant::now();
        let mut floors = Floors::<4>::new(now);
        let mark = floors.marks(now).0[3];
        floors.raise(3, mark, emptied(None), 7, now);
        assert_eq!(floors.marks(now).0[3].floor, 7);
        floors.raise(3, mark, emptied(Some(5)), 100, now);
        assert_eq!(floors.marks(now).0[3].floor, 7);
    }

    #[test]
    fn a_claim_begun_before_a_fall_raises_nothing() {
        let now = Instant::now();
        let mut floors = Floors::<4>::new(now);
        let mark = floors.marks(now).0[0];
        floors.fall(now);
        floors.raise(0, mark, emptied(None), 50, now);
        assert_eq!(floors.marks(now).0[0].floor, 0);
        // Nor does it by a mark that it is given later.
        let mark = floors.fall_to_firm(0, mark, 0);
        floors.raise(0, mark, emptied(None), 50, now);
        assert_eq!(floors.marks(now).0[0].floor, 0);
    }

    #[test]
    fn rows_passed_because_they_were_held_come_back_with_another_set_of_failures() {
        let now = Instant::now();
        let mut floors = Floors::<4>::new(now);
        let held = Emptied {
            holding: 77,
            ..emptied(None)
        };
        let mark = floors.marks(now).0[0];
        floors.raise(0, mark, emptied(Some(20)), 90, now);
        let mark = floors.fall_to_firm(0, mark, 77);
        floors.raise(0, mark, held, 90, now);
        let mark = floors.marks(now).0[0];
        assert_eq!((mark.floor, mark.holding), (90, 77));
        // That nothing is left above the floor now says nothing about what it passed.
        floors.raise(0, mark, emptied(None), 95, now);
        assert_eq!(floors.marks(now).0[0].floor, 90);
        assert_eq!(floors.fall_to_firm(0, mark, 0).floor, 20);
    }
}
