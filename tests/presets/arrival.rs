//! A message as a consumer has it in hand, from either broker.

use rdkafka::Message as _;

use crate::common::{
    broker::{Broker, Kind},
    kafka, rabbitmq,
};

/// All of a message that a preset has a say in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub id: String,
    pub key: Option<String>,
    pub kind: Option<String>,
    pub content_type: String,
    /// `None` is a tombstone.
    pub payload: Option<Body>,
    /// The others, by name.
    pub headers: Vec<(String, String)>,
}

/// Bytes that show what they say.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(pub Vec<u8>);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

/// Everything in a destination: per key, in the order it came.
pub async fn arrivals(broker: &Broker, destination: &str) -> Vec<Arrival> {
    match broker.kind {
        Kind::Kafka => {
            let (brokers, topic) = (broker.address.clone(), destination.to_owned());
            let reading = tokio::task::spawn_blocking(move || kafka::read_topic(&brokers, &topic));
            reading.await.unwrap().iter().map(of_kafka).collect()
        }
        Kind::Rabbitmq => {
            let deliveries = rabbitmq::read(&broker.address, destination, true).await;
            deliveries.iter().map(of_rabbitmq).collect()
        }
    }
}

fn of_kafka(message: &rdkafka::message::OwnedMessage) -> Arrival {
    let mut headers = kafka::headers(message);
    let mut take = |name: &str| {
        let at = headers.iter().position(|(header, _)| header == name)?;
        Some(headers.remove(at).1)
    };
    Arrival {
        id: take("id").unwrap(),
        kind: take("type"),
        content_type: take("content-type").unwrap(),
        key: message
            .key()
            .map(|key| String::from_utf8(key.to_vec()).unwrap()),
        payload: message.payload().map(|payload| Body(payload.to_vec())),
        headers: sorted(headers),
    }
}

fn of_rabbitmq(delivery: &lapin::message::Delivery) -> Arrival {
    let mut headers = rabbitmq::headers(delivery);
    let key = headers.iter().position(|(name, _)| name == "aggregate_id");
    let key = key.map(|at| headers.remove(at).1);
    let properties = &delivery.properties;
    Arrival {
        id: rabbitmq::text(properties.message_id().as_ref()),
        kind: properties.kind().as_ref().map(ToString::to_string),
        content_type: rabbitmq::text(properties.content_type().as_ref()),
        key,
        // What AMQP has for one.
        payload: (!delivery.data.is_empty()).then(|| Body(delivery.data.clone())),
        headers: sorted(headers),
    }
}

fn sorted(mut headers: Vec<(String, String)>) -> Vec<(String, String)> {
    headers.sort();
    headers
}
