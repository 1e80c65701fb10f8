//! When an event that failed alone is tried again. Pure.

use std::time::Duration;

/// `--max-attempts`, `--backoff-initial`, `--backoff-max`.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Negative answers after which an event is dead.
    pub max_attempts: u32,
    /// The wait after the first.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl RetryPolicy {
    /// How long to wait after that many negative answers; `None` when it was the last.
    ///
    /// Doubles each time, and is spread over its upper half by `jitter` (0 to 1), so that events
    /// which failed together do not come back together.
    pub fn delay(&self, attempts: u32, jitter: f64) -> Option<Duration> {
        if attempts >= self.max_attempts {
            return None;
        }
        let doublings = attempts.saturating_sub(1).min(31);
        let full = self.initial.saturating_mul(1 << doublings).min(self.max);
        Some(full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_up_to_the_longest_and_end_with_the_last_attempt(
            attempts in 1_u32..100, max_attempts in 1_u32..100, initial_ms in 1_u64..10_000, max_ms in 1_u64..100_000, jitter in 0.0..1.0_f64,
        ) {
            let policy = RetryPolicy {
                max_attempts, initial: Duration::from_millis(initial_ms), max: Duration::from_millis(max_ms),
            };
            match policy.delay(attempts, jitter) {
                None => prop_assert!(attempts >= max_attempts),
                Some(delay) => {
                    prop_assert!(attempts < max_attempts);
                    prop_assert!(delay <= policy.max);
                    prop_assert!(delay >= policy.initial.min(policy.max) / 2);
                    if let Some(next) = policy.delay(attempts + 1, jitter) {
                        prop_assert!(next >= delay);
                    }
                }
            }
        }
    }
}
