//! Kafka: topics by name, the key's partition, librdkafka's idempotent producer.
//!
//! # Design notes
//!
//! **What keeps the order.** Every batch sends, per (topic, key), an unbroken run that starts at
//! the first message given. Three things could break a run on its way, and each has its answer:
//!
//! * *A message fails and later ones of its key pass it.* librdkafka's idempotent producer goes on
//!   after a refused message. With `enable.gapless.guarantee` it dies instead, and a new generation
//!   is made. `message.timeout.ms` is twice the publish timeout, so that no message expires alone.
//! * *A partition does not know the producer yet*, and takes the second request after refusing the
//!   first: see `topics`. So a topic's first batches go in two waves, each key's first message
//!   and, when those are confirmed, the rest.
//! * *A purge takes the first half of a run.* A generation is condemned under a lock that excludes
//!   handing over, and takes nothing afterwards; a batch stays with its generation to the end.
//!
//! **A generation** (`producer`) is a client, its poll thread and its batches. It is condemned at
//! the deadline of a batch and by fatal errors, for all workers at once: librdkafka can purge
//! everything or nothing. What was unconfirmed goes back uncharged, and its late reports find no
//! batch.
//!
//! **Who is to blame.** A broker answers for a request, not for a message: one message that is too
//! large fails hundreds. Those are sent again by a second producer (`solo`), singly, until the
//! culprit shows; only it is charged.
//!
//! **Topics** are looked up before the first message is handed over, so that no part of a run is
//! sent to a topic that appears meanwhile. They are never created here.

mod attempt;
mod config;
mod context;
mod errors;
mod options;
mod partitioner;
mod producer;
mod reports;
mod solo;
mod topics;
mod waves;
mod wire;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{error::KafkaError, producer::BaseRecord};
use tokio::{sync::Mutex as AsyncMutex, task::spawn_blocking, time::Instant};

pub use self::config::{KafkaArgs, KafkaConfig};
pub(crate) use self::partitioner::Partitioner;
use self::{attempt::Attempt, producer::Producer};
use super::{Outcome, Sink, Unavailable};
use crate::event::Message;

/// How long reports are waited for at a time: see [`Producer::start`].
const POLL: Duration = Duration::from_secs(5);
/// The same for a producer of a few messages.
const SOLO_POLL: Duration = Duration::from_millis(100);

/// A probe asks again soon; it need not wait long.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// Kept back from the publish timeout.
const WIND_UP_TIME: Duration = Duration::from_secs(2);

/// Publishes to Kafka.
pub struct KafkaSink {
    config: KafkaConfig,
    publish_timeout: Duration,
    /// The generation in use.
    current: AsyncMutex<Arc<Producer>>,
    /// Topics that refused us. They are tried with one message by a producer of its own, since the
    /// refusal ends the generation for all workers.
    denied: Mutex<HashSet<String>>,
}

impl KafkaSink {
    /// A sink that publishes, or gives up, within that time. The brokers need not be there.
    ///
    /// # Errors
    /// What librdkafka says against the options; `KafkaArgs::validate` finds it earlier.
    pub fn new(config: KafkaConfig, publish_timeout: Duration) -> Result<Self, KafkaError> {
        let producer = Producer::start(&config.pipelined(), POLL)?;
        Ok(Self {
            config,
            publish_timeout,
            current: AsyncMutex::new(Arc::new(producer)),
            denied: Mutex::default(),
        })
    }

    /// The generation in use, or a new one after its end.
    async fn producer(&self) -> Result<Arc<Producer>, Unavailable> {
        let mut current = self.current.lock().await;
        if current.is_over() {
            let reason = match current.fatal_error() {
                Some((_, text)) => text,
                None => "a batch was not confirmed in time".into(),
            };
            tracing::info!(reason, "starting a new Kafka producer");
            *current = start(self.config.pipelined(), POLL).await?;
        }
        Ok(Arc::clone(&current))
    }
}

/// What is sent for a message, or why nothing can be.
pub(crate) fn record(message: &Message) -> Result<BaseRecord<'_, str, [u8], usize>, String> {
    match wire::topic_name_problem(&message.destination) {
        Some(problem) => Err(problem),
        None => Ok(wire::record(message, 0)),
    }
}

/// Starts a generation off the async threads: it may read certificates.
async fn start(
    config: rdkafka::ClientConfig,
    poll_for: Duration,
) -> Result<Arc<Producer>, Unavailable> {
    off_thread(move || {
        let producer = Producer::start(&config, poll_for);
        producer.map(Arc::new).map_err(|error| match error {
            KafkaError::ClientCreation(text) => Unavailable::sink(text),
            _ => Unavailable::sink("the Kafka producer could not be rebuilt"),
        })
    })
    .await
}

/// Runs what blocks.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unavailable> + Send + 'static,
) -> Result<T, Unavailable> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Unavailable::sink(error.to_string())))
}

#[async_trait]
impl Sink for KafkaSink {
    fn name(&self) -> &'static str {
        "kafka"
    }

    async fn publish(&self, messages: &[&Message]) -> Vec<Outcome> {
        let limit = Instant::now() + self.publish_timeout;
        // The rest of the time is for condemning the generation, and for hearing what became of it.
        let deadline = limit - (self.publish_timeout / 4).min(WIND_UP_TIME);
        Attempt::new(self, messages, deadline, limit)
            .publish()
            .await
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        let producer = self.producer().await?;
        off_thread(move || producer.ping(PROBE_TIME)).await
    }

    async fn probe_destination(&self, destination: &str) -> Result<(), Unavailable> {
        if let Some(problem) = wire::topic_name_problem(destination) {
            return Err(Unavailable::destination(problem));
        }
        let producer = self.producer().await?;
        let topic = destination.to_owned();
        off_thread(move || producer.look_up(&topic, PROBE_TIME).map(drop)).await
    }

    fn max_message_bytes(&self) -> usize {
        self.config.max_message_bytes()
    }

    async fn close(&self) {
        let limit = Instant::now() + WIND_UP_TIME;
        self.current.lock().await.condemn(limit).await;
    }
}
