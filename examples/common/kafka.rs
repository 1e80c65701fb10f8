//! Kafka as an operator sees it.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

use super::Failure;

/// Of each topic.
pub const PARTITIONS: i32 = 4;
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

/// What every client needs to know.
pub fn client(brokers: &str) -> ClientConfig {
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
