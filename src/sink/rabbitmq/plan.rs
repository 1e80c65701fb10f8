//! What of a batch may be sent next, and what became of the rest. Pure.
//!
//! The lemma of the design rests here: per (destination, key) the messages sent are an unbroken run
//! from the first one given. A message becomes ready when its predecessor was published (`strict`)
//! or at once (`pipelined`); when one fails, the rest of its key that was not sent is withheld.

use std::collections::{HashMap, HashSet, VecDeque};

use super::config::Order;
use crate::{
    event::Message,
    sink::{Outcome, Reason, Scope, Unavailable},
};

pub(super) struct Plan<'a> {
    messages: &'a [&'a Message],
    order: Order,
    /// The next message of the same destination and key.
    next: Vec<Option<usize>>,
    /// What may be sent now, in order.
    ready: VecDeque<usize>,
    /// What cannot be sent at all. It is rejected when it is its turn, and not before: behind a
    /// message that failed it is withheld like any other.
    invalid: HashMap<usize, Reason>,
    /// Destinations that turned out to be unusable: nothing more goes there.
    stopped: HashSet<&'a str>,
    outcomes: Vec<Option<Outcome>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        messages: &'a [&'a Message],
        order: Order,
        invalid: HashMap<usize, Reason>,
    ) -> Self {
        let order = match order {
            Order::Strict if defect!(PipelineKeys) => Order::Pipelined,
            order => order,
        };
        let mut plan = Self {
            messages,
            order,
            next: vec![None; messages.len()],
            ready: VecDeque::with_capacity(messages.len()),
            invalid,
            stopped: HashSet::new(),
            outcomes: vec![None; messages.len()],
        };
        let mut last = HashMap::new();
        for (index, message) in messages.iter().enumerate() {
            let key = message.key.as_ref();
            let before = key.and_then(|key| last.insert((&message.destination, key), index));
            if let Some(before) = before {
                plan.next[before] = Some(index);
            }
            let at_once = order == Order::Pipelined && !plan.invalid.contains_key(&index);
            if before.is_none() || at_once {
                plan.ready.push_back(index);
            }
        }
        let invalid: Vec<_> = plan.invalid.keys().copied().collect();
        for index in invalid {
            plan.withhold_after(index);
        }
        plan
    }

    /// The next messages to send, in order and at most so many; none when nothing is left.
    pub(super) fn wave(&mut self, most: usize) -> Vec<usize> {
        let mut wave = Vec::new();
        while wave.len() < most {
            let Some(index) = self.ready.pop_front() else {
                break;
            };
            if self.outcomes[index].is_some() {
                continue;
            }
            if self.stopped.contains(self.destination(index)) {
                self.outcomes[index] = Some(Outcome::Withheld);
                self.withhold_after(index);
            } else if let Some(reason) = self.invalid.remove(&index) {
                self.outcomes[index] = Some(Outcome::Rejected(reason));
            } else {
                wave.push(index);
            }
        }
        wave
    }

    /// Takes outcomes of messages that were sent, in order; `None` is to be sent again, before all
    /// others.
    pub(super) fn settle(&mut self, answered: Vec<(usize, Option<Outcome>)>) {
        // A message that was sent keeps its own outcome, also behind one of its key that failed.
        for (index, outcome) in &answered {
            if outcome.is_some() {
                self.outcomes[*index].clone_from(outcome);
            }
        }
        let mut again = Vec::new();
        for (index, outcome) in answered {
            match outcome {
                None => again.push(index),
                Some(Outcome::Published) => self.follow(index),
                Some(Outcome::Unavailable(reason)) if reason.scope == Scope::Destination => {
                    self.stopped.insert(self.destination(index));
                    self.withhold_after(index);
                }
                Some(_) => self.withhold_after(index),
            }
        }
        for index in again.into_iter().rev() {
            self.ready.push_front(index);
        }
    }

    /// No destination can be used: the first open message of each says so, the rest is withheld.
    pub(super) fn refuse_all(&mut self, refusal: &Unavailable) {
        for index in 0..self.messages.len() {
            if self.outcomes[index].is_none() {
                let first = self.stopped.insert(self.destination(index));
                let refused = first.then(|| Outcome::Unavailable(refusal.clone()));
                self.outcomes[index] = Some(refused.unwrap_or(Outcome::Withheld));
            }
        }
    }

    /// Everyone's outcome. Where there is none yet, the broker could not be used.
    pub(super) fn finish(mut self, unavailable: &Unavailable) -> Vec<Outcome> {
        for index in 0..self.messages.len() {
            if self.outcomes[index].is_none() {
                self.outcomes[index] = Some(Outcome::Unavailable(unavailable.clone()));
                self.withhold_after(index);
            }
        }
        self.outcomes.into_iter().flatten().collect()
    }

    fn destination(&self, index: usize) -> &'a str {
        &self.messages[index].destination
    }

    /// Lets a key go on.
    fn follow(&mut self, index: usize) {
        let next = self.next[index];
        let waits = |next: &usize| self.order == Order::Strict || self.invalid.contains_key(next);
        self.ready.extend(next.filter(waits));
    }

    fn withhold_after(&mut self, index: usize) {
        let mut after = self.next[index];
        while let Some(index) = after {
            self.outcomes[index].get_or_insert(Outcome::Withheld);
            after = self.next[index];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::ReasonKind;

    fn message(destination: u8, key: Option<u8>) -> Message {
        Message {
            id: String::new(),
            destination: destination.to_string(),
            key: key.map(|key| key.to_string()),
            event_type: String::new(),
            content_type: "".into(),
            headers: Vec::new(),
            payload: None,
            timestamp_ms: 0,
        }
    }

    fn refused() -> Outcome {
        Outcome::Transient(Reason::new(ReasonKind::Refused, "no"))
    }

    /// What a broker may say; `None` is silence.
    fn answer() -> impl Strategy<Value = Option<Outcome>> {
        prop_oneof![
            8 => Just(Some(Outcome::Published)),
            1 => Just(None),
            1 => Just(Some(refused())),
            1 => Just(Some(Outcome::Unavailable(Unavailable::destination("gone")))),
        ]
    }

    fn failed(outcome: Option<&Outcome>) -> bool {
        outcome.is_some_and(|outcome| *outcome != Outcome::Published)
    }

    /// Sends everything the plan gives out, checks it against what was said so far, and answers in
    /// any order.
    fn send(
        messages: &[Message],
        order: Order,
        invalid: &HashSet<usize>,
        most: usize,
        mut answers: impl Iterator<Item = (usize, Option<Outcome>)>,
    ) -> Vec<Outcome> {
        let reason = |index: &usize| (*index, Reason::new(ReasonKind::Invalid, "bad"));
        let refs: Vec<&Message> = messages.iter().collect();
        let mut plan = Plan::new(&refs, order, invalid.iter().map(reason).collect());
        let mut said: HashMap<usize, Option<Outcome>> = HashMap::new();
        let mut flying = Vec::new();
        loop {
            for index in plan.wave(most - flying.len()) {
                assert!(!invalid.contains(&index));
                check_sent(messages, order, &said, &flying, index);
                flying.push(index);
            }
            if flying.is_empty() {
                return plan.finish(&Unavailable::sink("not sent"));
            }
            let (which, answer) = answers.next().expect("endless");
            let silent = answer.is_none();
            let mut answered = vec![(flying.remove(which % flying.len()), answer)];
            if silent {
                // The channel is gone, and the answers to the others with it.
                answered.extend(flying.drain(..).map(|index| (index, None)));
                answered.sort_by_key(|(index, _)| *index);
            }
            said.extend(answered.clone());
            plan.settle(answered);
        }
    }

    /// The lemma: a message is sent behind all earlier ones of its key, none of which failed.
    fn check_sent(
        messages: &[Message],
        order: Order,
        said: &HashMap<usize, Option<Outcome>>,
        flying: &[usize],
        index: usize,
    ) {
        let message = &messages[index];
        for (other, before) in messages.iter().enumerate() {
            let outcome = said.get(&other).and_then(Option::as_ref);
            if before.destination == message.destination {
                let gone = matches!(outcome, Some(Outcome::Unavailable(_)));
                assert!(!gone, "{index} sent to a destination that {other} lacked");
            }
            let same = before.destination == message.destination && before.key == message.key;
            if other >= index || message.key.is_none() || !same {
                continue;
            }
            assert!(
                !failed(outcome),
                "{index} sent behind {other}, which failed"
            );
            let confirmed = outcome == Some(&Outcome::Published);
            let ahead = order == Order::Pipelined && flying.contains(&other);
            assert!(confirmed || ahead, "{index} sent before {other}");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_sent_as_an_unbroken_run_whatever_the_broker_says(
            rows in prop::collection::vec((0..3u8, prop::option::weighted(0.9, 0..4u8)), 0..60),
            invalid in prop::collection::hash_set(0..60usize, 0..3),
            answers in prop::collection::vec((any::<usize>(), answer()), 400),
            most in 1..20usize,
            strict in any::<bool>(),
        ) {
            let messages: Vec<_> = rows.iter().map(|(to, key)| message(*to, *key)).collect();
            let invalid: HashSet<_> = invalid.into_iter().filter(|index| *index < rows.len()).collect();
            let order = if strict { Order::Strict } else { Order::Pipelined };
            // A broker that never answers would be asked for ever: the caller has a deadline.
            let answers = answers.into_iter().chain(std::iter::repeat((0, Some(Outcome::Published))));
            let outcomes = send(&messages, order, &invalid, most, answers);
            prop_assert_eq!(outcomes.len(), messages.len());
            for index in &invalid {
                prop_assert!(matches!(outcomes[*index], Outcome::Rejected(_) | Outcome::Withheld));
            }
            if strict {
                check_runs(&messages, &outcomes);
            }
        }
    }

    /// In strict order a key's outcomes are: published ones, at most one failure, withheld ones.
    fn check_runs(messages: &[Message], outcomes: &[Outcome]) {
        let mut over = HashSet::new();
        for (message, outcome) in messages.iter().zip(outcomes) {
            let Some(key) = &message.key else { continue };
            let run = (&message.destination, key);
            if over.contains(&run) {
                assert_eq!(*outcome, Outcome::Withheld);
            } else if *outcome != Outcome::Published {
                over.insert(run);
            }
        }
    }

    #[test]
    fn a_message_that_was_sent_keeps_its_outcome_behind_a_failure() {
        let messages = [
            message(0, Some(0)),
            message(0, Some(0)),
            message(0, Some(0)),
        ];
        let messages = messages.each_ref();
        let mut plan = Plan::new(&messages, Order::Pipelined, HashMap::new());
        assert_eq!(plan.wave(2), [0, 1]);
        plan.settle(vec![(0, Some(refused())), (1, Some(Outcome::Published))]);
        assert!(plan.wave(9).is_empty());
        let expected = [refused(), Outcome::Published, Outcome::Withheld];
        assert_eq!(plan.finish(&Unavailable::sink("")), expected);
    }

    #[test]
    fn a_refusal_of_all_names_each_destination_once() {
        let to = [0, 1, 0, 1];
        let messages = to.map(|destination| message(destination, None));
        let messages = messages.each_ref();
        let mut plan = Plan::new(&messages, Order::Strict, HashMap::new());
        let refusal = Unavailable::destination("no exchange");
        plan.refuse_all(&refusal);
        let refused = Outcome::Unavailable(refusal);
        let expected = [
            refused.clone(),
            refused,
            Outcome::Withheld,
            Outcome::Withheld,
        ];
        assert_eq!(plan.finish(&Unavailable::sink("")), expected);
    }

    #[test]
    fn without_a_broker_the_first_of_each_key_says_so() {
        let messages = [message(0, Some(0)), message(0, Some(0)), message(0, None)];
        let gone = Unavailable::sink("gone");
        for order in [Order::Strict, Order::Pipelined] {
            let outcomes = Plan::new(&messages.each_ref(), order, HashMap::new()).finish(&gone);
            let unavailable = Outcome::Unavailable(gone.clone());
            assert_eq!(
                outcomes,
                [unavailable.clone(), Outcome::Withheld, unavailable]
            );
        }
    }
}
