//! Another relay, as many have written one: it takes rows by UPDATE … RETURNING and sends them by itself.
//! Nothing in here is outboxd's.

use std::time::Duration;

use lapin::{
    BasicProperties, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::sync::watch;

use crate::common::{
    blocking,
    broker::{Broker, Kind},
    rabbitmq,
};

/// What it sends of a row. Headers by their names on Kafka, the contract's own among them.
#[derive(Debug, Clone)]
pub struct Letter {
    pub topic: String,
    pub key: String,
    pub headers: Vec<(String, String)>,
    pub payload: Option<String>,
}

impl Letter {
    pub fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(own, _)| own != name);
        self.headers.push((name.into(), value.into()));
    }

    pub fn drop(&mut self, name: &str) {
        self.headers.retain(|(own, _)| own != name);
    }

    fn header(&self, name: &str) -> Option<String> {
        let mut named = self.headers.iter().filter(|(own, _)| own == name);
        named.next().map(|(_, value)| value.clone())
    }
}

/// What it does otherwise to a batch.
pub type Twist = fn(Vec<Letter>) -> Vec<Letter>;

/// Sends a batch as it is.
pub fn faithfully(letters: Vec<Letter>) -> Vec<Letter> {
    letters
}

/// Takes outboxd's own table's rows.
const TAKE: &str = "update outbox set published_at = now() where id in (
       select id from outbox where published_at is null order by id limit 1000 for update skip locked)
     returning id, event_id::text, coalesce(topic, aggregate_type), aggregate_id, event_type, payload::text, headers::text";

pub struct Poller {
    database: PgConnection,
    pub sender: Sender,
    twist: Twist,
}

impl Poller {
    pub async fn new(url: &str, broker: &Broker, exchange: &str, twist: Twist) -> Self {
        Self {
            database: PgConnection::connect(url).await.unwrap(),
            sender: Sender::to(broker, exchange).await,
            twist,
        }
    }

    /// Sends a batch and marks it; gives how many rows that were.
    pub async fn once(&mut self) -> usize {
        let count = self.send_unmarked().await;
        self.execute("commit").await;
        count
    }

    /// Sends until nothing is pending.
    pub async fn drain(&mut self) {
        while self.once().await > 0 {}
    }

    /// Sends until told to stop; then ends between two batches, as a relay does that is stopped in order.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if self.once().await == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Sends a batch and leaves its rows unmarked: dropped now, it died before its commit.
    pub async fn send_unmarked(&mut self) -> usize {
        self.execute("begin").await;
        let mut rows = sqlx::query(TAKE)
            .fetch_all(&mut self.database)
            .await
            .unwrap();
        rows.sort_by_key(|row| row.get::<i64, _>(0));
        let count = rows.len();
        if count == 0 {
            return 0;
        }
        let letters = rows.iter().map(letter).collect();
        for letter in (self.twist)(letters) {
            self.sender.send(&letter).await;
        }
        self.sender.flush();
        count
    }

    async fn execute(&mut self, sql: &str) {
        let statement = sqlx::query(AssertSqlSafe(sql.to_owned()));
        statement.execute(&mut self.database).await.unwrap();
    }
}

fn letter(row: &sqlx::postgres::PgRow) -> Letter {
    let own: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&row.get::<String, _>(6)).unwrap();
    let own = own
        .into_iter()
        .map(|(name, value)| (name, value.as_str().unwrap().to_owned()));
    let contract = [
        ("id".into(), row.get(1)),
        ("type".into(), row.get(4)),
        ("content-type".into(), "application/json".into()),
    ];
    Letter {
        topic: row.get(2),
        key: row.get(3),
        headers: contract.into_iter().chain(own).collect(),
        payload: row.get(5),
    }
}

/// A client of a broker.
pub enum Sender {
    Kafka(BaseProducer),
    /// The channel and its connection; the exchange.
    Rabbitmq(Box<(lapin::Channel, lapin::Connection)>, String),
}

impl Sender {
    pub fn kafka(broker: &Broker, partitioner: &str) -> Self {
        let client = ClientConfig::new()
            .set("bootstrap.servers", &broker.address)
            .set("partitioner", partitioner)
            .set("linger.ms", "0")
            .create();
        Self::Kafka(client.unwrap())
    }

    pub async fn to(broker: &Broker, exchange: &str) -> Self {
        match broker.kind {
            // As Java's clients choose.
            Kind::Kafka => Self::kafka(broker, "murmur2_random"),
            Kind::Rabbitmq => {
                let connection = rabbitmq::connect(&broker.address).await;
                let channel = connection.create_channel().await.unwrap();
                let confirms = ConfirmSelectOptions::default();
                channel.confirm_select(confirms).await.unwrap();
                Self::Rabbitmq(Box::new((channel, connection)), exchange.into())
            }
        }
    }

    /// Waits until what was sent has arrived.
    pub fn flush(&self) {
        if let Self::Kafka(producer) = self {
            blocking(|| producer.flush(Duration::from_secs(20))).unwrap();
        }
    }

    pub async fn send(&self, letter: &Letter) {
        match self {
            Self::Kafka(producer) => {
                let mut headers = OwnedHeaders::new();
                for (key, value) in &letter.headers {
                    headers = headers.insert(Header {
                        key,
                        value: Some(value),
                    });
                }
                let mut record = BaseRecord::to(&letter.topic)
                    .key(&letter.key)
                    .headers(headers);
                record.payload = letter.payload.as_ref();
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
            Self::Rabbitmq(open, exchange) => {
                let confirmed = open.0.basic_publish(
                    exchange.as_str().into(),
                    letter.topic.as_str().into(),
                    BasicPublishOptions::default(),
                    letter.payload.as_deref().unwrap_or_default().as_bytes(),
                    properties(letter),
                );
                let confirmed = confirmed.await.unwrap().await.unwrap();
                assert!(matches!(confirmed, Confirmation::Ack(_)), "{confirmed:?}");
            }
        }
    }
}

fn properties(letter: &Letter) -> BasicProperties {
    let mut table = FieldTable::default();
    let long = |text: &str| AMQPValue::LongString(text.into());
    table.insert("aggregate_id".into(), long(&letter.key));
    for (name, value) in &letter.headers {
        if !["id", "type", "content-type"].contains(&name.as_str()) {
            table.insert(name.as_str().into(), long(value));
        }
    }
    let mut properties = BasicProperties::default().with_headers(table);
    if let Some(id) = letter.header("id") {
        properties = properties.with_message_id(id.as_str().into());
    }
    if let Some(kind) = letter.header("type") {
        properties = properties.with_type(kind.as_str().into());
    }
    if let Some(content_type) = letter.header("content-type") {
        properties = properties.with_content_type(content_type.as_str().into());
    }
    properties
}
