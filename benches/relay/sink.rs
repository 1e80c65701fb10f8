//! Publishing with nothing around it: as many messages as given, all confirmed.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use rdkafka::{
    ClientContext,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use tokio::sync::Notify;

use crate::common::{Failure, kafka};

/// Publishers at once: the relay's default `--workers`.
pub const PUBLISHERS: usize = 4;

/// Where to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kafka,
    /// A quorum queue of RabbitMQ.
    Quorum,
    /// A classic queue.
    Classic,
}

/// Messages handed to lapin at once; as many as `try_join_all` polls in their order.
const TOGETHER: usize = 30;

/// One message.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub id: &'a str,
    pub key: &'a str,
    pub event_type: &'a str,
    pub payload: &'a str,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Kafka, Self::Quorum, Self::Classic];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Quorum => "rabbitmq-quorum",
            Self::Classic => "rabbitmq-classic",
        }
    }

    /// The broker's process.
    pub fn broker_program(self) -> &'static str {
        match self {
            Self::Kafka => "java",
            Self::Quorum | Self::Classic => "beam.smp",
        }
    }

    /// The relay's flag.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Kafka => "--kafka-brokers",
            Self::Quorum | Self::Classic => "--rabbitmq-url",
        }
    }

    pub async fn create(self, broker: &str, name: &str) -> Result<(), Failure> {
        let queue = match self {
            Self::Kafka => return kafka::create(broker, name).await,
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue.into()));
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let connection = connect(broker).await?;
        let channel = connection.create_channel().await?;
        channel
            .queue_declare(name.into(), options, arguments)
            .await?;
        Ok(connection.close(200, "".into()).await?)
    }

    pub async fn delete(self, broker: &str, name: &str) -> Result<(), Failure> {
        if self == Self::Kafka {
            return kafka::delete(broker, name).await;
        }
        let connection = connect(broker).await?;
        let channel = connection.create_channel().await?;
        let options = QueueDeleteOptions::default();
        channel.queue_delete(name.into(), options).await?;
        Ok(connection.close(200, "".into()).await?)
    }

    pub async fn open(self, broker: &str, name: &str) -> Result<Publishers, Failure> {
        Ok(match self {
            Self::Kafka => Publishers::Kafka(Kafka::open(broker, name)?),
            Self::Quorum | Self::Classic => {
                Publishers::Rabbitmq(Rabbitmq::open(broker, name).await?)
            }
        })
    }
}

pub async fn connect(url: &str) -> Result<Connection, Failure> {
    Ok(Connection::connect(url, ConnectionProperties::default()).await?)
}

/// [`PUBLISHERS`] of them, by number.
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub enum Publishers {
    Kafka(Kafka),
    Rabbitmq(Rabbitmq),
}

impl Publishers {
    /// Publishes in order, and waits for all confirms.
    pub async fn publish<'a>(
        &self,
        number: usize,
        messages: impl ExactSizeIterator<Item = Outgoing<'a>> + Send,
    ) -> Result<(), Failure> {
        match self {
            Self::Kafka(kafka) => kafka.publish(number, messages).await,
            Self::Rabbitmq(rabbitmq) => rabbitmq.publish(number, messages).await,
        }
    }

    /// Publishes without waiting for the confirm.
    pub async fn send(&self, message: Outgoing<'_>) -> Result<(), Failure> {
        match self {
            Self::Kafka(kafka) => kafka.send(0, message).await,
            Self::Rabbitmq(rabbitmq) => {
                rabbitmq.send(0, message).await?;
            }
        }
        Ok(())
    }
}

pub struct Kafka {
    producer: ThreadedProducer<Reports>,
    topic: String,
}

/// Of one publisher: messages without a report, and failures.
#[derive(Default)]
struct Slot {
    left: AtomicUsize,
    failed: AtomicUsize,
    done: Notify,
}

#[derive(Default)]
struct Reports([Slot; PUBLISHERS]);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, number: usize) {
        let slot = &self.0[number];
        if report.is_err() {
            slot.failed.fetch_add(1, Ordering::Relaxed);
        }
        if slot.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            slot.done.notify_one();
        }
    }
}

impl Kafka {
    fn open(brokers: &str, topic: &str) -> Result<Self, Failure> {
        let mut config = kafka::client(brokers);
        config
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", "200000")
            .set("partitioner", "murmur2_random");
        let producer: ThreadedProducer<Reports> = config.create_with_context(Reports::default())?;
        let wait = Duration::from_secs(30);
        producer.client().fetch_metadata(Some(topic), wait)?;
        let topic = topic.to_owned();
        Ok(Self { producer, topic })
    }

    async fn publish<'a>(
        &self,
        number: usize,
        messages: impl ExactSizeIterator<Item = Outgoing<'a>>,
    ) -> Result<(), Failure> {
        let slot = &self.producer.context().0[number];
        slot.left.store(messages.len(), Ordering::Release);
        for message in messages {
            self.send(number, message).await;
        }
        slot.done.notified().await;
        match slot.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(format!("{failed} messages failed").into()),
        }
    }

    async fn send(&self, number: usize, message: Outgoing<'_>) {
        let headers = OwnedHeaders::new_with_capacity(3)
            .insert(header("id", message.id))
            .insert(header("type", message.event_type))
            .insert(header("content-type", "application/json"));
        let mut record = BaseRecord::with_opaque_to(&self.topic, number)
            .key(message.key)
            .payload(message.payload)
            .headers(headers);
        while let Err((_, full)) = self.producer.send(record) {
            record = full;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn header<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header {
        key,
        value: Some(value),
    }
}

pub struct Rabbitmq {
    // Closed when it is dropped.
    _connection: Connection,
    channels: Vec<Channel>,
    queue: String,
}

impl Rabbitmq {
    async fn open(url: &str, queue: &str) -> Result<Self, Failure> {
        let connection = connect(url).await?;
        let mut channels = Vec::new();
        for _ in 0..PUBLISHERS {
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            channels.push(channel);
        }
        Ok(Self {
            _connection: connection,
            channels,
            queue: queue.to_owned(),
        })
    }

    async fn publish<'a>(
        &self,
        number: usize,
        messages: impl ExactSizeIterator<Item = Outgoing<'a>>,
    ) -> Result<(), Failure> {
        let messages: Vec<_> = messages.collect();
        let mut confirms = Vec::with_capacity(messages.len());
        for some in messages.chunks(TOGETHER) {
            let sending = some.iter().map(|message| self.send(number, *message));
            confirms.extend(try_join_all(sending).await?);
        }
        for confirm in confirms {
            match confirm.await? {
                Confirmation::Ack(None) => {}
                other => return Err(format!("{other:?}").into()),
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        number: usize,
        message: Outgoing<'_>,
    ) -> Result<PublisherConfirm, Failure> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let mut headers = FieldTable::default();
        let key = AMQPValue::LongString(message.key.into());
        headers.insert("aggregate_id".into(), key);
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(message.id.into())
            .with_type(message.event_type.into())
            .with_content_type("application/json".into())
            .with_headers(headers);
        let payload = message.payload.as_bytes();
        let publish = self.channels[number].basic_publish(
            "".into(),
            self.queue.as_str().into(),
            options,
            payload,
            properties,
        );
        Ok(publish.await?)
    }
}
