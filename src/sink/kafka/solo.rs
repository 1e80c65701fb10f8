//! Finding the culprit: one message at a time, by a producer that survives a refusal.

use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::Instant;

use super::{
    SOLO_POLL,
    attempt::Attempt,
    errors::{self, Meaning, Refusal},
    producer::Producer,
    start,
};
use crate::{
    event::Message,
    lock::lock,
    sink::{Outcome, Scope, Unavailable},
};

/// A producer with at most one message in flight, so that every answer is about that message.
struct Solo(Arc<Producer>);

impl Solo {
    /// What became of the message, or `None` if no answer came in time.
    async fn publish(&self, message: &Message, deadline: Instant) -> Option<Outcome> {
        let batch = self.0.batch(1);
        let sent = batch.gate()?.send(0, message);
        batch.reports.close();
        if let Err(code) = sent {
            return Some(errors::alone(code, message));
        }
        if !batch.reported(deadline).await {
            return None;
        }
        match batch.reports.failures().get(&0) {
            None => Some(Outcome::Published),
            Some(&code) => Some(errors::alone(code, message)),
        }
    }
}

impl Attempt<'_> {
    /// Sends the suspects singly until one is refused. They all failed with the request of one of
    /// them.
    pub(super) async fn isolate(&mut self, suspects: &[(usize, Code)]) -> Result<(), Unavailable> {
        let solo = Solo(start(self.sink.config.solo(), SOLO_POLL).await?);
        for index in self.by_suspicion(suspects) {
            let message = &self.messages[index];
            let Some(outcome) = solo.publish(message, self.deadline).await else {
                return Ok(());
            };
            let innocent = outcome == Outcome::Published;
            self.decide(index, outcome);
            if !innocent {
                return Ok(());
            }
        }
        tracing::warn!(
            messages = suspects.len(),
            "Kafka refused a request, and none of its messages sent alone; if a topic's \
             max.message.bytes is below 1 MB, set --kafka-option batch.size below it"
        );
        Ok(())
    }

    /// The order in which suspects are tried: the batch's, but where something was too large, the
    /// largest message first (after the earlier ones of its key).
    fn by_suspicion(&self, suspects: &[(usize, Code)]) -> Vec<usize> {
        let mut order = self.unpassed(suspects);
        let too_large = Meaning::Refused(Refusal::TooLarge);
        let large = |&&(_, code): &&(usize, Code)| errors::meaning(code) == too_large;
        let size = |&(index, _): &(usize, Code)| self.messages[index].size();
        let largest = suspects.iter().filter(large).copied().max_by_key(size);
        if let Some((largest, _)) = largest {
            let lane = self.lane(largest);
            // Stable: within keys the order stays.
            order.sort_by_key(|&index| match lane {
                Some(_) => self.lane(index) != lane,
                None => index != largest,
            });
        }
        order
    }

    /// Suspects that do not pass an undecided message of their key which is none.
    fn unpassed(&self, suspects: &[(usize, Code)]) -> Vec<usize> {
        let mut blocked = self.held.clone();
        let mut suspects = suspects.iter().map(|&(index, _)| index).peekable();
        let mut order = Vec::new();
        for index in self.undecided() {
            let suspect = suspects.next_if_eq(&index).is_some();
            let lane = self.lane(index);
            if suspect && !lane.is_some_and(|lane| blocked.contains(&lane)) {
                order.push(index);
            } else {
                blocked.extend(lane);
            }
        }
        order
    }

    /// Tries topics that denied us with one message each, apart from everyone else's.
    pub(super) async fn try_denied_topics(&mut self) -> Result<(), Unavailable> {
        let denied = lock(&self.sink.denied).clone();
        if denied.is_empty() {
            return Ok(());
        }
        for topic in denied {
            let to_topic = |&index: &usize| self.messages[index].destination == topic;
            let all: Vec<usize> = self.undecided().filter(to_topic).collect();
            let Some(&first) = all.first() else { continue };
            let solo = Solo(start(self.sink.config.solo(), SOLO_POLL).await?);
            let outcome = solo.publish(self.messages[first], self.deadline).await;
            let outcome = outcome.unwrap_or(Outcome::Withheld);
            if outcome == Outcome::Published {
                lock(&self.sink.denied).remove(&topic);
                self.decide(first, outcome);
                continue;
            }
            let for_all = match &outcome {
                Outcome::Unavailable(unavailable) if unavailable.scope == Scope::Destination => {
                    outcome.clone()
                }
                _ => Outcome::Withheld,
            };
            self.decide(first, outcome);
            for &index in &all[1..] {
                self.decide(index, for_all.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        settings::Problems,
        sink::kafka::{KafkaArgs, KafkaSink},
    };

    fn message(key: Option<&str>, bytes: usize) -> Message {
        Message {
            id: String::new(),
            destination: "orders".into(),
            key: key.map(str::to_owned),
            event_type: String::new(),
            content_type: "".into(),
            headers: Vec::new(),
            payload: Some(vec![0; bytes]),
            timestamp_ms: 0,
        }
    }

    /// The order in which suspects are tried, given keys and sizes.
    fn order(
        messages: &[Message],
        published: &[usize],
        suspects: &[usize],
        code: Code,
    ) -> Vec<usize> {
        let args = KafkaArgs {
            kafka_brokers: Some("127.0.0.1:1".into()),
            ..KafkaArgs::default()
        };
        let timeout = Duration::from_secs(1);
        let config = args.validate(&mut Problems::default(), timeout).unwrap();
        let sink = KafkaSink::new(config, timeout).unwrap();
        let now = Instant::now();
        let messages: Vec<&Message> = messages.iter().collect();
        let mut attempt = Attempt::new(&sink, &messages, now, now);
        for &index in published {
            attempt.decide(index, Outcome::Published);
        }
        let suspects: Vec<_> = suspects.iter().map(|&index| (index, code)).collect();
        attempt.by_suspicion(&suspects)
    }

    #[test]
    fn suspects_do_not_pass_what_got_no_answer() {
        let messages = ["a", "b", "a", "b", "a"].map(|key| message(Some(key), 1));
        let code = Code::InvalidRecord;
        assert_eq!(order(&messages, &[0], &[1, 2, 3, 4], code), [1, 2, 3, 4]);
        assert_eq!(order(&messages, &[0], &[1, 3, 4], code), [1, 3]);
        assert!(order(&messages, &[], &[2, 3, 4], code).is_empty());
    }

    #[test]
    fn the_largest_is_tried_first_but_not_before_its_key() {
        let keys = [Some("a"), Some("b"), None, Some("a"), Some("b"), None];
        let sizes = [1, 1, 1, 1, 90, 2];
        let mut messages: Vec<_> = (0..6).map(|i| message(keys[i], sizes[i])).collect();
        let all = [0, 1, 2, 3, 4, 5];
        let code = Code::MessageSizeTooLarge;
        assert_eq!(order(&messages, &[], &all, code), [1, 4, 0, 2, 3, 5]);
        assert_eq!(order(&messages, &[], &all, Code::InvalidRecord), all);
        messages[5] = message(None, 100);
        assert_eq!(order(&messages, &[], &all, code), [5, 0, 1, 2, 3, 4]);
    }
}
