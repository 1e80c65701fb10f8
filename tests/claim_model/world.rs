//! Everything that may happen next: workers' steps, and what the world does to them.

use super::{
    Defect, Step,
    explorer::Model,
    state::{Failure, Faults, Phase, Row, Scenario, State, bit, id},
};

impl Model for Scenario {
    type State = State;
    type Step = Step;

    fn initial(&self) -> State {
        self.start()
    }

    fn steps(&self, state: &State) -> Vec<(Step, State)> {
        let mut next = Vec::new();
        for worker in 0..state.workers.len() {
            state.work(self, worker, &mut next);
            state.disturb(self, worker, &mut next);
        }
        for event in 0..self.events() {
            state.write(self, event, &mut next);
            state.meddle(self, event, &mut next);
        }
        state.deliver_late(self, &mut next);
        for process in 0..state.processes.len() {
            state.pause(self, process, &mut next);
        }
        next
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        state.broken
    }

    fn is_goal(&self, state: &State) -> bool {
        state.is_done(self)
    }
}

type Next = Vec<(Step, State)>;

impl State {
    fn with(&self, next: &mut Next, step: Step, change: impl FnOnce(&mut Self)) {
        let mut state = self.clone();
        change(&mut state);
        next.push((step, state));
    }

    /// As `with`, if there is one of these faults left.
    fn spend(
        &self,
        next: &mut Next,
        step: Step,
        fault: fn(&mut Faults) -> &mut u8,
        change: impl FnOnce(&mut Self),
    ) {
        let mut state = self.clone();
        let left = fault(&mut state.faults);
        if *left > 0 {
            *left -= 1;
            change(&mut state);
            next.push((step, state));
        }
    }

    fn work(&self, scenario: &Scenario, number: usize, next: &mut Next) {
        let worker = &self.workers[number];
        match worker.phase {
            Phase::Idle => {
                if self.processes[scenario.process(number)].debts == 0 {
                    let begin = |looks| move |s: &mut Self| s.begin(scenario, number, looks);
                    self.with(next, Step::Begin(number), begin(false));
                    let look = Step::BeginLooking(number);
                    self.spend(next, look, |faults| &mut faults.looks, begin(true));
                }
            }
            Phase::Publishing => self.publish_next(scenario, number, next),
            Phase::Settling => self.settle(scenario, number, next),
            Phase::Raising => {
                self.with(next, Step::RaiseFloors(number), |s| {
                    s.raise_floors(scenario, number);
                });
            }
            Phase::Owing => {
                let mut state = self.clone();
                if state.pay(scenario, number) {
                    next.push((Step::PayDebt(number), state));
                }
            }
            // The server ends what idles in a transaction, and the process is restarted some day.
            Phase::Hung => {
                if !scenario.has(Defect::HasNoIdleTimeout) {
                    self.with(next, Step::TimeOut(number), |s| {
                        s.end_process(scenario, number);
                    });
                }
            }
            Phase::Begun => next.extend(self.claim_on(scenario, number)),
            _ if worker.open => next.extend(self.claim_on(scenario, number)),
            _ => self.with(next, Step::FindTransactionGone(number), |s| {
                s.fail(scenario, number);
            }),
        }
    }

    fn disturb(&self, scenario: &Scenario, number: usize, next: &mut Next) {
        let worker = &self.workers[number];
        if worker.phase != Phase::Hung && worker.phase != Phase::Idle {
            let crash = |s: &mut Self| s.end_process(scenario, number);
            self.spend(next, Step::Crash(number), |faults| &mut faults.crash, crash);
        }
        if worker.open && worker.phase != Phase::Hung {
            let end = |s: &mut Self| s.workers[number].open = false;
            self.spend(
                next,
                Step::EndTransaction(number),
                |faults| &mut faults.end_transaction,
                end,
            );
            if worker.phase == Phase::Publishing {
                let hang = |s: &mut Self| s.workers[number].phase = Phase::Hung;
                self.spend(next, Step::Hang(number), |faults| &mut faults.hang, hang);
            }
        }
    }

    /// A process ends, and another takes its place. What was handed to the network may still arrive.
    fn end_process(&mut self, scenario: &Scenario, worker: usize) {
        let process = scenario.process(worker);
        for number in (0..self.workers.len()).filter(|&w| scenario.process(w) == process) {
            let worker = &self.workers[number];
            if matches!(worker.phase, Phase::Publishing | Phase::Hung) {
                let under_way = |event: &usize| {
                    let mut answered = worker.events.iter().zip(&worker.outcomes);
                    !answered.any(|(&earlier, outcome)| {
                        outcome.ends_run() && scenario.same_key(earlier, *event)
                    })
                };
                let unsent = worker.events[worker.outcomes.len()..].iter().copied();
                self.wire.push(unsent.filter(under_way).collect());
                self.wire.retain(|sent| !sent.is_empty());
            }
            self.rest(number);
        }
        self.processes[process] = scenario.fresh_process();
    }

