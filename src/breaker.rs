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
pub fn probe_delay(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST)
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
    use super::*;

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
}
