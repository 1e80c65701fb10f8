//! What statements see and do.

use super::{
    Defect,
    state::{Events, Failure, Row, Scenario, State, bit, each},
};

impl State {
    /// Pending rows of a lane above a floor, less what failures and pauses leave out.
    pub fn claimable(
        &self,
        scenario: &Scenario,
        lane: usize,
        floor: i64,
        exclude: bool,
        paused: bool,
    ) -> Events {
        let wanted = |&event: &usize| {
            self.rows[event] == Row::Pending
                && scenario.lanes[event] == lane
                && super::state::id(event) > floor
                && !(exclude && (self.failures[event].is_some() || self.is_held(scenario, event)))
                && !(paused && scenario.is_pausable(event))
        };
        (0..scenario.events())
            .filter(wanted)
            .map(bit)
            .fold(0, |all, event| all | event)
    }

    fn holds(&self, scenario: &Scenario, event: usize) -> bool {
        if scenario.has(Defect::RetryHoldsNothing) {
            return matches!(self.failures[event], Some(Failure::Dead { holds: true }));
        }
        scenario.keys[event].is_some() && self.failures[event].is_some_and(Failure::holds)
    }

    fn is_held(&self, scenario: &Scenario, event: usize) -> bool {
        (0..scenario.events())
            .any(|other| self.holds(scenario, other) && scenario.same_key(other, event))
    }

    /// The set of failures that hold a key in a lane.
    pub fn holding(&self, scenario: &Scenario, lane: usize) -> i64 {
        let holds = |&event: &usize| scenario.lanes[event] == lane && self.holds(scenario, event);
        (0..scenario.events())
            .filter(holds)
            .map(|event| i64::from(bit(event)))
            .sum()
    }

    /// Due retries of a lane that nothing older of their key holds.
    pub fn due(&self, scenario: &Scenario, lane: usize, paused: bool) -> Events {
        let due = |&event: &usize| {
            scenario.lanes[event] == lane
                && self.failures[event].is_some_and(Failure::is_due)
                && !(paused && scenario.is_pausable(event))
                && !(0..event)
                    .any(|older| self.holds(scenario, older) && scenario.same_key(older, event))
        };
        (0..scenario.events())
            .filter(due)
            .map(bit)
            .fold(0, |all, event| all | event)
    }

    /// Whether failures matter to anybody.
    pub fn has_failures(&self, lowest: i64) -> bool {
        self.failures.iter().enumerate().any(|(event, failure)| {
            failure.is_some_and(|failure| failure.holds() || super::state::id(event) > lowest)
        })
    }

    /// Whether a transaction has the lane's lock.
    pub fn is_lane_locked(&self, lane: usize) -> bool {
        self.workers
            .iter()
            .any(|worker| worker.open && worker.lanes[lane].is_some())
    }

    /// Rows that transactions or strangers hold.
    pub fn locked_rows(&self) -> Events {
        let claims = self.workers.iter().filter(|worker| worker.open);
        claims.fold(self.stranger.map_or(0, bit), |all, worker| {
            all | worker.locked
        })
    }

    /// A message of the event reaches the log.
    pub fn arrive(&mut self, scenario: &Scenario, event: usize) {
        if self.log & bit(event) == 0 {
            let passed = each(self.log & !self.given_up)
                .any(|other| other > event && scenario.same_key(other, event));
            if passed && self.given_up & bit(event) == 0 {
                self.broken = Some("a key's events first arrived out of order");
            }
        }
        self.log |= bit(event);
    }

    pub fn publish(&mut self, event: usize) {
        if self.log & bit(event) == 0 {
            self.broken = Some("an event was settled that is not in the log");
        }
        self.rows[event] = Row::Published;
    }

    /// *Every sender sends, per key, an unbroken run that starts at the first unsettled event.*
    pub fn check_run(&mut self, scenario: &Scenario, events: &[usize]) {
        for &event in events {
            let skipped = (0..event).find(|&older| {
                scenario.same_key(older, event)
                    && self.rows[older] == Row::Pending
                    && !matches!(
                        self.failures[older],
                        Some(Failure::Dead { holds: false } | Failure::Discarded)
                    )
                    && !events.contains(&older)
            });
            if skipped.is_some() {
                self.broken = Some("a run does not start at its key's first unsettled event");
            }
            if matches!(
                self.failures[event],
                Some(Failure::Dead { .. } | Failure::Discarded)
            ) {
                self.broken = Some("an event was claimed that had been given up");
            }
        }
    }

    /// Nothing is left to do: all is published or given up, or waits behind what was given up.
    pub fn is_done(&self, scenario: &Scenario) -> bool {
        (0..scenario.events()).all(|event| match self.rows[event] {
            Row::Published | Row::RolledBack => true,
            Row::Pending => (0..=event).any(|older| {
                (older == event || scenario.same_key(older, event))
                    && match self.failures[older] {
                        Some(Failure::Dead { holds }) => holds || older == event,
                        Some(Failure::Discarded) => older == event,
                        _ => false,
                    }
            }),
            _ => false,
        })
    }
}
