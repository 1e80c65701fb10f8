//! What a consumer gets from a broker.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Failure, common::broker::Broker, kafka, rabbitmq, shop::Counts};

/// Begins to read a topic or queue.
pub async fn consume(
    broker: &Broker,
    destination: &str,
    counts: Arc<Counts>,
) -> Result<Consumer, Failure> {
    let stop = CancellationToken::new();
    let arrivals = Arrivals::new(counts);
    let reading = match broker {
        Broker::Kafka(brokers) => {
            let consumer = kafka::consumer(brokers, destination)?;
            let stop = stop.clone();
            tokio::task::spawn_blocking(move || kafka::read(&consumer, &stop, arrivals))
        }
        Broker::Rabbitmq(url) => {
            let subscription = rabbitmq::subscribe(url, destination).await?;
            tokio::spawn(subscription.read(stop.clone(), arrivals))
        }
    };
    Ok(Consumer {
        reading,
        stop: stop.drop_guard(),
    })
}

/// A consumer at work; it stops when dropped.
pub struct Consumer {
    reading: JoinHandle<Result<Arrivals, Failure>>,
    stop: DropGuard,
}

impl Consumer {
    /// Stops it; gives all that it received, in the order of arrival.
    pub async fn finish(self) -> Result<Vec<Arrival>, Failure> {
        drop(self.stop);
        Ok(self.reading.await??.list)
    }
}

/// A message that was received.
pub struct Arrival {
    pub event_id: String,
    pub key: String,
    /// From the payload.
    pub sequence: i64,
    pub at: Instant,
}

impl Arrival {
    /// What a message of either broker tells.
    pub fn new(event_id: &str, key: &str, payload: &[u8]) -> Result<Self, Failure> {
        let at = Instant::now();
        let payload: serde_json::Value = serde_json::from_slice(payload)?;
        let sequence = payload["sequence"].as_i64();
        Ok(Self {
            event_id: event_id.to_owned(),
            key: key.to_owned(),
            sequence: sequence.ok_or("a payload without its sequence")?,
            at,
        })
    }
}

/// Everything received so far.
pub struct Arrivals {
    list: Vec<Arrival>,
    seen: HashSet<String>,
    counts: Arc<Counts>,
}

impl Arrivals {
    fn new(counts: Arc<Counts>) -> Self {
        Self {
            list: Vec::new(),
            seen: HashSet::new(),
            counts,
        }
    }

    pub fn push(&mut self, arrival: Arrival) {
        if self.seen.insert(arrival.event_id.clone()) {
            self.counts.received.fetch_add(1, Ordering::Relaxed);
        }
        self.list.push(arrival);
    }
}
