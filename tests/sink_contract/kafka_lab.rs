//! Kafka, as the suite uses it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use outboxd::{
    settings::Problems,
    sink::{
        Sink,
        kafka::{KafkaArgs, KafkaSink},
    },
};
use rdkafka::Message as _;

use crate::{
    common::{PrivateServices, env, kafka, unique},
    lab::{Lab, PATIENCE, Seen},
};

pub struct KafkaLab {
    brokers: String,
    services: Option<PrivateServices>,
}

/// A sink with those options.
pub fn kafka_sink(brokers: &str, publish_timeout: Duration, options: &[&str]) -> KafkaSink {
    let mut problems = Problems::default();
    let args = KafkaArgs {
        kafka_brokers: Some(brokers.to_owned()),
        kafka_option: options.iter().map(|&option| option.to_owned()).collect(),
        kafka_options_file: None,
    };
    let config = args.validate(&mut problems, publish_timeout);
    let config = config.unwrap_or_else(|| panic!("{:?}", problems.list()));
    KafkaSink::new(config, publish_timeout).unwrap()
}

#[async_trait]
impl Lab for KafkaLab {
    const NULL_IS_EMPTY: bool = false;

    async fn shared() -> Self {
        Self {
            brokers: env("TEST_KAFKA_BROKERS"),
            services: None,
        }
    }

    async fn private() -> Self {
        let services = tokio::task::spawn_blocking(|| PrivateServices::up(&["kafka"]));
        let services = services.await.unwrap();
        Self {
            brokers: services.env("TEST_KAFKA_BROKERS"),
            services: Some(services),
        }
    }

    async fn limited(max_bytes: usize) -> (Self, String) {
        let (lab, topic, max_bytes) = (
            Self::shared().await,
            unique("limited"),
            max_bytes.to_string(),
        );
        let settings = [("max.message.bytes", max_bytes.as_str())];
        kafka::create_topic(&lab.brokers, &topic, 2, &settings).await;
        (lab, topic)
    }

    fn sink(&self, publish_timeout: Duration) -> Arc<dyn Sink> {
        Arc::new(kafka_sink(&self.brokers, publish_timeout, &[]))
    }

    fn new_name(&self) -> String {
        unique("contract")
    }

    async fn create(&self, destination: &str) {
        kafka::create_topic(&self.brokers, destination, 4, &[]).await;
    }

    fn illegal_destination(&self) -> String {
        "no/such topic".into()
    }

    async fn read(&self, destination: &str) -> Vec<Seen> {
        let (brokers, topic) = (self.brokers.clone(), destination.to_owned());
        let messages = tokio::task::spawn_blocking(move || kafka::read_topic(&brokers, &topic));
        messages.await.unwrap().iter().map(seen).collect()
    }

    fn stop(&self) {
        self.services.as_ref().unwrap().run(&["stop", "kafka"]);
    }

    fn kill(&self) {
        self.services.as_ref().unwrap().run(&["kill", "kafka"]);
    }

    fn start(&self) {
        self.services.as_ref().unwrap().run(&["start", "kafka"]);
    }
}

/// A message as the suite looks at it.
pub fn seen(message: &rdkafka::message::OwnedMessage) -> Seen {
    let mut headers = kafka::headers(message);
    let mut take = |name: &str| {
        let at = headers.iter().position(|(key, _)| key == name).unwrap();
        headers.remove(at).1
    };
    Seen {
        id: take("id"),
        event_type: take("type"),
        content_type: take("content-type"),
        key: message
            .key()
            .map(|key| String::from_utf8(key.to_vec()).unwrap()),
        payload: message.payload().map(<[u8]>::to_vec),
        timestamp_ms: message.timestamp().to_millis().unwrap(),
        headers,
    }
}

/// A new topic on the shared broker.
pub async fn new_topic(partitions: i32, settings: &[(&str, &str)]) -> String {
    let topic = unique("kafka");
    kafka::create_topic(&env("TEST_KAFKA_BROKERS"), &topic, partitions, settings).await;
    topic
}

/// Everything in a topic of the shared broker.
pub async fn read(topic: &str) -> Vec<rdkafka::message::OwnedMessage> {
    let topic = topic.to_owned();
    let read = move || kafka::read_topic(&env("TEST_KAFKA_BROKERS"), &topic);
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// A sink to the shared broker.
pub fn sink(options: &[&str]) -> KafkaSink {
    kafka_sink(&env("TEST_KAFKA_BROKERS"), PATIENCE, options)
}
