//! A broker, as an operator sees it.

use super::{Failure, kafka, rabbitmq};

/// A broker, by its address.
#[derive(Clone)]
pub enum Broker {
    Kafka(String),
    Rabbitmq(String),
}

impl Broker {
    pub fn title(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "Kafka",
            Self::Rabbitmq(_) => "RabbitMQ",
        }
    }

    /// As in `--sink`.
    pub fn sink(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
            Self::Rabbitmq(_) => "rabbitmq",
        }
    }

    /// How a relay is told of it.
    pub fn flag(&self) -> [&str; 2] {
        match self {
            Self::Kafka(brokers) => ["--kafka-brokers", brokers],
            Self::Rabbitmq(url) => ["--rabbitmq-url", url],
        }
    }

    /// Makes the topic or queue.
    pub async fn create(&self, destination: &str) -> Result<(), Failure> {
        match self {
            Self::Kafka(brokers) => kafka::create(brokers, destination).await,
            Self::Rabbitmq(url) => rabbitmq::create(url, destination).await,
        }
    }

    /// Removes it.
    pub async fn delete(&self, destination: &str) -> Result<(), Failure> {
        match self {
            Self::Kafka(brokers) => kafka::delete(brokers, destination).await,
            Self::Rabbitmq(url) => rabbitmq::delete(url, destination).await,
        }
    }
}
