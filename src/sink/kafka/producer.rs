//! One generation of the producer: a librdkafka client, its poll thread, what it knows of topics.

use std::{
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{BaseProducer, Producer as _, PurgeConfig},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{context::Context, errors, reports::Reports, topics::Topics, wire};
use crate::{event::Message, sink::Unavailable};

/// A generation. It ends by a fatal error or by `condemn`, and then takes no message any more.
pub(super) struct Producer {
    client: Arc<BaseProducer<Context>>,
    /// Held for reading while messages are handed over, for writing while the generation is
    /// condemned: so no message follows one that was purged.
    gate: RwLock<()>,
    /// Set when it is condemned: the fatal error before that, if any.
    died_of: OnceLock<Option<(Code, String)>>,
    pub(super) topics: Topics,
}

impl Producer {
    /// Starts a generation; the brokers need not be there. It outlives its last owner by `poll_for` at
    /// most. rdkafka spins through the last millisecond of each poll: of 100 ms that was a hundredth of
    /// a core for an idle relay.
    pub(super) fn start(config: &ClientConfig, poll_for: Duration) -> Result<Self, KafkaError> {
        let client = BaseProducer::from_config_and_context(config, Context::default())?;
        let client = Arc::new(client);
        let polled = Arc::clone(&client);
        let poll = move || {
            // Ends with the last other owner, so that the client is dropped here: its drop blocks.
            while Arc::strong_count(&polled) > 1 {
                polled.poll(poll_for);
            }
        };
        std::thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(poll)
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self {
            client,
            gate: RwLock::default(),
            died_of: OnceLock::new(),
            topics: Topics::default(),
        })
    }

    pub(super) fn context(&self) -> &Context {
        self.client.context()
    }

    /// Whether it takes no message any more.
    pub(super) fn is_over(&self) -> bool {
        self.context().is_condemned() || self.fatal_error().is_some()
    }

    /// The fatal error it died of; none if it was condemned before.
    pub(super) fn fatal_error(&self) -> Option<(Code, String)> {
        let died_of = self.died_of.get().cloned();
        died_of.unwrap_or_else(|| self.client.client().fatal_error())
    }

    /// Begins a batch of so many messages.
    pub(super) fn batch(&self, messages: usize) -> Batch<'_> {
        let reports = Arc::new(Reports::new(messages));
        let number = self.context().register(&reports);
        Batch {
            producer: self,
            reports,
            number,
        }
    }

    /// Ends the generation: what is queued or in flight is reported as purged, and nothing is taken
    /// any more. Waits for that until `limit`: a broker's thread may be busy resolving a name.
    pub(super) async fn condemn(self: &Arc<Self>, limit: Instant) {
        let this = Arc::clone(self);
        let purge = spawn_blocking(move || {
            let _closed = this.gate.write().unwrap_or_else(PoisonError::into_inner);
            // The purge itself leads to a fatal error, which would tell nothing.
            this.died_of
                .get_or_init(|| this.client.client().fatal_error());
            this.context().condemn();
            this.client.purge(PurgeConfig::default().queue().inflight());
        });
        let _ = timeout_at(limit, purge).await;
    }

    /// Asks for the number of a topic's partitions, all of which must have a leader. Blocks.
    pub(super) fn look_up(&self, topic: &str, wait: Duration) -> Result<usize, Unavailable> {
        let client = self.client.client();
        let metadata = client
            .fetch_metadata(Some(topic), wait)
            .map_err(|error| self.silent(&error))?;
        let Some(found) = metadata.topics().first() else {
            return Err(errors::unknown_topic(topic));
        };
        if let Some(code) = found.error() {
            return Err(errors::topic_problem(topic, code.into()));
        }
        match found.partitions().iter().find(|part| part.leader() < 0) {
            Some(part) => Err(errors::leaderless(topic, part.id())),
            None => Ok(found.partitions().len()),
        }
    }

    /// Asks any broker for anything. Blocks.
    pub(super) fn ping(&self, wait: Duration) -> Result<(), Unavailable> {
        match self.client.client().fetch_metadata(None, wait) {
            Ok(_) => {
                self.context().clear_trouble();
                Ok(())
            }
            Err(error) => Err(self.silent(&error)),
        }
    }

    /// That no broker answered, and why, as far as librdkafka knows.
    fn silent(&self, error: &KafkaError) -> Unavailable {
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        let trouble = self.context().trouble();
        Unavailable::sink(trouble.unwrap_or_else(|| code.to_string()))
    }
}

/// A batch in flight in one generation. Late reports find nothing once it is dropped.
pub(super) struct Batch<'a> {
    pub(super) producer: &'a Producer,
    pub(super) reports: Arc<Reports>,
    number: usize,
}

/// How much of a generation's open gate a batch holds.
pub(super) struct Gate<'a> {
    batch: &'a Batch<'a>,
    _open: RwLockReadGuard<'a, ()>,
}

impl Batch<'_> {
    /// The way in, unless the generation is over. Not to be held for long.
    pub(super) fn gate(&self) -> Option<Gate<'_>> {
        let open = self.producer.gate.read();
        let open = open.unwrap_or_else(PoisonError::into_inner);
        (!self.producer.is_over()).then_some(Gate {
            batch: self,
            _open: open,
        })
    }

    /// Waits until everything handed over is reported, the generation is over, or time is up;
    /// whether all is reported.
    pub(super) async fn reported(&self, deadline: Instant) -> bool {
        let mut troubles = self.producer.context().troubles();
        let over = async { while !self.producer.is_over() && troubles.changed().await.is_ok() {} };
        tokio::select! {
            biased;
            () = self.reports.complete() => true,
            () = over => false,
            () = tokio::time::sleep_until(deadline) => false,
        }
    }
}

impl Gate<'_> {
    /// Hands a message over.
    pub(super) fn send(&self, index: usize, message: &Message) -> Result<(), Code> {
        let Batch {
            producer,
            reports,
            number,
        } = self.batch;
        let record = wire::record(message, Context::opaque(*number, index));
        reports.expect(index);
        producer.client.send(record).map_err(|(error, _)| {
            reports.unexpect(index);
            error.rdkafka_error_code().unwrap_or(Code::InvalidRecord)
        })
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.producer.context().unregister(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condemned_generation_purges_its_batches_and_takes_nothing_more() {
        let producer = Arc::new(Producer::start(&ClientConfig::new(), Duration::ZERO).unwrap());
        let message = Message {
            id: "1".into(),
            destination: "orders".into(),
            key: None,
            event_type: "OrderPlaced".into(),
            content_type: "application/json".into(),
            headers: Vec::new(),
            payload: None,
            timestamp_ms: 0,
        };
        let batch = producer.batch(2);
        batch.gate().unwrap().send(0, &message).unwrap();
        batch.reports.close();
        let limit = Instant::now() + Duration::from_secs(5);
        assert!(!batch.reported(Instant::now()).await);
        producer.condemn(limit).await;
        timeout_at(limit, batch.reports.complete()).await.unwrap();
        assert_eq!(batch.reports.failures()[&0], Code::PurgeQueue);
        assert!(batch.gate().is_none());
        assert!(producer.batch(1).gate().is_none());
    }
}
