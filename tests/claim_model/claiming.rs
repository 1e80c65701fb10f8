//! A worker's claim, statement by statement: `outbox::claim` and its parts.

use outboxd::outbox::floors::Emptied;

use super::{
    Defect, Step,
    state::{Events, LANES, Lane, Phase, Row, Scenario, State, bit, each, id, writers},
};

impl State {
    /// `Outbox::claim`: floors are noted.
    pub fn begin(&mut self, scenario: &Scenario, worker: usize, looks: bool) {
        let process = scenario.process(worker);
        let (marks, horizon) = self.processes[process].floors.marks(scenario.now);
        let worker = &mut self.workers[worker];
        worker.marks = Some(marks);
        worker.horizon = horizon;
        worker.look = looks.then(|| self.processes[process].floors.ask());
        worker.phase = Phase::Begun;
    }

    /// The snapshot of the statement that finds lanes. What is wanted is asked for just before.
    pub fn find_lanes(&mut self, scenario: &Scenario, number: usize) {
        let process = &mut self.processes[scenario.process(number)];
        let marks = self.workers[number].marks.expect("begun");
        let paused = process.paused;
        if paused {
            process.floors.pass_paused();
        }
        let exclude = process.failures_seen || paused || marks.iter().any(|mark| mark.holding != 0);
        let mut work = Vec::new();
        for (lane, mark) in marks.iter().enumerate() {
            let rows = self.claimable(scenario, lane, mark.floor, exclude, paused);
            // As `lock_lanes` asks for them: due retries of paused destinations wake a lane, too.
            let due: Events = (0..scenario.events())
                .filter(|&event| exclude && scenario.lanes[event] == lane)
                .filter(|&event| self.failures[event].is_some_and(super::state::Failure::is_due))
                .map(bit)
                .fold(0, |all, event| all | event);
            let changed = exclude && self.holding(scenario, lane) != mark.holding;
            if rows | due != 0 || changed {
                work.push(((rows | due).trailing_zeros(), lane));
            }
        }
        work.sort_unstable();
        let stale = (0..LANES)
            .map(|lane| self.claimable(scenario, lane, marks[lane].floor, true, paused))
            .fold(0, |all, rows| all | rows);
        let worker = &mut self.workers[number];
        worker.open = true;
        worker.paused = paused;
        worker.careful = exclude;
        worker.work = work.into_iter().map(|(_, lane)| lane).collect();
        worker.stale = scenario.has(Defect::ReadsWithTheLock).then_some(stale);
        worker.phase = Phase::Found;
    }

    /// The locks of that statement, and the question after them whether failures matter.
    pub fn lock_lanes(&mut self, scenario: &Scenario, number: usize) {
        let marks = self.workers[number].marks.expect("begun");
        let free: Vec<usize> = self.workers[number]
            .work
            .iter()
            .copied()
            .filter(|&lane| scenario.has(Defect::LocksNoLane) || !self.is_lane_locked(lane))
            .take(scenario.share)
            .collect();
        let read_from = marks.map(|mark| if mark.holding == 0 { mark.floor } else { 0 });
        let failures = self.has_failures(read_from.into_iter().min().unwrap_or_default());
        let worker = &mut self.workers[number];
        worker.work.clear();
        for lane in free {
            worker.lanes[lane] = Some(Lane {
                mark: marks[lane],
                last: marks[lane].floor,
                exhausted: false,
                skipped: None,
                holding: 0,
            });
        }
        worker.failures = failures;
        worker.phase = Phase::Locked;
        if worker.look.is_none() {
            self.scouted(scenario, number);
        }
    }

    /// `find_empty_lanes`, and the snapshot of `look_at_writers`.
    pub fn find_empty_lanes(&mut self, scenario: &Scenario, number: usize) {
        let marks = self.workers[number].marks.expect("begun");
        let (paused, exclude) = (self.workers[number].paused, self.workers[number].careful);
        let empty = std::array::from_fn(|lane| {
            let rows = self.claimable(scenario, lane, marks[lane].floor, exclude, paused);
            let holding = if exclude {
                self.holding(scenario, lane)
            } else {
                0
            };
            (rows == 0).then_some(holding)
        });
        let visible = |row: &Row| matches!(row, Row::Pending | Row::Published);
        let max = self.rows.iter().rposition(visible).map_or(0, id);
        let worker = &mut self.workers[number];
        worker.empty = empty;
        worker.max = max;
        worker.phase = Phase::Looking;
    }

