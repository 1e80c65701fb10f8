//! What a storm came to.

use std::time::Duration;

use crate::{checker::Verdict, history::History};

/// What a storm came to.
pub struct Aftermath {
    pub history: History,
    pub verdict: Verdict,
    pub seed: u64,
    pub logs: String,
}

impl Aftermath {
    /// Says what it came to.
    ///
    /// # Panics
    /// When the promise was broken, with the first bad event's story.
    pub fn assert_as_promised(&self) {
        let report = self.history.report(&self.verdict);
        if !self.verdict.broken().is_empty() {
            let path = std::env::temp_dir().join(format!("outboxd-storm-{:x}.log", self.seed));
            std::fs::write(&path, &self.logs).unwrap();
            panic!(
                "seed {}\n{report}the relays' logs: {}",
                self.seed,
                path.display()
            );
        }
        let panicked = self.logs.lines().find(|line| line.contains("panicked"));
        assert_eq!(panicked, None, "seed {}", self.seed);
        println!("seed {}: {report}", self.seed);
    }

    /// The longest stop but for the slowest hundredth.
    pub fn stops_p99(&self) -> Duration {
        let stops = &self.history.stops;
        let mut took: Vec<Duration> = stops.iter().map(|stop| stop.took).collect();
        took.sort_unstable();
        took[(took.len() * 99).div_ceil(100).max(1) - 1]
    }
}
