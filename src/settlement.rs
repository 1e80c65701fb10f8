//! What follows from a batch's outcomes: what to mark, what to charge, what to pause. Pure: no I/O,
//! no clock.
//!
//! # Design notes
//! * Only each key's prefix is settled. What was confirmed beyond a failed event of its key stays
//!   pending and is sent again after it: else its consumer would never see the two in order.
//! * Only an answer about one event alone is charged to it. Outages, unknown destinations and
//!   whatever happens to its neighbours cost an event nothing.
//! * A dead letter that does not hold its key counts as settled: its successors, confirmed after it,
//!   arrived in order and need no second copy.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{
    event::{Event, Failure},
    retry::RetryPolicy,
    sink::{Outcome, Reason, ReasonKind, Scope},
};

/// Of a destination's last [`WINDOW`] answers, more than this many rejections pause it: it is the
/// destination that is wrong then, not the events.
const MOST_REJECTED: usize = 20;
const WINDOW: usize = 50;

/// The settings that decide.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// When to try again, how often.
    pub retry: RetryPolicy,
    /// Whether a dead letter keeps holding its key (`--on-dead hold`).
    pub dead_holds: bool,
    /// Whether an unusable destination kills the event instead of being paused (`--on-unroutable dead`).
    pub unroutable_dies: bool,
    /// Whether order per key is kept (`--ordering key`).
    pub ordered: bool,
}

/// What to do. Numbers are indexes of the batch's events.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Confirmed, and nothing before them in their key failed: mark them.
    pub published: Vec<usize>,
    /// Those of `published` that were being retried: forget their failure.
    pub retried: Vec<usize>,
    /// To be written down.
    pub failures: Vec<Failure>,
    /// Those that stay pending.
    pub unsettled: Vec<usize>,
    /// Destinations to pause, with the reason.
    pub pauses: HashMap<String, String>,
    /// Why the sink as a whole cannot be used, if so.
    pub sink_down: Option<String>,
}

/// Decides. `outcomes[i]` belongs to `events[i]`; `jitter` gives numbers from 0 to 1.
pub fn settle(
    events: &[Event],
    outcomes: Vec<Outcome>,
    policy: &Policy,
    rejections: &mut Rejections,
    mut jitter: impl FnMut() -> f64,
) -> Settlement {
    let mut settlement = Settlement::default();
    let mut stopped: HashSet<(&str, &str)> = HashSet::new();
    for (index, (event, outcome)) in events.iter().zip(outcomes).enumerate() {
        let key = event.ordering_key().filter(|_| policy.ordered);
        let destination = &event.message.destination;
        let behind = !stopped.is_empty() && key.is_some_and(|key| stopped.contains(&key));
        let verdict = if behind {
            defect!(SettlePastFailure: Verdict::Published, else Verdict::Wait)
        } else {
            judge(outcome, policy, rejections, destination)
        };
        let settled = match verdict {
            Verdict::Published => {
                settlement.published.push(index);
                if event.attempts.is_some() {
                    settlement.retried.push(index);
                }
                true
            }
            Verdict::Wait => false,
            Verdict::SinkDown(detail) => {
                settlement.sink_down.get_or_insert(detail);
                false
            }
            Verdict::Pause(detail) => {
                settlement
                    .pauses
                    .entry(destination.clone())
                    .or_insert(detail);
                false
            }
            Verdict::Charge { reason, last } => {
                let attempts = event.attempts.unwrap_or(0) + defect!(ChargeTwice: 2, else 1);
                let retry_in = if last {
                    None
                } else {
                    policy.retry.delay(attempts, jitter())
                };
                let holds = key.is_some()
                    && (retry_in.is_some() || policy.dead_holds)
                    && !defect!(ReleaseFailedKey);
                settlement.failures.push(Failure {
                    index,
                    attempts,
                    retry_in,
                    holds,
                    reason,
                });
                !holds && retry_in.is_none()
            }
        };
        if !settled {
            settlement.unsettled.push(index);
            stopped.extend(key);
        }
    }
    settlement
}

enum Verdict {
    Published,
    Wait,
    SinkDown(String),
    Pause(String),
    Charge { reason: Reason, last: bool },
}

fn judge(
    outcome: Outcome,
    policy: &Policy,
    rejections: &mut Rejections,
    destination: &str,
) -> Verdict {
    match outcome {
        Outcome::Published => {
            rejections.note(destination, false);
            Verdict::Published
        }
        Outcome::Unavailable(_) if defect!(SettleUnanswered) => Verdict::Published,
        Outcome::Unavailable(why) if defect!(ChargeOutage) => Verdict::Charge {
            reason: Reason::new(ReasonKind::Refused, why.detail),
            last: false,
        },
        Outcome::Withheld => Verdict::Wait,
        Outcome::Transient(reason) => Verdict::Charge {
            reason,
            last: false,
        },
        Outcome::Unavailable(unavailable) => match unavailable.scope {
            Scope::Sink => Verdict::SinkDown(unavailable.detail),
            Scope::Destination if policy.unroutable_dies => Verdict::Charge {
                reason: Reason::new(ReasonKind::Unroutable, unavailable.detail),
                last: true,
            },
            Scope::Destination => Verdict::Pause(unavailable.detail),
        },
        Outcome::Rejected(reason) => {
            if rejections.note(destination, true) {
                defect!(DropRejected: Verdict::Published, else Verdict::Charge { reason, last: true })
            } else {
                Verdict::Pause(format!(
                    "more than {MOST_REJECTED} of its last {WINDOW} events were rejected, the latest: {reason}"
                ))
            }
        }
    }
}

