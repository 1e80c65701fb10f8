//! What a worker does with a claim: publish, settle, raise floors, pay debts.

use outboxd::outbox::floors::Emptied;

use super::{
    Defect, Step,
    state::{Events, Failure, Outcome, Phase, Row, Scenario, State, Worker, bit, each, id},
};

/// What a settlement decides.
#[derive(Default)]
struct Settlement {
    published: Events,
    failures: Vec<(usize, Failure)>,
    unsettled: Events,
}

impl State {
    /// The turn is over; whatever transaction was open is not any more.
    pub fn rest(&mut self, worker: usize) {
        self.workers[worker] = Worker::default();
    }

    /// A database error: the link is dropped, floors fall.
    pub fn fail(&mut self, scenario: &Scenario, worker: usize) {
        self.processes[scenario.process(worker)]
            .floors
            .fall(scenario.now);
        self.rest(worker);
    }

    /// What may become of the next event to be sent.
    pub fn publish_next(&self, scenario: &Scenario, worker: usize, next: &mut Vec<(Step, Self)>) {
        let at = self.workers[worker].outcomes.len();
        let events = &self.workers[worker].events;
        let event = events[at];
        let ended = (0..at).any(|earlier| {
            scenario.same_key(events[earlier], event)
                && self.workers[worker].outcomes[earlier].ends_run()
        });
        let mut add = |outcome: Outcome, spend: fn(&mut super::state::Faults) -> &mut u8| {
            let mut state = self.clone();
            let left = spend(&mut state.faults);
            let Some(fewer) = left.checked_sub(1) else {
                return;
            };
            *left = fewer;
            state.answer(scenario, worker, outcome);
            next.push((Step::Answer(worker, id(event), outcome), state));
        };
        if !ended {
            add(Outcome::Refused, |faults| &mut faults.refuse);
            add(Outcome::Rejected, |faults| &mut faults.reject);
            add(Outcome::Unknown, |faults| &mut faults.lose_answer);
            add(Outcome::Cut, |faults| &mut faults.cut);
        }
        let outcome = if ended && !scenario.has(Defect::SendsBehindARefusal) {
            Outcome::Withheld
        } else {
            Outcome::Confirmed
        };
        let mut state = self.clone();
        state.answer(scenario, worker, outcome);
        next.push((Step::Answer(worker, id(event), outcome), state));
    }

    fn answer(&mut self, scenario: &Scenario, worker: usize, outcome: Outcome) {
        let at = self.workers[worker].outcomes.len();
        let event = self.workers[worker].events[at];
        match outcome {
            Outcome::Confirmed | Outcome::Unknown => self.arrive(scenario, event),
            // It, and what was sent behind it, may still come.
            Outcome::Cut => {
                let rest = self.workers[worker].events[at..].iter().copied();
                let late = rest.filter(|&later| later == event || scenario.same_key(event, later));
                self.wire.push(late.collect());
            }
            _ => {}
        }
        let worker = &mut self.workers[worker];
        worker.outcomes.push(outcome);
        if worker.outcomes.len() == worker.events.len() {
            worker.phase = Phase::Settling;
        }
    }

    fn decide(&self, scenario: &Scenario, worker: usize) -> Settlement {
        let worker = &self.workers[worker];
        let mut settlement = Settlement::default();
        let mut stopped: Events = 0;
        for (&event, &outcome) in worker.events.iter().zip(&worker.outcomes) {
            let behind = each(stopped).any(|other| scenario.same_key(other, event))
                && !scenario.has(Defect::SettlesPastFailures);
            let settled = match outcome {
                _ if behind => false,
                Outcome::Confirmed => true,
                Outcome::Refused | Outcome::Rejected => {
                    let failure = self.charge(scenario, event, outcome == Outcome::Rejected);
                    settlement.failures.push((event, failure));
                    if failure == (Failure::Dead { holds: false }) {
                        continue;
                    }
                    false
                }
                _ => scenario.has(Defect::SettlesBeforeConfirms),
            };
            if settled {
                settlement.published |= bit(event);
            } else {
                settlement.unsettled |= bit(event);
                stopped |= bit(event);
            }
        }
        settlement
    }

    fn charge(&self, scenario: &Scenario, event: usize, last: bool) -> Failure {
        let before = match self.failures[event] {
            Some(Failure::Retrying { attempts, .. }) => attempts,
            _ => 0,
        };
        let attempts = before + 1;
        if last || attempts >= scenario.max_attempts {
            Failure::Dead {
                holds: scenario.dead_holds && scenario.keys[event].is_some(),
            }
        } else {
            Failure::Retrying {
                due: false,
                attempts,
            }
        }
    }

