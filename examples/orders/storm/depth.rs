//! How many messages the broker got, and how many of them it still has to deliver.
//!
//! Kafka knows both. RabbitMQ forgets what was acknowledged, so a second queue, which nobody reads, is
//! bound to the same exchange.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::FieldTable,
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::common::{
    Failure,
    broker::Broker,
    kafka::{PARTITIONS, client},
    rabbitmq::connect,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// In messages.
pub struct Depth {
    /// That the broker ever got.
    pub ever: u64,
    /// That the consumers have not acknowledged; of RabbitMQ without those on their way to a consumer,
    /// so it is only all of them when the consumers have ended.
    pub left: u64,
}

/// Makes the topic; or exchange, queue, and the queue for counting.
pub async fn create(broker: &Broker, destination: &str) -> Result<(), Failure> {
    broker.create(destination).await?;
    let Broker::Rabbitmq(url) = broker else {
        return Ok(());
    };
    let (connection, channel) = connect(url).await?;
    let exchange = channel.exchange_declare(
        destination.into(),
        ExchangeKind::Fanout,
        ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        },
        FieldTable::default(),
    );
    exchange.await?;
    let counting = counting(destination);
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(counting.as_str().into(), options, FieldTable::default());
    declared.await?;
    for queue in [destination, &counting] {
        let bound = channel.queue_bind(
            queue.into(),
            destination.into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await?;
    }
    Ok(connection.close(200, "".into()).await?)
}

/// Removes them.
pub async fn delete(broker: &Broker, destination: &str) -> Result<(), Failure> {
    if let Broker::Rabbitmq(url) = broker {
        let (connection, channel) = connect(url).await?;
        let exchange =
            channel.exchange_delete(destination.into(), ExchangeDeleteOptions::default());
        exchange.await?;
        let counting = counting(destination);
        let queue = channel.queue_delete(counting.as_str().into(), QueueDeleteOptions::default());
        queue.await?;
        connection.close(200, "".into()).await?;
    }
    broker.delete(destination).await
}

fn counting(destination: &str) -> String {
    format!("{destination}-count")
}

/// Counts. The consumers' group is named like the topic.
pub async fn measure(broker: &Broker, destination: &str) -> Result<Depth, Failure> {
    match broker {
        Broker::Kafka(brokers) => {
            let (brokers, topic) = (brokers.clone(), destination.to_owned());
            tokio::task::spawn_blocking(move || offsets(&brokers, &topic)).await?
        }
        Broker::Rabbitmq(url) => {
            let (connection, channel) = connect(url).await?;
            let ever = ready(&channel, &counting(destination)).await?;
            let left = ready(&channel, destination).await?;
            connection.close(200, "".into()).await?;
            Ok(Depth { ever, left })
        }
    }
}

async fn ready(channel: &Channel, queue: &str) -> Result<u64, Failure> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    Ok(declared.await?.message_count().into())
}

fn offsets(brokers: &str, topic: &str) -> Result<Depth, Failure> {
    let mut config = client(brokers);
    let consumer: BaseConsumer = config.set("group.id", topic).create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(topic, 0, PARTITIONS - 1);
    let committed = consumer.committed_offsets(partitions, PATIENCE)?;
    let mut depth = Depth { ever: 0, left: 0 };
    for partition in committed.elements() {
        let (_, end) = consumer.fetch_watermarks(topic, partition.partition(), PATIENCE)?;
        let acknowledged = match partition.offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        };
        depth.ever += u64::try_from(end)?;
        depth.left += u64::try_from(end - acknowledged)?;
    }
    Ok(depth)
}
