//! Lanes whose events this process publishes at the moment.
//!
//! The database's locks keep everyone else away from them, until the connection that holds them is lost
//! or a settlement fails: the rows are free again then, while their confirms are still on the way, and
//! another worker here would send them once more. It waits until it is known what becomes of them.

use tokio::sync::watch;

use crate::{
    event::Event,
    outbox::{LANES, Ordering},
};

const _: () = assert!(LANES == u64::BITS as usize, "a bit for each lane");

/// A set of lanes, a bit each.
#[derive(Debug)]
pub(super) struct InFlight(watch::Sender<u64>);

/// Lanes that are taken until this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    from: &'a InFlight,
    lanes: u64,
}

impl InFlight {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Takes lanes as soon as nobody has any of them.
    pub(super) async fn take(&self, lanes: u64) -> Taken<'_> {
        while !self.try_take(lanes) {
            let mut changes = self.0.subscribe();
            // Never an error: the sender lives as long as `self`.
            let _ = changes.wait_for(|taken| taken & lanes == 0).await;
        }
        Taken { from: self, lanes }
    }

    fn try_take(&self, lanes: u64) -> bool {
        self.0.send_if_modified(|taken| {
            let are_free = *taken & lanes == 0;
            if are_free {
                *taken |= lanes;
            }
            are_free
        })
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.from.0.send_modify(|taken| *taken &= !self.lanes);
    }
}

/// The lanes that nobody else may publish along with these events: none where there is no order, and
/// claims share lanes.
pub(super) fn lanes(events: &[Event], ordering: Ordering) -> u64 {
    match ordering {
        Ordering::Key => events
            .iter()
            .fold(0, |lanes, event| lanes | 1 << event.lane),
        Ordering::None => 0,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn lanes_are_taken_by_one_at_a_time_and_free_again() {
        let in_flight = InFlight::new();
        let first = in_flight.take(0b0011).now_or_never().unwrap();
        let _other = in_flight.take(0b1000).now_or_never().unwrap();
        assert!(in_flight.take(0b0110).now_or_never().is_none());
        drop(first);
        assert!(in_flight.take(0b0110).now_or_never().is_some());
        assert!(in_flight.take(0b1000).now_or_never().is_none());
    }

    #[test]
    fn events_without_order_take_no_lane() {
        let events = [(1, 0), (2, 63), (3, 0)].map(|(id, lane)| Event::bare(id, lane, "a", None));
        assert_eq!(lanes(&events, Ordering::Key), 1 << 63 | 1);
        assert_eq!(lanes(&events, Ordering::None), 0);
    }
}