    /// `look_at_writers`' locks.
    pub fn look_at_writers(&mut self, number: usize, scenario: &Scenario) {
        let worker = &mut self.workers[number];
        worker.writers = if scenario.has(Defect::LooksAtNoWriter) {
            std::collections::BTreeSet::new()
        } else {
            writers(&self.rows[..scenario.events()])
        };
        worker.phase = Phase::Looked;
    }

    /// The scout's answer arrives: what it says of floors is noted.
    pub fn scouted(&mut self, scenario: &Scenario, number: usize) {
        let process = &mut self.processes[scenario.process(number)];
        let worker = &mut self.workers[number];
        let marks = worker.marks.take().expect("begun");
        for (lane, holding) in std::mem::take(&mut worker.empty).into_iter().enumerate() {
            let Some(holding) = holding else { continue };
            let emptied = Emptied {
                up_to: None,
                holding,
                barren: false,
            };
            process
                .floors
                .raise(lane, marks[lane], emptied, worker.horizon, scenario.now);
        }
        let seen = std::mem::take(&mut worker.writers);
        if let Some(look) = worker.look.take() {
            process.floors.look(look, worker.max, seen);
        }
        worker.max = 0;
        process.failures_seen = worker.failures;
        worker.phase = Phase::Failures;
        if worker.lanes.iter().all(Option::is_none) {
            self.rest(number);
        }
    }

    /// `read_holding` and `read_retries`.
    pub fn read_failures(&mut self, scenario: &Scenario, number: usize) {
        let process = scenario.process(number);
        let paused = self.workers[number].paused;
        let locked = self.locked_rows();
        for lane in 0..LANES {
            let Some(mut claimed) = self.workers[number].lanes[lane] else {
                continue;
            };
            if self.workers[number].failures {
                claimed.holding = self.holding(scenario, lane);
            }
            if scenario.has(Defect::NeverFallsToFirm) {
                claimed.mark.holding = claimed.holding;
            }
            if claimed.holding != claimed.mark.holding {
                claimed.mark = self.processes[process].floors.fall_to_firm(
                    lane,
                    claimed.mark,
                    claimed.holding,
                );
                claimed.last = claimed.mark.floor;
                self.workers[number].failures = true;
            }
            self.workers[number].lanes[lane] = Some(claimed);
        }
        if self.workers[number].failures {
            for lane in 0..LANES {
                if self.workers[number].lanes[lane].is_none() {
                    continue;
                }
                for event in each(self.due(scenario, lane, paused)) {
                    if self.rows[event] != Row::Pending {
                        self.failures[event] = None;
                    } else if locked & bit(event) == 0 {
                        let worker = &mut self.workers[number];
                        worker.retries |= bit(event);
                        worker.locked |= bit(event);
                        worker.events.push(event);
                    }
                }
            }
        }
        self.workers[number].phase = Phase::Rows;
    }

    /// One statement of `read_rows`; there are more until the batch is full or the lanes are read.
    pub fn read_rows(&mut self, scenario: &Scenario, number: usize) {
        let paused = self.workers[number].paused;
        let exclude = self.workers[number].failures || paused;
        let locked = self.locked_rows();
        let room = scenario
            .batch
            .saturating_sub(self.workers[number].events.len());
        let is_open = |lane: &Option<Lane>| lane.is_some_and(|lane| !lane.exhausted);
        let mut open: Vec<usize> = (0..LANES)
            .filter(|&lane| is_open(&self.workers[number].lanes[lane]))
            .collect();
        if room == 0 || open.is_empty() {
            self.workers[number].phase = Phase::Check;
            return;
        }
        open.truncate(room);
        let limit = room / open.len();
        for lane in open {
            let mut claimed = self.workers[number].lanes[lane].expect("open");
            let rows = match self.workers[number].stale {
                Some(stale) => {
                    let now = self.claimable(scenario, lane, claimed.last, false, paused);
                    now & stale
                }
                None => self.claimable(scenario, lane, claimed.last, exclude, paused),
            };
            let taken: Vec<usize> = each(rows & !locked).take(limit).collect();
            claimed.exhausted = taken.len() < limit;
            let worker = &mut self.workers[number];
            for event in taken {
                claimed.last = id(event);
                worker.locked |= bit(event);
                worker.events.push(event);
            }
            worker.lanes[lane] = Some(claimed);
        }
    }

