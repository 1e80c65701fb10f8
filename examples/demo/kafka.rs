//! Kafka as a consumer sees it.

use std::time::Duration;

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Headers,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure,
    common::kafka,
    consumer::{Arrival, Arrivals},
};

/// A consumer of all partitions, from their beginning.
pub fn consumer(brokers: &str, topic: &str) -> Result<BaseConsumer, Failure> {
    let mut config = kafka::client(brokers);
    config.set("group.id", topic);
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..kafka::PARTITIONS {
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
