//! What arrived, held against what was committed.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    consumer::Arrival,
    shop::{Committed, Journal},
};

/// The figures of one sink, in events.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub committed: usize,
    pub rolled_back: usize,
    /// Messages that arrived, whatever they were.
    pub received: usize,
    /// Committed, and never arrived.
    pub lost: usize,
    /// Arrived, and never committed.
    pub phantom: usize,
    /// Arrived after a later event of its key (second copies aside).
    pub out_of_order: usize,
    /// Second and further copies.
    pub duplicates: usize,
    /// Arrived with another key or payload than was written.
    pub altered: usize,
    /// From the first commit to the last arrival.
    pub took: Duration,
    /// From COMMIT to the consumer, ascending.
    pub latencies: Vec<Duration>,
}

impl Verdict {
    /// Compares.
    pub fn new(journal: &Journal, arrivals: &[Arrival]) -> Self {
        let committed: HashMap<&str, &Committed> = (journal.committed.iter())
            .map(|event| (event.event_id.as_str(), event))
            .collect();
        let first = journal.committed.iter().map(|event| event.at).min();
        let last = arrivals.iter().map(|arrival| arrival.at).max();
        let mut verdict = Self {
            committed: journal.committed.len(),
            rolled_back: journal.rolled_back,
            received: arrivals.len(),
            lost: 0,
            phantom: 0,
            out_of_order: 0,
            duplicates: 0,
            altered: 0,
            took: last
                .zip(first)
                .map_or(Duration::ZERO, |(last, first)| last - first),
            latencies: Vec::with_capacity(arrivals.len()),
        };
        let mut seen = HashSet::new();
        let mut latest: HashMap<&str, i64> = HashMap::new();
        for arrival in arrivals {
            let Some(event) = committed.get(arrival.event_id.as_str()) else {
                verdict.phantom += 1;
                continue;
            };
            if !seen.insert(&arrival.event_id) {
                verdict.duplicates += 1;
                continue;
            }
            if (&arrival.key, arrival.sequence) != (&event.key, event.sequence) {
                verdict.altered += 1;
            }
            let latest = latest.entry(&event.key).or_default();
            if event.sequence < *latest {
                verdict.out_of_order += 1;
            }
            *latest = event.sequence.max(*latest);
            verdict.latencies.push(arrival.at - event.at);
        }
        verdict.lost = committed.len() - seen.len();
        verdict.latencies.sort_unstable();
        verdict
    }

    /// What of it is not as promised.
    pub fn broken(&self) -> Vec<String> {
        let promised_none = [
            ("lost", self.lost),
            ("phantom", self.phantom),
            ("out of order", self.out_of_order),
            ("duplicates", self.duplicates),
            ("altered", self.altered),
        ];
        let mut broken: Vec<String> = (promised_none.iter())
            .filter(|(_, count)| *count > 0)
            .map(|(figure, count)| format!("{figure} {count}, not 0"))
            .collect();
        if self.received != self.committed {
            broken.push(format!(
                "received {}, committed {}",
                self.received, self.committed
            ));
        }
        broken
    }

    /// Events a second.
    pub fn rate(&self) -> f64 {
        let events = u32::try_from(self.received).map_or(f64::INFINITY, f64::from);
        events / self.took.as_secs_f64()
    }

    /// The latency that so many of a hundred events did not exceed.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.max(1) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Two keys with three events each, and what a consumer made of them.
    fn verdict(arrivals: &[(&str, &str, i64)]) -> Verdict {
        let at = Instant::now();
        let mut journal = Journal {
            rolled_back: 1,
            ..Journal::default()
        };
        for (key, sequence) in [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2), ("b", 3)] {
            let (event_id, key) = (format!("{key}{sequence}"), key.to_owned());
            journal.committed.push(Committed {
                event_id,
                key,
                sequence,
                at,
            });
        }
        let arrivals: Vec<Arrival> = (arrivals.iter().zip(1..))
            .map(|((event_id, key, sequence), after)| Arrival {
                event_id: (*event_id).to_owned(),
                key: (*key).to_owned(),
                sequence: *sequence,
                at: at + Duration::from_millis(after),
            })
            .collect();
        Verdict::new(&journal, &arrivals)
    }

    const A1: (&str, &str, i64) = ("a1", "a", 1);
    const A2: (&str, &str, i64) = ("a2", "a", 2);
    const A3: (&str, &str, i64) = ("a3", "a", 3);
    const B1: (&str, &str, i64) = ("b1", "b", 1);
    const B2: (&str, &str, i64) = ("b2", "b", 2);
    const B3: (&str, &str, i64) = ("b3", "b", 3);

    #[test]
    fn everything_once_and_in_order_per_key_is_as_promised() {
        let verdict = verdict(&[B1, A1, A2, B2, B3, A3]);
        assert_eq!(verdict.broken(), Vec::<String>::new());
        assert_eq!(
            (verdict.committed, verdict.rolled_back, verdict.received),
            (6, 1, 6)
        );
        assert_eq!(verdict.percentile(50), Some(Duration::from_millis(3)));
        assert_eq!(verdict.percentile(99), Some(Duration::from_millis(6)));
        assert!((verdict.rate() - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn an_event_that_never_arrives_is_lost() {
        let broken = verdict(&[A1, A2, A3, B1, B3]).broken();
        assert_eq!(broken, ["lost 1, not 0", "received 5, committed 6"]);
    }

    #[test]
    fn a_loss_does_not_hide_behind_a_duplicate() {
        let broken = verdict(&[A1, A2, A3, B1, B3, B3]).broken();
        assert_eq!(broken, ["lost 1, not 0", "duplicates 1, not 0"]);
    }

    #[test]
    fn an_event_that_was_not_committed_is_a_phantom() {
        let broken = verdict(&[A1, A2, A3, B1, B2, B3, ("a4", "a", 4)]).broken();
        assert_eq!(broken, ["phantom 1, not 0", "received 7, committed 6"]);
    }

    #[test]
    fn each_event_behind_a_later_one_of_its_key_is_out_of_order() {
        let broken = verdict(&[A3, A1, A2, B1, B2, B3]).broken();
        assert_eq!(broken, ["out of order 2, not 0"]);
    }

    #[test]
    fn a_second_copy_is_a_duplicate_and_not_out_of_order() {
        let broken = verdict(&[A1, A2, A1, A3, B1, B2, B3]).broken();
        assert_eq!(broken, ["duplicates 1, not 0", "received 7, committed 6"]);
    }

    #[test]
    fn another_key_or_payload_is_altered() {
        let broken = verdict(&[A1, ("a2", "b", 2), ("a3", "a", 4), B1, B2, B3]).broken();
        assert_eq!(broken, ["altered 2, not 0"]);
    }

    #[test]
    fn nothing_at_all_has_no_latency() {
        let verdict = verdict(&[]);
        assert_eq!((verdict.lost, verdict.percentile(50)), (6, None));
    }
}