    /// `withhold_behind_strangers`.
    pub fn withhold(&mut self, scenario: &Scenario, number: usize) {
        let paused = self.workers[number].paused;
        let exclude = self.workers[number].failures || paused;
        let horizon = self.workers[number].horizon;
        let mut skipped: Events = 0;
        for lane in 0..LANES {
            let Some(mut claimed) = self.workers[number].lanes[lane] else {
                continue;
            };
            let accounted = if claimed.exhausted {
                claimed.last.max(horizon)
            } else {
                claimed.last
            };
            let seen = self.claimable(scenario, lane, claimed.mark.floor, exclude, paused);
            let missed = each(seen)
                .filter(|&event| id(event) <= accounted)
                .filter(|event| !self.workers[number].events.contains(event))
                .map(bit)
                .fold(0, |all, event| all | event);
            claimed.skipped = each(missed).next().map(id);
            skipped |= missed;
            self.workers[number].lanes[lane] = Some(claimed);
        }
        if scenario.has(Defect::RaisesPastStrangers) {
            for lane in self.workers[number].lanes.iter_mut().flatten() {
                lane.skipped = None;
            }
        }
        if !scenario.has(Defect::PassesStrangers) {
            let worker = &mut self.workers[number];
            worker.events.retain(|&event| {
                !each(skipped).any(|first| first <= event && scenario.same_key(first, event))
            });
            let left = worker.events.iter().fold(0, |all, &event| all | bit(event));
            worker.retries &= left;
        }
        let events = self.workers[number].events.clone();
        self.workers[number].stale = None;
        self.check_run(scenario, &events);
        if events.is_empty() {
            // Nothing to send: commit.
            self.workers[number].open = false;
            self.workers[number].locked = 0;
            self.workers[number].phase = Phase::Raising;
        } else {
            self.workers[number].phase = Phase::Publishing;
        }
    }

    /// What a claim does next, where its transaction lives.
    pub fn claim_on(&self, scenario: &Scenario, worker: usize) -> Option<(Step, State)> {
        let (step, mut next) = self.statement(scenario, worker)?;
        let reads = |state: &Self| {
            matches!(
                state.workers[worker].phase,
                Phase::Failures | Phase::Rows | Phase::Check
            )
        };
        while !scenario.fine && reads(&next) {
            (_, next) = next.statement(scenario, worker)?;
        }
        Some((step, next))
    }

    fn statement(&self, scenario: &Scenario, worker: usize) -> Option<(Step, State)> {
        let mut next = self.clone();
        let step = match self.workers[worker].phase {
            Phase::Begun => {
                next.find_lanes(scenario, worker);
                Step::FindLanes(worker)
            }
            Phase::Found => {
                next.lock_lanes(scenario, worker);
                Step::LockLanes(worker)
            }
            Phase::Locked => {
                next.find_empty_lanes(scenario, worker);
                Step::FindEmptyLanes(worker)
            }
            Phase::Looking => {
                next.look_at_writers(worker, scenario);
                Step::LookAtWriters(worker)
            }
            Phase::Looked => {
                next.scouted(scenario, worker);
                Step::NoteWriters(worker)
            }
            Phase::Failures => {
                next.read_failures(scenario, worker);
                Step::ReadFailures(worker)
            }
            Phase::Rows => {
                next.read_rows(scenario, worker);
                Step::ReadRows(worker)
            }
            Phase::Check => {
                next.withhold(scenario, worker);
                Step::CompareWithStrangers(worker)
            }
            _ => return None,
        };
        Some((step, next))
    }
}
