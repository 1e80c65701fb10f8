//! Breakers: whether the sink, and each destination, may be used now. Pure: the time is given.
//!
//! An outage charges no event. It opens a breaker; probes with backoff, at most [`LONGEST`] apart,
//! close it again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// A destination that fails again within this time of being resumed waits longer than before.
const FORGET_AFTER: Duration = Duration::from_mins(1);

/// The wait before the next probe, after that many failures.
fn probe_delay(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST)
}

/// An outage of the sink. Each probe waits longer than the last, and only what is published ends it: a
/// broker may answer and yet take nothing. (So a sink that comes back to no traffic is asked less
/// eagerly the next time, at most 5 s apart.)
#[derive(Debug, Default)]
pub struct Outage {
    probes: u32,
}

impl Outage {
    /// The wait before the next probe; none before the first.
    pub fn wait(&self) -> Duration {
        self.probes
            .checked_sub(1)
            .map_or(Duration::ZERO, probe_delay)
    }

    /// Notes a probe, whatever came of it.
    pub fn probed(&mut self) {
        self.probes = self.probes.saturating_add(1);
    }

    /// Something was published.
    pub fn ended(&mut self) {
        self.probes = 0;
    }
}

/// Destinations that are not published to at the moment.
#[derive(Debug, Default)]
pub struct Pauses(HashMap<String, Pause>);

#[derive(Debug)]
struct Pause {
    detail: String,
    failures: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Paused {
        probe_at: Instant,
    },
    /// In use again, remembered for a while.
    Resumed {
        at: Instant,
    },
}

impl Pauses {
    /// Pauses a destination, or keeps it paused for longer. True when it was not paused before.
    pub fn pause(&mut self, destination: &str, detail: &str, now: Instant) -> bool {
        let pause = self
            .0
            .entry(destination.to_owned())
            .or_insert_with(|| Pause {
                detail: String::new(),
                failures: 0,
                state: State::Resumed { at: now },
            });
        let fresh = matches!(pause.state, State::Resumed { .. });
        detail.clone_into(&mut pause.detail);
        pause.state = State::Paused {
            probe_at: now + probe_delay(pause.failures),
        };
        pause.failures += 1;
        fresh
    }

    /// Uses a destination again.
    pub fn resume(&mut self, destination: &str, now: Instant) {
        if let Some(pause) = self.0.get_mut(destination) {
            pause.state = State::Resumed { at: now };
        }
    }

    /// Destinations to probe now. Forgets those that have been well for long.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        self.0.retain(|_, pause| match pause.state {
            State::Paused { .. } => true,
            State::Resumed { at } => now.duration_since(at) < FORGET_AFTER,
        });
        let due =
            |pause: &Pause| matches!(pause.state, State::Paused { probe_at } if probe_at <= now);
        self.0
            .iter()
            .filter(|(_, pause)| due(pause))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Paused destinations and why.
    pub fn paused(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter(|(_, pause)| matches!(pause.state, State::Paused { .. }))
            .map(|(name, pause)| (name.as_str(), pause.detail.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Pause(u8),
        Resume(u8),
        Wait(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u8..3).prop_map(Step::Pause),
            (0_u8..3).prop_map(Step::Resume),
            (0_u64..90_000).prop_map(Step::Wait),
        ]
    }

    /// One destination as it must be: failures in a row, and since when it is paused or well.
    #[derive(Debug, Clone, Copy)]
    struct Expected {
        failures: u32,
        paused: bool,
        since: Instant,
    }

    proptest! {
        #[test]
        fn any_sequence_of_pauses_and_resumptions_is_as_the_model_says(
            steps in prop::collection::vec(any_step(), 0..60)
        ) {
            let (mut now, mut pauses) = (Instant::now(), Pauses::default());
            let mut model: HashMap<String, Expected> = HashMap::new();
            for step in steps {
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Pause(name) => {
                        let before = model.get(&name.to_string()).copied();
                        let fresh = pauses.pause(&name.to_string(), "gone", now);
                        prop_assert_eq!(fresh, before.is_none_or(|before| !before.paused));
                        let failures = before.map_or(0, |before| before.failures) + 1;
                        let paused = Expected { failures, paused: true, since: now };
                        model.insert(name.to_string(), paused);
                    }
                    Step::Resume(name) => {
                        pauses.resume(&name.to_string(), now);
                        if let Some(known) = model.get_mut(&name.to_string()) {
                            (known.paused, known.since) = (false, now);
                        }
                    }
                }
                let mut due = pauses.due(now);
                due.sort();
                model.retain(|_, known| known.paused || now - known.since < FORGET_AFTER);
                let mut expected: Vec<String> = model
                    .iter()
                    .filter(|(_, known)| known.paused && now - known.since >= probe_delay(known.failures - 1))
                    .map(|(name, _)| name.clone())
                    .collect();
                expected.sort();
                prop_assert_eq!(due, expected);
                let paused = model.values().filter(|known| known.paused).count();
                prop_assert_eq!(pauses.paused().count(), paused);
            }
        }
    }

    #[test]
    fn probes_are_at_most_five_seconds_apart() {
        let delays: Vec<_> = (0..40).map(probe_delay).collect();
        assert!(delays.is_sorted());
        assert_eq!(delays.last(), Some(&LONGEST));
    }

    #[test]
    fn a_destination_that_fails_again_waits_longer() {
        let start = Instant::now();
        let mut pauses = Pauses::default();
        assert!(pauses.pause("a", "gone", start));
        assert!(pauses.due(start).is_empty());
        let later = start + FIRST;
        assert_eq!(pauses.due(later), ["a"]);
        pauses.resume("a", later);
        assert_eq!(pauses.paused().count(), 0);
        assert!(pauses.pause("a", "gone", later));
        assert!(pauses.due(later + FIRST).is_empty());
        assert_eq!(pauses.due(later + FIRST * 2), ["a"]);
    }

    #[test]
    fn a_destination_that_stayed_well_is_forgotten() {
        let start = Instant::now();
        let mut pauses = Pauses::default();
        pauses.pause("a", "gone", start);
        pauses.resume("a", start);
        pauses.due(start + FORGET_AFTER);
        pauses.pause("a", "gone", start + FORGET_AFTER);
        assert_eq!(pauses.due(start + FORGET_AFTER + FIRST), ["a"]);
    }

    #[test]
    fn a_sink_that_answers_and_takes_nothing_is_asked_ever_more_rarely() {
        let mut outage = Outage::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(outage.wait().as_millis());
            outage.probed();
        }
        assert_eq!(waits, [0, 200, 400, 800, 1600, 3200, 5000, 5000]);
        outage.ended();
        assert_eq!(outage.wait(), Duration::ZERO);
    }
}