/// The latest answers of each destination that ever rejected something.
#[derive(Debug, Default)]
pub struct Rejections(HashMap<String, VecDeque<bool>>);

impl Rejections {
    /// Notes an answer. False when it is one rejection too many, which then is not counted.
    fn note(&mut self, destination: &str, rejected: bool) -> bool {
        if !rejected && !self.0.contains_key(destination) {
            return true;
        }
        let window = self.0.entry(destination.to_owned()).or_default();
        if rejected && window.iter().filter(|&&rejected| rejected).count() >= MOST_REJECTED {
            return false;
        }
        window.push_back(rejected);
        if window.len() > WINDOW {
            window.pop_front();
        }
        if !window.contains(&true) {
            self.0.remove(destination);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::sink::Unavailable;

    fn event(id: i64, key: Option<u8>, destination: u8) -> Event {
        let key = key.map(|key| key.to_string());
        Event::bare(id, 7, &format!("topic-{destination}"), key.as_deref())
    }

    fn refused() -> Reason {
        Reason::new(ReasonKind::Refused, "no")
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            6 => Just(Outcome::Published),
            1 => Just(Outcome::Withheld),
            1 => Just(Outcome::Transient(refused())),
            1 => Just(Outcome::Rejected(refused())),
            1 => Just(Outcome::Unavailable(Unavailable::sink("down"))),
            1 => Just(Outcome::Unavailable(Unavailable::destination("unknown"))),
        ]
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        (1_u32..4, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(max_attempts, dead_holds, unroutable_dies, ordered)| Policy {
                retry: RetryPolicy {
                    max_attempts,
                    initial: Duration::from_secs(1),
                    max: Duration::from_secs(9),
                },
                dead_holds,
                unroutable_dies,
                ordered,
            },
        )
    }

    fn any_batch() -> impl Strategy<Value = Vec<(Option<u8>, u8, Outcome)>> {
        prop::collection::vec((prop::option::of(0_u8..4), 0_u8..2, any_outcome()), 0..80)
    }

    fn decide(batch: &[(Option<u8>, u8, Outcome)], policy: &Policy) -> (Vec<Event>, Settlement) {
        let mut events: Vec<_> = batch
            .iter()
            .zip(1..)
            .map(|((key, destination, _), id)| event(id, *key, *destination))
            .collect();
        for (event, attempts) in events.iter_mut().zip([2, 1]) {
            event.attempts = Some(attempts);
        }
        let outcomes = batch.iter().map(|(.., outcome)| outcome.clone()).collect();
        let settlement = settle(
            &events,
            outcomes,
            policy,
            &mut Rejections::default(),
            || 0.5,
        );
        (events, settlement)
    }

    proptest! {
        #[test]
        fn every_event_is_settled_or_stays_pending_and_never_both(batch in any_batch(), policy in any_policy()) {
            let (events, settlement) = decide(&batch, &policy);
            let published: HashSet<_> = settlement.published.iter().copied().collect();
            let pending: HashSet<_> = settlement.unsettled.iter().copied().collect();
            let dead: HashSet<_> = settlement.failures.iter()
                .filter(|failure| failure.retry_in.is_none() && !failure.holds)
                .map(|failure| failure.index).collect();
            prop_assert_eq!(published.len() + pending.len() + dead.len(), events.len());
            for index in 0..events.len() {
                let places = [&published, &pending, &dead].iter().filter(|set| set.contains(&index)).count();
                prop_assert_eq!(places, 1);
            }
        }

        #[test]
        fn nothing_is_settled_behind_a_pending_event_of_its_key(batch in any_batch(), policy in any_policy()) {
            let policy = Policy { ordered: true, ..policy };
            let (events, settlement) = decide(&batch, &policy);
            let mut stopped = HashSet::new();
            for (index, event) in events.iter().enumerate() {
                let Some(key) = event.ordering_key() else { continue };
                if settlement.unsettled.contains(&index) {
                    stopped.insert(key);
                } else {
                    prop_assert!(!stopped.contains(&key), "event {index} passed one of its key");
                }
            }
        }

        #[test]
        fn a_destination_is_paused_at_one_rejection_too_many_of_its_last_answers(
            answers in prop::collection::vec(prop::bool::weighted(0.45), 0..300)
        ) {
            let (mut rejections, mut counted) = (Rejections::default(), Vec::new());
            for rejected in answers {
                let window = &counted[counted.len().saturating_sub(WINDOW)..];
                let one_too_many = rejected && window.iter().filter(|&&rejected| rejected).count() >= MOST_REJECTED;
                prop_assert_eq!(rejections.note("a", rejected), !one_too_many);
                if !one_too_many {
                    counted.push(rejected);
                }
            }
        }

        /// Its retries and its neighbours' fates included: batch after batch until all is over.
        #[test]
        fn every_event_ends_once_in_the_order_of_its_key(
            keys in prop::collection::vec(0_u8..3, 1..20), policy in any_policy(),
            answers in prop::collection::vec(any_outcome(), 100),
        ) {
            let policy = Policy { ordered: true, dead_holds: false, unroutable_dies: true, ..policy };
            let mut pending: Vec<Event> = keys.iter().zip(1..).map(|(key, id)| event(id, Some(*key), 0)).collect();
            let mut over: Vec<Event> = Vec::new();
            let mut answers = answers.into_iter().chain(std::iter::repeat(Outcome::Published));
            while !pending.is_empty() {
                let outcomes: Vec<_> = answers.by_ref().take(pending.len()).collect();
                let settlement = settle(&pending, outcomes, &policy, &mut Rejections::default(), || 0.5);
                for failure in &settlement.failures {
                    let failed = &mut pending[failure.index];
                    prop_assert_eq!(failure.attempts, failed.attempts.unwrap_or(0) + 1);
                    failed.attempts = Some(failure.attempts);
                    prop_assert!(failure.retry_in.is_none() || failure.attempts < policy.retry.max_attempts);
                }
                let (waiting, ended): (Vec<_>, Vec<_>) = (pending.into_iter().enumerate())
                    .partition(|(index, _)| settlement.unsettled.contains(index));
                over.extend(ended.into_iter().map(|(_, event)| event));
                pending = waiting.into_iter().map(|(_, event)| event).collect();
            }
            for key in 0..3 {
                let key = key.to_string();
                let ids = over.iter().filter(|event| event.message.key.as_ref() == Some(&key)).map(|event| event.position);
                prop_assert!(ids.is_sorted());
            }
            prop_assert_eq!(over.len(), keys.len());
        }

        #[test]
        fn only_a_confirmed_event_is_marked(batch in any_batch(), policy in any_policy()) {
            let (events, settlement) = decide(&batch, &policy);
            prop_assert_eq!(events.len(), batch.len());
            for index in settlement.published {
                prop_assert_eq!(&batch[index].2, &Outcome::Published);
            }
        }

        #[test]
        fn only_an_answer_about_the_event_itself_is_charged(batch in any_batch(), policy in any_policy()) {
            let policy = Policy { unroutable_dies: false, ..policy };
            let (_, settlement) = decide(&batch, &policy);
            for failure in &settlement.failures {
                prop_assert!(matches!(batch[failure.index].2, Outcome::Transient(_) | Outcome::Rejected(_)));
            }
        }
    }

    fn policy() -> Policy {
        Policy {
            retry: RetryPolicy {
                max_attempts: 3,
                initial: Duration::from_secs(1),
                max: Duration::from_secs(9),
            },
            dead_holds: false,
            unroutable_dies: false,
            ordered: true,
        }
    }

    #[test]
    fn an_event_dies_with_its_last_attempt() {
        let batch = [
            (Some(0), 0, Outcome::Transient(refused())),
            (Some(1), 0, Outcome::Transient(refused())),
        ];
        let (_, settlement) = decide(&batch, &policy());
        // Event 1 had two negative answers before, event 2 one: three are the most.
        let [first, second] = &settlement.failures[..] else {
            panic!("{settlement:?}")
        };
        assert_eq!((first.attempts, first.retry_in), (3, None));
        assert_eq!(second.attempts, 2);
        assert!(second.retry_in.is_some() && second.holds);
    }

    #[test]
    fn a_key_goes_on_behind_a_dead_letter_unless_it_is_to_be_held() {
        let batch = [
            (Some(0), 0, Outcome::Rejected(refused())),
            (Some(0), 0, Outcome::Published),
        ];
        assert_eq!(decide(&batch, &policy()).1.published, [1]);
        let (_, settlement) = decide(
            &batch,
            &Policy {
                dead_holds: true,
                ..policy()
            },
        );
        assert!(settlement.published.is_empty());
        assert!(settlement.failures[0].holds);
    }

    #[test]
    fn a_destination_that_rejects_nearly_everything_is_paused_instead_of_killing_on() {
        let batch: Vec<_> = (0..100)
            .map(|_| (None, 0, Outcome::Rejected(refused())))
            .collect();
        let (_, settlement) = decide(&batch, &policy());
        assert_eq!(settlement.failures.len(), MOST_REJECTED);
        assert!(settlement.pauses.contains_key("topic-0"));
    }

    #[test]
    fn events_without_a_key_do_not_wait_for_each_other() {
        let batch = [
            (None, 0, Outcome::Transient(refused())),
            (None, 0, Outcome::Published),
        ];
        let (_, settlement) = decide(&batch, &policy());
        assert_eq!(settlement.published, [1]);
        assert!(!settlement.failures[0].holds);
    }
}
