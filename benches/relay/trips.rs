//! When each event set out and when it arrived, by its number.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::common::Failure;

/// How long the last ones may take.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Instants as nanoseconds since the beginning; 0 is not yet.
pub struct Trips {
    began: Instant,
    set_out: Vec<AtomicU64>,
    arrived: Vec<AtomicU64>,
}

/// In milliseconds.
pub struct Latencies(Vec<f64>);

impl Trips {
    pub fn new(count: usize) -> Self {
        let none = || (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            began: Instant::now(),
            set_out: none(),
            arrived: none(),
        }
    }

    pub fn count(&self) -> usize {
        self.set_out.len()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub fn sets_out(&self, number: usize) {
        self.set_out[number].store(self.now(), Ordering::Relaxed);
    }

    /// The payload ends with the number.
    pub fn arrives(&self, payload: &[u8]) {
        let now = self.now();
        let digits = payload.rsplit(|byte| *byte == b' ').next();
        let number =
            digits.and_then(|digits| str::from_utf8(digits).ok()?.strip_suffix('}')?.parse().ok());
        if let Some(arrived) = number.and_then(|number: usize| self.arrived.get(number)) {
            // A second copy does not count.
            let _ = arrived.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Waits until all have arrived; gives how long those from `first` on were under way.
    pub async fn over(&self, first: usize) -> Result<Latencies, Failure> {
        let began = Instant::now();
        let is_missing = |arrived: &&AtomicU64| arrived.load(Ordering::Relaxed) == 0;
        while self
            .arrived
            .iter()
            .rev()
            .any(|arrived| is_missing(&arrived))
        {
            if began.elapsed() > PATIENCE {
                let missing = self.arrived.iter().filter(is_missing).count();
                return Err(format!("{missing} of {} have not arrived", self.count()).into());
            }
            sleep(LOOK_EVERY).await;
        }
        let trips = self.set_out.iter().zip(&self.arrived).skip(first);
        let took = trips.map(|(set_out, arrived)| {
            // Some arrive before their writer hears of its commit: at once.
            let (from, to) = (
                set_out.load(Ordering::Relaxed),
                arrived.load(Ordering::Relaxed),
            );
            to.saturating_sub(from) as f64 / 1e6
        });
        Ok(Latencies::of(took.collect()))
    }
}

impl Latencies {
    pub fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// So many thousandths are not longer.
    pub fn thousandths(&self, part: usize) -> f64 {
        let index = (self.0.len() * part).div_ceil(1000).saturating_sub(1);
        self.0.get(index).copied().unwrap_or_default()
    }
}
