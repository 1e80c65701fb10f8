//! One batch on its way: checked, handed over (see `waves`), and answered for.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::{Instant, timeout_at};

use super::{
    KafkaSink,
    errors::{self, Meaning},
    off_thread,
    producer::{Batch, Producer},
    wire,
};
use crate::{
    event::Message,
    lock::lock,
    sink::{Outcome, Reason, ReasonKind, Scope, Unavailable},
};

/// A topic that is not found in this time is not looked for any longer.
const LOOK_UP_TIME: Duration = Duration::from_secs(10);

/// What orders messages: destination and key.
type Lane<'a> = (&'a str, &'a str);

/// A batch, and what is decided about its messages so far.
pub(super) struct Attempt<'a> {
    pub(super) sink: &'a KafkaSink,
    pub(super) messages: &'a [&'a Message],
    /// When to stop waiting for confirms.
    pub(super) deadline: Instant,
    /// When to return, whatever is known by then.
    limit: Instant,
    outcomes: Vec<Option<Outcome>>,
    /// Keys of which a message failed: nothing more of them is sent in this batch.
    pub(super) held: HashSet<Lane<'a>>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        sink: &'a KafkaSink,
        messages: &'a [&'a Message],
        deadline: Instant,
        limit: Instant,
    ) -> Self {
        Self {
            sink,
            messages,
            deadline,
            limit,
            outcomes: vec![None; messages.len()],
            held: HashSet::new(),
        }
    }

    pub(super) async fn publish(mut self) -> Vec<Outcome> {
        self.reject_illegal();
        let rest = match self.try_all().await {
            Ok(()) => Outcome::Withheld,
            Err(unavailable) => Outcome::Unavailable(unavailable),
        };
        let outcomes = self.outcomes.into_iter();
        outcomes
            .map(|o| o.unwrap_or_else(|| rest.clone()))
            .collect()
    }

    /// An error is the outcome of all that is not decided.
    async fn try_all(&mut self) -> Result<(), Unavailable> {
        let producer = self.sink.producer().await?;
        self.find_topics(&producer).await?;
        self.try_denied_topics().await?;
        let batch = producer.batch(self.messages.len());
        if !self.send_in_waves(&batch).await {
            producer.condemn(self.limit).await;
            let _ = timeout_at(self.limit, batch.reports.complete()).await;
        }
        if producer.is_over() {
            // The next one gets its connections and its id meanwhile; if not, the next batch tells.
            let _ = self.sink.producer().await;
        }
        self.answer(&batch).await
    }

    /// The lane of a message; without a key it has no order to keep.
    pub(super) fn lane(&self, index: usize) -> Option<Lane<'a>> {
        let message = self.messages[index];
        Some((&message.destination, message.key.as_deref()?))
    }

    /// Whether an earlier message of its key failed.
    pub(super) fn is_held(&self, index: usize) -> bool {
        let held = |lane| self.held.contains(&lane);
        !self.held.is_empty() && self.lane(index).is_some_and(held)
    }

    pub(super) fn undecided(&self) -> impl Iterator<Item = usize> {
        let undecided = self.outcomes.iter().enumerate();
        undecided.filter_map(|(index, outcome)| outcome.is_none().then_some(index))
    }

    /// Settles a message's outcome; unless it was published, its key sends no more.
    pub(super) fn decide(&mut self, index: usize, outcome: Outcome) {
        if outcome != Outcome::Published {
            self.held.extend(self.lane(index));
        }
        self.outcomes[index] = Some(outcome);
    }

    /// Rejects what has no topic it could go to: the first of each key, as the later ones wait for
    /// what becomes of it.
    fn reject_illegal(&mut self) {
        let mut legal = None; // the last topic found so: batches have few
        for (index, message) in self.messages.iter().enumerate() {
            if legal == Some(&message.destination) {
                continue;
            }
            match wire::topic_name_problem(&message.destination) {
                None => legal = Some(&message.destination),
                Some(_) if self.is_held(index) => self.decide(index, Outcome::Withheld),
                Some(problem) => {
                    let reason = Reason::new(ReasonKind::Invalid, problem);
                    self.decide(index, Outcome::Rejected(reason));
                }
            }
        }
    }

    /// Looks for the topics this generation does not know yet.
    async fn find_topics(&mut self, producer: &Arc<Producer>) -> Result<(), Unavailable> {
        let topics: BTreeSet<&'a str> = self.destinations().collect();
        let mut missing = topics.into_iter().map(str::to_owned).collect::<Vec<_>>();
        missing.retain(|topic| !producer.topics.knows(topic));
        if missing.is_empty() {
            return Ok(());
        }
        let until = self.deadline.min(Instant::now() + LOOK_UP_TIME);
        let asked = Arc::clone(producer);
        let problems = off_thread(move || look_up(&asked, missing, until)).await?;
        for index in self.undecided().collect::<Vec<_>>() {
            if let Some(problem) = problems.get(&self.messages[index].destination) {
                self.decide(index, Outcome::Unavailable(problem.clone()));
            }
        }
        Ok(())
    }

    /// Destinations of the undecided messages, without most of the repetitions.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &'a str> {
        let messages = self.messages;
        let mut last = None;
        self.undecided().filter_map(move |index| {
            let destination = messages[index].destination.as_str();
            (last.replace(destination) != Some(destination)).then_some(destination)
        })
    }

    /// Decides about every message that was handed over.
    async fn answer(&mut self, batch: &Batch<'_>) -> Result<(), Unavailable> {
        let confirmed = |&index: &usize| batch.reports.confirmed(index).is_some();
        for index in self.undecided().filter(confirmed).collect::<Vec<_>>() {
            self.decide(index, Outcome::Published);
        }
        let mut suspects = Vec::new();
        for (index, code) in batch.reports.failures() {
            let topic = &self.messages[index].destination;
            match errors::meaning(code) {
                Meaning::Refused(_) if defect!(ChargeNeighbours) => {
                    self.decide(index, errors::alone(code, self.messages[index]));
                }
                Meaning::Refused(_) => suspects.push((index, code)),
                Meaning::Purged | Meaning::Unanswered => {}
                Meaning::UnknownTopic => {
                    batch.producer.topics.forget(topic);
                    self.decide(index, errors::alone(code, self.messages[index]));
                }
                Meaning::Denied => {
                    lock(&self.sink.denied).insert(topic.clone());
                    self.decide(index, errors::alone(code, self.messages[index]));
                }
            }
        }
        if !suspects.is_empty() {
            return self.isolate(&suspects).await;
        }
        self.blame_for_silence(batch);
        Ok(())
    }

    /// Decides about messages that were handed over and got no answer.
    fn blame_for_silence(&mut self, batch: &Batch<'_>) {
        let sent = |&index: &usize| batch.reports.was_sent(index);
        let silent: Vec<usize> = self.undecided().filter(sent).collect();
        if silent.is_empty() {
            if !batch.reports.any_failed() {
                batch.producer.context().clear_trouble();
            }
            return;
        }
        let fatal = batch.producer.fatal_error();
        let timed_out = Instant::now() >= self.deadline;
        let any_confirmed = self.outcomes.contains(&Some(Outcome::Published));
        let failures = batch.reports.failures();
        for index in silent {
            let topic = &self.messages[index].destination;
            let code = failures.get(&index).copied().unwrap_or(Code::PurgeInflight);
            let unavailable = match &fatal {
                _ if errors::meaning(code) != Meaning::Purged => {
                    Unavailable::sink(code.to_string())
                }
                // Another message was refused, which says nothing about this one.
                Some((Code::GaplessGuarantee, _)) => continue,
                Some((code, text)) => errors::fatal(*code, text),
                // Another worker's deadline ended the generation.
                None if !timed_out => continue,
                None if any_confirmed => errors::silent_topic(topic),
                None => self.silent_broker(batch),
            };
            self.decide(index, Outcome::Unavailable(unavailable));
        }
    }

    fn silent_broker(&self, batch: &Batch<'_>) -> Unavailable {
        let trouble = batch.producer.context().trouble();
        let after = trouble.map_or(String::new(), |trouble| format!(": {trouble}"));
        Unavailable::sink(format!(
            "Kafka at {} did not confirm in time{after}",
            self.sink.config.brokers()
        ))
    }
}

/// Looks topics up; what stands against each. An error says that nothing can be known.
fn look_up(
    producer: &Producer,
    topics: Vec<String>,
    until: Instant,
) -> Result<HashMap<String, Unavailable>, Unavailable> {
    let mut problems = HashMap::new();
    for topic in topics {
        let wait = until.saturating_duration_since(Instant::now());
        match producer.look_up(&topic, wait) {
            Ok(partitions) => producer.topics.add(&topic, partitions),
            Err(problem) if problem.scope == Scope::Destination => {
                problems.insert(topic, problem);
            }
            Err(problem) => return Err(problem),
        }
    }
    Ok(problems)
}
