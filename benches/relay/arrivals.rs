//! What has arrived at the broker: how many messages, and when.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{
    Channel, Connection,
    options::{BasicConsumeOptions, QueueDeclareOptions},
    types::FieldTable,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    common::{
        Failure,
        kafka::{self, PARTITIONS},
    },
    sink::{Kind, connect},
    stage::Scene,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// How often a consumer looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Counts messages without consuming them.
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub enum Counter {
    Kafka(BaseConsumer, String),
    Rabbitmq {
        // Closed when it is dropped.
        _connection: Connection,
        channel: Channel,
        queue: String,
    },
}

impl Counter {
    pub async fn open(scene: &Scene<'_>) -> Result<Self, Failure> {
        let (broker, name) = (scene.stage.broker, scene.name.clone());
        if scene.stage.kind == Kind::Kafka {
            return Ok(Self::Kafka(consumer(broker)?, name));
        }
        let connection = connect(broker).await?;
        let channel = connection.create_channel().await?;
        Ok(Self::Rabbitmq {
            _connection: connection,
            channel,
            queue: name,
        })
    }

    pub async fn count(&self) -> Result<usize, Failure> {
        match self {
            Self::Kafka(consumer, topic) => {
                let mut count = 0;
                for partition in 0..PARTITIONS {
                    let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
                    count += usize::try_from(high - low)?;
                }
                Ok(count)
            }
            Self::Rabbitmq { channel, queue, .. } => {
                let options = QueueDeclareOptions {
                    passive: true,
                    ..QueueDeclareOptions::default()
                };
                let declared =
                    channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
                Ok(usize::try_from(declared.await?.message_count())?)
            }
        }
    }
}

fn consumer(brokers: &str) -> Result<BaseConsumer, Failure> {
    let mut config = kafka::client(brokers);
    config.set("group.id", "bench");
    config.set("enable.auto.commit", "false");
    Ok(config.create()?)
}

/// Consumes until dropped.
pub struct Consuming(Arc<AtomicBool>);

impl Consuming {
    /// Gives each message's payload to `arrived`, at once.
    pub async fn start(
        scene: &Scene<'_>,
        arrived: impl Fn(&[u8]) + Send + 'static,
    ) -> Result<Self, Failure> {
        let over = Arc::new(AtomicBool::new(false));
        let (until, broker, name) = (Arc::clone(&over), scene.stage.broker, &scene.name);
        if scene.stage.kind == Kind::Kafka {
            let consumer = assigned(broker, name)?;
            std::thread::spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    if let Some(Ok(message)) = consumer.poll(LOOK_EVERY) {
                        arrived(message.payload().unwrap_or_default());
                    }
                }
            });
        } else {
            let connection = connect(broker).await?;
            let channel = connection.create_channel().await?;
            let options = BasicConsumeOptions {
                no_ack: true,
                ..BasicConsumeOptions::default()
            };
            let consume = channel.basic_consume(
                name.as_str().into(),
                "".into(),
                options,
                FieldTable::default(),
            );
            let mut messages = consume.await?;
            tokio::spawn(async move {
                // Closed when it is dropped.
                let _connection = connection;
                while !until.load(Ordering::Relaxed) {
                    let next = tokio::time::timeout(LOOK_EVERY, messages.next());
                    if let Ok(Some(Ok(message))) = next.await {
                        arrived(&message.data);
                    }
                }
            });
        }
        Ok(Self(over))
    }
}

fn assigned(brokers: &str, topic: &str) -> Result<BaseConsumer, Failure> {
    let consumer = consumer(brokers)?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    Ok(consumer)
}

impl Drop for Consuming {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
