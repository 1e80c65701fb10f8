//! A rehearsal: what another relay sends, held against what outboxd would send. Nothing is published, and
//! nothing changes in the table or at the broker.
//!
//! # Design notes
//! * Where reading begins at the broker is fixed before the first look at the table: a row that appears
//!   after that look was sent after that beginning, so its message must come. What was there already may
//!   have been sent before.
//! * A relay reads committed rows, so the row of a message that arrived is there when it is looked up
//!   afterwards, or was deleted.
//! * The table is looked at as often as that costs little: a look, then ten times as long a rest.

mod compare;
mod findings;
mod json;
mod kafka;
mod ledger;
mod rabbitmq;
mod rehearsal;
mod sides;

use std::time::Duration;

pub use compare::Part;
pub use findings::{Counts, Example, Group, Kind};
pub use ledger::Ledger;
use rehearsal::Rehearsal;
pub use sides::Rules;
use sides::Theirs;
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    cloudevents::CloudEvents,
    event::Event,
    outbox::{DbError, Outbox},
    sink::{
        Sink,
        kafka::{KafkaConfig, KafkaSink},
        rabbitmq::{MAX_MESSAGE_BYTES, RabbitmqConfig},
    },
};

/// Messages read ahead of what is compared.
const CHANNEL: usize = 1000;
/// Where reading begins at Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is sent from now on.
    Now,
    /// With the oldest message there is.
    Beginning,
}

/// The broker that the other relay sends to.
pub enum Broker {
    /// Topics of Kafka.
    Kafka(KafkaConfig),
    /// Queues of RabbitMQ.
    Rabbitmq(RabbitmqConfig),
}

/// What is followed, and for how long.
pub struct Plan {
    /// The broker.
    pub broker: Broker,
    /// The form that outboxd would give messages, if not the plain one.
    pub format: Option<CloudEvents>,
    /// Its topics or queues.
    pub follow: Vec<String>,
    /// Where reading begins.
    pub start: Start,
    /// How long to follow.
    pub time: Option<Duration>,
    /// How many events to compare.
    pub events: Option<u64>,
    /// How long a row may wait for its message.
    pub grace: Duration,
    /// What matters for comparing.
    pub rules: Rules,
}

/// Why nothing can be followed.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// The database's fault.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The broker's.
    #[error("{0}")]
    Broker(String),
}

/// What came of it.
pub struct Outcome {
    /// What was found.
    pub ledger: Ledger,
    /// Why it ended before its time, if it did.
    pub failure: Option<String>,
    /// Whether rows came faster than they were read.
    pub outrun: bool,
}

/// Messages as they arrive, and why they end.
struct Stream {
    messages: mpsc::Receiver<Theirs>,
    failure: mpsc::Receiver<String>,
}

/// Tells a person what goes on.
pub trait Watcher {
    /// Something worth a line.
    fn note(&self, text: &str);
    /// How far it is.
    fn progress(&self, counts: &Counts);
}

impl Broker {
    async fn follow(&self, topics: &[String], start: Start) -> Result<Stream, ShadowError> {
        let following = match self {
            Self::Kafka(config) => {
                let (reader, topics) = (config.clone(), topics.to_vec());
                let following =
                    spawn_blocking(move || kafka::follow(&reader, &topics, start)).await;
                match following.unwrap_or_else(|error| Err(error.to_string())) {
                    Ok(stream) => Ok(stream),
                    // A sink hears more of why.
                    Err(error) => Err(trouble(config).await.unwrap_or(error)),
                }
            }
            Self::Rabbitmq(config) => rabbitmq::follow(config, topics).await,
        };
        following.map_err(ShadowError::Broker)
    }

    /// Bytes above which outboxd sends nothing.
    fn most(&self) -> usize {
        match self {
            Self::Kafka(config) => config.max_message_bytes(),
            Self::Rabbitmq(_) => MAX_MESSAGE_BYTES,
        }
    }

    fn ours(&self, event: &Event) -> Result<compare::Sent, String> {
        if let Some(reason) = &event.invalid {
            return Err(reason.to_string());
        }
        match self {
            Self::Kafka(_) => kafka::ours(&event.message),
            Self::Rabbitmq(config) => rabbitmq::ours(&event.message, config.exchange()),
        }
    }
}

impl Plan {
    /// What outboxd would send, or why it could not.
    fn ours(&self, event: &mut Event) -> Result<compare::Sent, String> {
        if let Some(format) = &self.format {
            format.apply(std::slice::from_mut(event));
        }
        self.broker.ours(event)
    }
}

/// What keeps a sink from using Kafka, if anything does.
async fn trouble(config: &KafkaConfig) -> Option<String> {
    let sink = KafkaSink::new(config.clone(), Duration::from_secs(5)).ok()?;
    let trouble = sink.probe().await.err();
    sink.close().await;
    trouble.map(|unavailable| unavailable.detail)
}

/// Follows until told to stop, or as long as planned.
///
/// # Errors
/// When it cannot begin.
pub async fn shadow(
    outbox: &Outbox,
    plan: Plan,
    watcher: &dyn Watcher,
    stop: CancellationToken,
) -> Result<Outcome, ShadowError> {
    let mut link = outbox.link().await?;
    match outbox.verify_mapping(&mut link).await {
        // Whoever only rehearses need not be allowed to mark rows.
        Err(error) if error.is_privilege() => link = outbox.link().await?,
        verified => verified?,
    }
    let mut stream = plan.broker.follow(&plan.follow, plan.start).await?;
    let mut rehearsal = Rehearsal::new(outbox, watcher, &plan, link);
    rehearsal.look().await?;
    watcher.note(&format!("following {}", plan.follow.join(", ")));
    // What was found until then is told all the same.
    let followed = rehearsal.follow(&mut stream, &stop).await;
    let failure = followed.unwrap_or_else(|error| Some(error.to_string()));
    let concluded = rehearsal.conclude(&mut stream).await;
    let failure = failure.or(concluded.err().map(|error| error.to_string()));
    Ok(rehearsal.end(failure).await)
}
