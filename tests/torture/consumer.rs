//! A consumer that reads along, and notes when each message came.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use futures_util::StreamExt as _;
use lapin::{
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::{
    common::{
        broker::{Broker, Delivery, Kind},
        kafka,
        relay::until,
    },
    history::Arrival,
    writers::{self, Journal},
};

pub const PARTITIONS: i32 = 4;
const PREFETCH: u16 = 1000;
/// Where the queue is to fill up: so many at once, each of which takes so long.
const SLOW_PREFETCH: u16 = 2;
const SLOW: Duration = Duration::from_millis(1);

/// Reads a topic or a queue until it is told that all is there.
pub struct Reader {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    broker: Kind,
    address: String,
    destination: String,
    journal: Arc<Journal>,
    arrivals: Mutex<Vec<Arrival>>,
    stop: AtomicBool,
}

impl Reader {
    pub fn start(broker: &Broker, destination: &str, journal: &Arc<Journal>) -> Self {
        let shared = Arc::new(Shared {
            broker: broker.kind,
            address: broker.address.clone(),
            destination: destination.to_owned(),
            journal: Arc::clone(journal),
            arrivals: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let reading = Arc::clone(&shared);
        let thread = std::thread::spawn(move || match reading.broker {
            Kind::Kafka => reading.read_kafka(),
            Kind::Rabbitmq => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(reading.read_rabbitmq());
            }
        });
        Self { shared, thread }
    }

    /// How many have arrived.
    pub fn count(&self) -> usize {
        self.shared.arrivals.lock().unwrap().len()
    }

    /// Reads what is left, once nobody publishes any more, and gives all arrivals.
    pub async fn finish(self) -> Vec<Arrival> {
        let shared = &self.shared;
        match shared.broker {
            Kind::Kafka => {
                let (address, topic) = (shared.address.clone(), shared.destination.clone());
                let high = tokio::task::spawn_blocking(move || end_of(&address, &topic));
                let high = high.await.unwrap();
                until("the topic is read to its end", || async {
                    self.count() >= high
                })
                .await;
            }
            Kind::Rabbitmq => {
                until("the queue is read to its end", || async {
                    let before = self.count();
                    is_empty(&shared.address, &shared.destination).await && self.count() == before
                })
                .await;
            }
        }
        shared.stop.store(true, Relaxed);
        let thread = self.thread;
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
        std::mem::take(&mut self.shared.arrivals.lock().unwrap())
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn note(&self, delivery: &Delivery, n: Option<&str>) {
        let number = writers::number(&delivery.id);
        let expected = number.and_then(|number| self.journal.expected(number));
        let intact = expected.is_some_and(|(key, payload)| {
            delivery.key.as_deref() == Some(&key)
                && delivery.payload == payload.as_bytes()
                && n.map(str::parse) == number.map(Ok)
                && number.and_then(|number| self.journal.destination(number))
                    == Some(&self.destination)
        });
        self.arrivals.lock().unwrap().push(Arrival {
            number,
            intact,
            at: self.journal.started.elapsed(),
        });
    }

    fn read_kafka(&self) {
        let consumer = kafka_consumer(&self.address, &self.destination);
        while !self.stopped() {
            // After an error it connects again by itself.
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                let message = message.detach();
                let headers = kafka::headers(&message);
                let header = |name: &str| {
                    let found = headers.iter().find(|(header, _)| header == name);
                    found.map(|(_, value)| value.as_str())
                };
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let delivery = Delivery {
                    id: header("id").unwrap_or_default().to_owned(),
                    key: message.key().map(text),
                    payload: message.payload().unwrap_or_default().to_vec(),
                };
                self.note(&delivery, header("n"));
            }
        }
    }

    async fn read_rabbitmq(&self) {
        // What a lost connection had delivered and may not have acknowledged comes again.
        let mut unsure: Vec<String> = Vec::new();
        while !self.stopped() {
            if self.subscribe(&mut unsure).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn subscribe(&self, unsure: &mut Vec<String>) -> Result<(), lapin::Error> {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&self.address, properties).await?;
        let channel = connection.create_channel().await?;
        let slow = self.journal.load().refusable;
        let prefetch = if slow { SLOW_PREFETCH } else { PREFETCH };
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await?;
        let mut consumer = channel
            .basic_consume(
                self.destination.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let mut latest = std::collections::VecDeque::new();
        let ended = loop {
            let next = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
            match next {
                Err(_) if self.stopped() => break Ok(()),
                Err(_) => {}
                Ok(None) => break Ok(()),
                Ok(Some(Err(error))) => break Err(error),
                Ok(Some(Ok(delivery))) => {
                    let n = crate::common::rabbitmq::headers(&delivery);
                    let n = n.into_iter().find(|(name, _)| name == "n");
                    let (acker, redelivered) = (delivery.acker.clone(), delivery.redelivered);
                    let delivery = Delivery::of_rabbitmq(delivery);
                    let known = unsure
                        .iter()
                        .position(|id| redelivered && *id == delivery.id);
                    if let Some(known) = known {
                        unsure.swap_remove(known);
                    } else {
                        self.note(&delivery, n.as_ref().map(|(_, value)| value.as_str()));
                    }
                    latest.push_back(delivery.id);
                    if latest.len() > usize::from(PREFETCH) {
                        latest.pop_front();
                    }
                    if slow {
                        tokio::time::sleep(SLOW).await;
                    }
                    if let Err(error) = acker.ack(BasicAckOptions::default()).await {
                        break Err(error);
                    }
                }
            }
        };
        unsure.extend(latest);
        if ended.is_ok() {
            connection.close(200, "".into()).await?;
        }
        ended
    }
}

fn kafka_consumer(brokers: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "outboxd-torture")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions
            .add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&partitions).unwrap();
    consumer
}

/// How many messages were ever written to a topic.
fn end_of(brokers: &str, topic: &str) -> usize {
    let consumer = kafka_consumer(brokers, topic);
    let high = |partition| {
        let watermarks = consumer.fetch_watermarks(topic, partition, Duration::from_secs(30));
        usize::try_from(watermarks.unwrap().1).unwrap()
    };
    (0..PARTITIONS).map(high).sum()
}

/// Whether nothing waits in a queue.
async fn is_empty(url: &str, queue: &str) -> bool {
    let connection = crate::common::rabbitmq::connect(url).await;
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    let waiting = declared.await.unwrap().message_count();
    connection.close(200, "done".into()).await.unwrap();
    waiting == 0
}
