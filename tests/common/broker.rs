//! Both brokers, as a test of the whole relay uses them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use lapin::types::{AMQPValue, FieldTable};
use rdkafka::Message as _;

use super::{
    PrivateServices, address_in, env, kafka, proxy::Proxy, rabbitmq, unique, with_address,
};

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kafka,
    Rabbitmq,
}

impl Kind {
    /// Its name, as `services.sh` and the metrics have it.
    pub fn server(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
        }
    }
}

/// A broker, and the flags that make a relay use it.
pub struct Broker {
    pub kind: Kind,
    /// For what a test does itself; the relay's is in the flags.
    pub address: String,
    entrance: String,
    services: Option<Arc<PrivateServices>>,
}

/// A delivery as a consumer sees it: the order is the broker's, per key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: String,
    pub key: Option<String>,
    pub payload: Vec<u8>,
}

impl Delivery {
    pub fn of_rabbitmq(delivery: lapin::message::Delivery) -> Self {
        let mut headers = rabbitmq::headers(&delivery).into_iter();
        Self {
            id: rabbitmq::text(delivery.properties.message_id().as_ref()),
            key: headers
                .find(|(name, _)| name == "aggregate_id")
                .map(|(_, key)| key),
            payload: delivery.data,
        }
    }

    /// The payload of an event that `Database::insert` made.
    pub fn number(&self) -> i64 {
        std::str::from_utf8(&self.payload).unwrap().parse().unwrap()
    }
}

impl Broker {
    /// The broker that all tests share.
    pub fn shared(kind: Kind) -> Self {
        let address = match kind {
            Kind::Kafka => env("TEST_KAFKA_BROKERS"),
            Kind::Rabbitmq => env("TEST_RABBITMQ_URL"),
        };
        Self {
            kind,
            entrance: address.clone(),
            address,
            services: None,
        }
    }

    /// A broker of one's own, to be stopped and started.
    pub async fn private(kind: Kind) -> Self {
        let services = tokio::task::spawn_blocking(move || PrivateServices::up(&[kind.server()]));
        Self::of(Arc::new(services.await.unwrap()), kind)
    }

    /// The broker of a private set of servers.
    pub fn of(services: Arc<PrivateServices>, kind: Kind) -> Self {
        let address = match kind {
            Kind::Kafka => services.env("TEST_KAFKA_BROKERS"),
            Kind::Rabbitmq => services.env("TEST_RABBITMQ_URL"),
        };
        Self {
            kind,
            entrance: address.clone(),
            address,
            services: Some(services),
        }
    }

    /// Puts a proxy before it: the relay's flags lead there from now on, a test's own calls do not.
    /// Before a Kafka there can be one proxy at a time, as the broker says where it is.
    pub async fn behind_proxy(&mut self) -> Proxy {
        let variable = |name| match &self.services {
            Some(services) => services.env(name),
            None => env(name),
        };
        match self.kind {
            Kind::Kafka => {
                let behind = variable("TEST_KAFKA_BEHIND_PROXY");
                self.entrance = variable("TEST_KAFKA_PROXIED_BROKERS");
                Proxy::at(&self.entrance, &behind).await
            }
            Kind::Rabbitmq => {
                let proxy = Proxy::before(address_in(&self.address)).await;
                self.entrance = with_address(&self.address, &proxy.address());
                proxy
            }
        }
    }

    /// `stop`, `start`, … of a private broker.
    pub fn control(&self, command: &str) {
        let services = self.services.as_ref().unwrap();
        services.run(&[command, self.kind.server()]);
    }

    /// Another command of `services.sh` for a private broker.
    pub fn run(&self, arguments: &[&str]) {
        self.services.as_ref().unwrap().run(arguments);
    }

    /// Lets the relay in by another address of the same broker.
    pub fn enter_by(&mut self, address: String) {
        self.entrance = address;
    }

    /// The relay's flags.
    pub fn flags(&self) -> [&str; 2] {
        match self.kind {
            Kind::Kafka => ["--kafka-brokers", &self.entrance],
            Kind::Rabbitmq => ["--rabbitmq-url", &self.entrance],
        }
    }

    /// The metrics' label.
    pub fn label(&self) -> &'static str {
        self.kind.server()
    }

    /// A destination that exists.
    pub async fn destination(&self) -> String {
        let name = unique("promise");
        self.create(&name).await;
        name
    }

    pub async fn create(&self, name: &str) {
        match self.kind {
            Kind::Kafka => kafka::create_topic(&self.address, name, 4, &[]).await,
            Kind::Rabbitmq => rabbitmq::declare(&self.address, name, FieldTable::default()).await,
        }
    }

    /// A destination that refuses some events at first (Kafka: above that many bytes; RabbitMQ: once
    /// it holds that many messages).
    pub async fn create_refusing(&self, name: &str, limit: u32) {
        match self.kind {
            Kind::Kafka => {
                kafka::create_topic(
                    &self.address,
                    name,
                    2,
                    &[("max.message.bytes", &limit.to_string())],
                )
                .await;
            }
            Kind::Rabbitmq => {
                let mut arguments = FieldTable::default();
                arguments.insert(
                    "x-max-length".into(),
                    AMQPValue::LongInt(limit.try_into().unwrap()),
                );
                arguments.insert(
                    "x-overflow".into(),
                    AMQPValue::LongString("reject-publish".into()),
                );
                rabbitmq::declare(&self.address, name, arguments).await;
            }
        }
    }

    /// Takes everything that is in a destination (RabbitMQ: out of it).
    pub async fn read(&self, destination: &str) -> Vec<Delivery> {
        match self.kind {
            Kind::Kafka => {
                let (brokers, topic) = (self.address.clone(), destination.to_owned());
                let messages =
                    tokio::task::spawn_blocking(move || kafka::read_topic(&brokers, &topic))
                        .await
                        .unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                messages
                    .iter()
                    .map(|message| Delivery {
                        id: kafka::headers(message)
                            .into_iter()
                            .find(|(name, _)| name == "id")
                            .unwrap()
                            .1,
                        key: message.key().map(text),
                        payload: message.payload().unwrap_or_default().to_vec(),
                    })
                    .collect()
            }
            Kind::Rabbitmq => {
                let deliveries = rabbitmq::read(&self.address, destination, true).await;
                deliveries.into_iter().map(Delivery::of_rabbitmq).collect()
            }
        }
    }
}

/// Asserts that every number from 1 to `count` arrived, first arrivals of each key in order.
/// Gives the number of duplicates.
pub fn assert_complete_and_in_order(deliveries: &[Delivery], count: i64) -> usize {
    let mut seen = HashSet::new();
    let mut newest: HashMap<&Option<String>, i64> = HashMap::new();
    let mut ids: HashMap<i64, &str> = HashMap::new();
    for delivery in deliveries {
        let number = delivery.number();
        let id = ids.entry(number).or_insert(&delivery.id);
        assert_eq!(
            *id, delivery.id,
            "a duplicate of {number} carries another id"
        );
        if seen.insert(number) {
            let latest = newest.entry(&delivery.key).or_insert(0);
            assert!(
                number > *latest,
                "{:?}: {number} first arrived after {latest}",
                delivery.key
            );
            *latest = number;
        }
    }
    let lost: Vec<i64> = (1..=count)
        .filter(|number| !seen.contains(number))
        .collect();
    assert!(
        lost.is_empty(),
        "lost {}: {:?} …",
        lost.len(),
        &lost[..lost.len().min(10)]
    );
    assert_eq!(
        seen.len(),
        usize::try_from(count).unwrap(),
        "a phantom arrived"
    );
    deliveries.len() - seen.len()
}
