//! Kafka as an operator and a consumer see it.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Headers,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure,
    broker::{Arrival, Arrivals},
};

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a topic.
pub async fn create(brokers: &str, topic: &str) -> Result<(), Failure> {
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    let created = admin(brokers)?.create_topics(&[new], &options()).await?;
    all_done(created)
}

/// Removes a topic.
pub async fn delete(brokers: &str, topic: &str) -> Result<(), Failure> {
    let deleted = admin(brokers)?.delete_topics(&[topic], &options()).await?;
    all_done(deleted)
}

fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>, Failure> {
    Ok(client(brokers).create()?)
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE))
}

fn all_done(results: Vec<rdkafka::admin::TopicResult>) -> Result<(), Failure> {
    for result in results {
        result.map_err(|(topic, error)| format!("Kafka topic {topic}: {error}"))?;
    }
    Ok(())
}

/// A consumer of all partitions, from their beginning.
pub fn consumer(brokers: &str, topic: &str) -> Result<BaseConsumer, Failure> {
    let mut config = client(brokers);
    config.set("group.id", topic);
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    Ok(consumer)
}

/// Reads until told to stop.
pub fn read(
    consumer: &BaseConsumer,
    stop: &CancellationToken,
    mut arrivals: Arrivals,
) -> Result<Arrivals, Failure> {
    while !stop.is_cancelled() {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = match message {
            // It connects again by itself.
            Err(error) if is_passing(&error) => continue,
            message => message?,
        };
        let key = std::str::from_utf8(message.key().unwrap_or_default())?;
        let id = message.headers().and_then(|headers| {
            let id = headers.iter().find(|header| header.key == "id");
            id.and_then(|header| header.value)
        });
        let id = std::str::from_utf8(id.ok_or("a Kafka message without an id header")?)?;
        let payload = message.payload().unwrap_or_default();
        arrivals.push(Arrival::new(id, key, payload)?);
    }
    Ok(arrivals)
}

fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
    )
}
