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
//!   fill a hole drew its id under that lock. (A bare `max(id)` strands a late commit; xids do not
//!   do: a writer may have an id and no xid yet.)
//!
//! A floor that passed rows *held* by a failure falls back to `firm` when the lane's set of holding
//! failures changes, whoever changed it. All floors fall to 0 on a database error, when a destination
//! is resumed, and every few minutes, which also heals what nobody foresaw (rows re-armed by hand).

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::table::LANES;

const FALL_EVERY: Duration = Duration::from_mins(3);
const HORIZON_EVERY: Duration = Duration::from_millis(200);
/// A lane whose rows could not be taken (a stranger holds them) steps back for this long: else a few
/// such lanes, being the oldest, would take every claim's share for ever.
const REST: Duration = Duration::from_millis(50);

/// The floors of all lanes, shared by the workers of a process.
#[derive(Debug)]
pub struct Floors(Mutex<State>);

#[derive(Debug)]
struct State {
    lanes: [Lane; LANES],
    horizon: Horizon,
    fallen_at: Instant,
    /// Whether floors may have passed rows of paused destinations.
    passed_paused: bool,
}

#[derive(Debug, Clone, Copy, Default)]
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
#[derive(Debug, Clone, Copy)]
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

impl Default for Floors {
    fn default() -> Self {
        Self::new()
    }
}

impl Floors {
    /// All at 0.
    pub fn new() -> Self {
        Self(Mutex::new(State {
            lanes: [Lane::default(); LANES],
            horizon: Horizon::default(),
            fallen_at: Instant::now(),
            passed_paused: false,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The floors a claim begins with.
    pub fn marks(&self) -> [Mark; LANES] {
        let mut state = self.state();
        if state.fallen_at.elapsed() > FALL_EVERY {
            state.fall_to_zero();
        }
        let now = Instant::now();
        state.lanes.map(|lane| Mark {
            floor: lane.floor,
            holding: lane.holding,
            resting: lane.rests_until.is_some_and(|until| until > now),
            falls: lane.falls,
        })
    }

    /// Ids at or below which nothing is pending, but for events with a failure of their own.
    pub fn firm(&self) -> [i64; LANES] {
        let state = self.state();
        state
            .lanes
            .map(|lane| if state.passed_paused { 0 } else { lane.firm })
    }

    /// Claims leave out paused destinations: floors pass their rows.
    pub fn pass_paused(&self) {
        self.state().passed_paused = true;
    }

    /// Everything may be pending again.
    pub fn fall(&self) {
        self.state().fall_to_zero();
    }

    /// The holding failures of a lane are not those that its floor rests on: held rows may be free.
    /// Gives the mark to read with, in place of the one that the claim began with.
    pub fn fall_to_firm(&self, lane: usize, mark: Mark, holding: i64) -> Mark {
        let lane = &mut self.state().lanes[lane];
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
    pub fn raise(&self, lane: usize, mark: Mark, emptied: Emptied, horizon: i64) {
        let lane = &mut self.state().lanes[lane];
        lane.rests_until = emptied.barren.then(|| Instant::now() + REST);
        if lane.falls != mark.falls || emptied.holding != mark.holding {
            return;
        }
        let floor = emptied.up_to.map_or(horizon, |id| id.min(horizon));
        lane.floor = lane.floor.max(floor);
        if emptied.holding == 0 {
            lane.firm = lane.floor;
        }
    }

    /// Whether the horizon is due for a new look at the writers.
    pub fn wants_horizon(&self) -> bool {
        let mut state = self.state();
        let due = state
            .horizon
            .asked_at
            .is_none_or(|at| at.elapsed() > HORIZON_EVERY);
        if due {
            state.horizon.asked_at = Some(Instant::now());
        }
        due
    }

    /// Notes the visible `max(id)` and the transactions that then held a writer's lock.
    pub fn look(&self, max_id: i64, writers: HashSet<String>) {
        self.state().horizon.look(max_id, writers);
    }

    /// The id at or below which no row can become visible any more.
    pub fn horizon(&self) -> i64 {
        self.state().horizon.safe
    }
}

impl State {
    fn fall_to_zero(&mut self) {
        for lane in &mut self.lanes {
            *lane = Lane {
                falls: lane.falls + 1,
                ..Lane::default()
            };
        }
        self.horizon = Horizon::default();
        self.passed_paused = false;
        self.fallen_at = Instant::now();
    }
}

/// See the design notes above. `safe` rises only when every writer seen has ended.
#[derive(Debug, Default)]
struct Horizon {
    safe: i64,
    waiting: Option<(i64, HashSet<String>)>,
    asked_at: Option<Instant>,
}

impl Horizon {
    fn look(&mut self, max_id: i64, writers: HashSet<String>) {
        match self.waiting.take() {
            None if writers.is_empty() || defect!(BareFloor) => self.safe = self.safe.max(max_id),
            None => self.waiting = Some((max_id, writers)),
            Some((bound, mut awaited)) => {
                awaited.retain(|writer| writers.contains(writer));
                if awaited.is_empty() {
                    self.safe = self.safe.max(bound);
                    // This look starts the next wait.
                    self.look(max_id, writers);
                } else {
                    self.waiting = Some((bound, awaited));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writers(names: &[&str]) -> HashSet<String> {
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
        let mut horizon = Horizon::default();
        horizon.look(10, writers(&["1/1", "2/7"]));
        horizon.look(20, writers(&["2/7", "3/1"]));
        assert_eq!(horizon.safe, 0);
        horizon.look(30, writers(&["3/1"]));
        assert_eq!(horizon.safe, 10);
        horizon.look(40, writers(&[]));
        assert_eq!(horizon.safe, 40);
    }

    #[test]
    fn a_floor_never_passes_the_horizon() {
        let floors = Floors::new();
        let mark = floors.marks()[3];
        floors.raise(3, mark, emptied(None), 7);
        assert_eq!(floors.marks()[3].floor, 7);
        floors.raise(3, mark, emptied(Some(5)), 100);
        assert_eq!(floors.marks()[3].floor, 7);
    }

    #[test]
    fn a_claim_begun_before_a_fall_raises_nothing() {
        let floors = Floors::new();
        let mark = floors.marks()[0];
        floors.fall();
        floors.raise(0, mark, emptied(None), 50);
        assert_eq!(floors.marks()[0].floor, 0);
        // Nor does it by a mark that it is given later.
        let mark = floors.fall_to_firm(0, mark, 0);
        floors.raise(0, mark, emptied(None), 50);
        assert_eq!(floors.marks()[0].floor, 0);
    }

    #[test]
    fn rows_passed_because_they_were_held_come_back_with_another_set_of_failures() {
        let floors = Floors::new();
        let held = Emptied {
            holding: 77,
            ..emptied(None)
        };
        floors.raise(0, floors.marks()[0], emptied(Some(20)), 90);
        let mark = floors.fall_to_firm(0, floors.marks()[0], 77);
        floors.raise(0, mark, held, 90);
        let mark = floors.marks()[0];
        assert_eq!((mark.floor, mark.holding), (90, 77));
        // That nothing is left above the floor now says nothing about what it passed.
        floors.raise(0, mark, emptied(None), 95);
        assert_eq!(floors.marks()[0].floor, 90);
        assert_eq!(floors.fall_to_firm(0, mark, 0).floor, 20);
    }
}