    /// What is still under way arrives in its order, if ever.
    fn deliver_late(&self, scenario: &Scenario, next: &mut Next) {
        for (number, sent) in self.wire.iter().enumerate() {
            let event = sent[0];
            self.with(next, Step::ArriveLate(id(event)), |s| {
                s.wire[number].remove(0);
                s.wire.retain(|sent| !sent.is_empty());
                s.arrive(scenario, event);
            });
        }
    }

    /// Ids are drawn in order; transactions end in any. The writers of a key take turns.
    fn write(&self, scenario: &Scenario, event: usize, next: &mut Next) {
        let row = |to: Row| move |s: &mut Self| s.rows[event] = to;
        match self.rows[event] {
            Row::Unborn => {
                let drawn = !self.rows[..event].contains(&Row::Unborn);
                let turn = (0..event).all(|earlier| {
                    !scenario.same_key(earlier, event)
                        || !matches!(self.rows[earlier], Row::Open | Row::Prepared)
                });
                if drawn && turn {
                    self.with(next, Step::DrawId(id(event)), row(Row::Open));
                }
            }
            Row::Open => {
                self.with(next, Step::Commit(id(event)), row(Row::Pending));
                let back = Step::RollBack(id(event));
                self.spend(next, back, |f| &mut f.roll_back, row(Row::RolledBack));
                let prepare = Step::Prepare(id(event));
                self.spend(next, prepare, |f| &mut f.prepare, row(Row::Prepared));
            }
            Row::Prepared => self.with(next, Step::Commit(id(event)), row(Row::Pending)),
            _ => {}
        }
    }

    /// Time, strangers and operators.
    fn meddle(&self, scenario: &Scenario, event: usize, next: &mut Next) {
        if let Some(Failure::Retrying {
            due: false,
            attempts,
        }) = self.failures[event]
        {
            let due = Some(Failure::Retrying {
                due: true,
                attempts,
            });
            self.with(next, Step::BecomeDue(id(event)), |s| {
                s.failures[event] = due;
            });
        }
        if self.stranger == Some(event) {
            self.with(next, Step::StrangerLeaves(id(event)), |s| s.stranger = None);
        }
        let free = self.locked_rows() & bit(event) == 0;
        if self.rows[event] == Row::Pending && free && self.stranger.is_none() {
            let lock = |s: &mut Self| s.stranger = Some(event);
            self.spend(
                next,
                Step::StrangerLocks(id(event)),
                |f| &mut f.strangers,
                lock,
            );
        }
        if self.is_lane_locked(scenario.lanes[event]) || self.rows[event] != Row::Pending {
            return;
        }
        if matches!(self.failures[event], Some(Failure::Dead { .. })) {
            let retry = Some(Failure::Retrying {
                due: true,
                attempts: 0,
            });
            let redrive = |s: &mut Self| s.failures[event] = retry;
            self.spend(next, Step::Redrive(id(event)), |f| &mut f.redrive, redrive);
        }
        if matches!(
            self.failures[event],
            Some(Failure::Dead { .. } | Failure::Retrying { .. })
        ) {
            let discard = |s: &mut Self| {
                s.failures[event] = Some(Failure::Discarded);
                s.given_up |= bit(event);
            };
            self.spend(next, Step::Discard(id(event)), |f| &mut f.discard, discard);
        }
    }

    fn pause(&self, scenario: &Scenario, process: usize, next: &mut Next) {
        let now = &self.processes[process];
        if !now.paused && !now.resuming {
            let pause = |s: &mut Self| s.processes[process].paused = true;
            self.spend(
                next,
                Step::Pause(process),
                |faults| &mut faults.pause,
                pause,
            );
        }
        if now.paused {
            self.with(next, Step::Resume(process), |s| {
                s.processes[process].paused = false;
                s.processes[process].resuming = true;
            });
        }
        if now.resuming {
            self.with(next, Step::FallAfterResuming(process), |s| {
                s.processes[process].resuming = false;
                if !scenario.has(Defect::ResumesWithoutAFall) {
                    s.processes[process].floors.fall(scenario.now);
                }
            });
        }
    }
}