    /// Settling commits, or fails and leaves what was confirmed to be paid.
    pub fn settle(&self, scenario: &Scenario, worker: usize, next: &mut Vec<(Step, Self)>) {
        let settlement = self.decide(scenario, worker);
        let owe = |state: &mut Self| state.owe(scenario, worker, settlement.published);
        if !self.workers[worker].open {
            let mut state = self.clone();
            owe(&mut state);
            next.push((Step::SettleInVain(worker), state));
            return;
        }
        let mut committed = self.clone();
        for event in each(settlement.published) {
            committed.publish(event);
            if self.workers[worker].retries & bit(event) != 0 {
                committed.failures[event] = None;
            }
        }
        for &(event, failure) in &settlement.failures {
            committed.failures[event] = Some(failure);
            if matches!(failure, Failure::Dead { .. }) {
                committed.given_up |= bit(event);
            }
        }
        if self.faults.fail_settlement > 0 {
            let mut state = self.clone();
            state.faults.fail_settlement -= 1;
            owe(&mut state);
            next.push((Step::SettleInVain(worker), state));
        }
        if self.faults.lose_commit > 0 {
            let mut state = committed.clone();
            state.faults.lose_commit -= 1;
            owe(&mut state);
            next.push((Step::SettleUnheard(worker), state));
        }
        let settled = &mut committed.workers[worker];
        settled.open = false;
        settled.locked = 0;
        settled.unsettled = settlement.unsettled;
        settled.phase = Phase::Raising;
        next.push((Step::Settle(worker), committed));
    }

    fn owe(&mut self, scenario: &Scenario, worker: usize, confirmed: Events) {
        self.fail(scenario, worker);
        if confirmed != 0 {
            self.workers[worker].phase = Phase::Owing;
            self.workers[worker].owed = confirmed;
            self.processes[scenario.process(worker)].debts += 1;
        }
    }

    /// `raise_floors`.
    pub fn raise_floors(&mut self, scenario: &Scenario, number: usize) {
        let process = &mut self.processes[scenario.process(number)];
        let (fresh, newest) = process.floors.marks(scenario.now);
        let worker = &self.workers[number];
        for (lane, claimed) in worker.lanes.iter().enumerate() {
            let Some(mut claimed) = *claimed else {
                continue;
            };
            let of_lane = each(worker.unsettled).filter(|&event| scenario.lanes[event] == lane);
            let left = of_lane
                .map(id)
                .filter(|_| !scenario.has(Defect::RaisesPastUnsettled))
                .chain(claimed.skipped)
                .min();
            let up_to = match left {
                Some(id) => Some(id - 1),
                None if claimed.exhausted => None,
                None => Some(claimed.last),
            };
            if scenario.has(Defect::RaisesAfterAFall) {
                claimed.mark = fresh[lane];
                claimed.holding = fresh[lane].holding;
            }
            let horizon = if scenario.has(Defect::TakesTheHorizonLate) {
                newest
            } else {
                worker.horizon
            };
            let emptied = Emptied {
                up_to,
                holding: claimed.holding,
                barren: false,
            };
            process
                .floors
                .raise(lane, claimed.mark, emptied, horizon, scenario.now);
        }
        self.rest(number);
    }

    /// `settle_confirmed`: waits for whoever holds the rows, or the lanes of their failures.
    pub fn pay(&mut self, scenario: &Scenario, worker: usize) -> bool {
        let owed = self.workers[worker].owed;
        let pending = each(owed)
            .filter(|&event| self.rows[event] == Row::Pending)
            .map(bit)
            .fold(0, |a, b| a | b);
        if pending & self.locked_rows() != 0 {
            return false;
        }
        let retried = each(pending)
            .filter(|&event| matches!(self.failures[event], Some(Failure::Retrying { .. })));
        let retried: Vec<usize> = retried.collect();
        if retried
            .iter()
            .any(|&event| self.is_lane_locked(scenario.lanes[event]))
        {
            return false;
        }
        for event in each(pending) {
            self.publish(event);
        }
        for event in retried {
            self.failures[event] = None;
        }
        self.processes[scenario.process(worker)].debts -= 1;
        self.rest(worker);
        true
    }
}
