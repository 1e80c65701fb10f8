//! Waiting: between looks at an idle table, and after errors.

use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const SHORTEST_POLL: Duration = Duration::from_millis(2);

/// Polls often while there is work now and then, and ever less often while there is none.
#[derive(Debug)]
pub(super) struct Poll {
    longest: Duration,
    next: Duration,
}

impl Poll {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            next: SHORTEST_POLL.min(longest),
        }
    }

    pub(super) fn found_work(&mut self) {
        self.next = SHORTEST_POLL.min(self.longest);
    }

    /// Waits for the next look, cut short by a wake-up, by a call, or by being stopped.
    pub(super) async fn wait(&mut self, wake: &Notify, called: &Notify, stop: &CancellationToken) {
        let wait = self.next;
        self.next = (self.next * 2).min(self.longest);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = wake.notified() => self.found_work(),
            // One look: other replicas may have all of it, and each look costs the database.
            () = called.notified() => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Waits longer after each error in a row, with jitter, so that replicas do not come back at once.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// Waits; true when stopped meanwhile.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let delay = Duration::from_millis(100)
            .saturating_mul(1 << self.0.min(6))
            .min(Duration::from_secs(5));
        self.0 += 1;
        let delay = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
        tokio::select! {
            () = tokio::time::sleep(delay) => false,
            () = stop.cancelled() => true,
        }
    }
}
