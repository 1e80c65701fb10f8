//! Real brokers, and a consumer's view of them.

#[path = "../common/sending.rs"]
pub mod sending;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use clap::{Args, FromArgMatches};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use outboxd::{
    event::Message,
    settings::Problems,
    sink::{
        Outcome, Scope,
        rabbitmq::{RabbitmqArgs, RabbitmqConfig, RabbitmqSink},
    },
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(20);

/// A setting of the test run.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run through make test"))
}

/// A name that no other test has.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock");
    format!("{what}-{}-{}-{count}", std::process::id(), now.as_nanos())
}

/// The sink's settings, as they come from a command line.
pub fn config(flags: &[&str]) -> RabbitmqConfig {
    let command = RabbitmqArgs::augment_args(clap::Command::new("test"));
    let matches = command.get_matches_from([&["test"], flags].concat());
    let args = RabbitmqArgs::from_arg_matches(&matches).expect("flags");
    let mut problems = Problems::default();
    let config = args.validate(&mut problems);
    config.unwrap_or_else(|| panic!("{:?}", problems.list()))
}

pub fn sink(flags: &[&str]) -> RabbitmqSink {
    RabbitmqSink::new(config(flags), PUBLISH_TIMEOUT, "test")
}

/// A message whose payload is its number.
pub fn message(destination: &str, key: Option<&str>, number: usize) -> Message {
    Message {
        id: format!("{destination}/{number}"),
        destination: destination.into(),
        key: key.map(Into::into),
        event_type: "Tested".into(),
        content_type: "text/plain".into(),
        headers: Vec::new(),
        payload: Some(number.to_string().into_bytes()),
        timestamp_ms: 1_700_000_000_000,
    }
}

/// A message as a consumer sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub id: String,
    pub key: Option<String>,
    pub event_type: String,
    pub content_type: String,
    pub headers: BTreeMap<String, String>,
    pub timestamp: Option<u64>,
    pub persistent: bool,
    pub payload: Vec<u8>,
}

impl Received {
    fn new(properties: &BasicProperties, payload: Vec<u8>) -> Self {
        let text = |value: &Option<lapin::types::ShortString>| {
            value.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        let table = properties.headers().clone().unwrap_or_default();
        let mut headers: BTreeMap<_, _> = (table.inner().iter())
            .filter(|(name, _)| name.as_str() != "x-delivery-count") // a quorum queue's own
            .map(|(name, value)| match value {
                AMQPValue::LongString(value) => (name.to_string(), value.to_string()),
                other => panic!("header {name} is no long string: {other:?}"),
            })
            .collect();
        Self {
            id: text(properties.message_id()),
            key: headers.remove("aggregate_id"),
            event_type: text(properties.kind()),
            content_type: text(properties.content_type()),
            headers,
            timestamp: *properties.timestamp(),
            persistent: *properties.delivery_mode() == Some(2),
            payload,
        }
    }

    /// The payload of a [`message`].
    pub fn number(&self) -> usize {
        let text = String::from_utf8(self.payload.clone()).expect("text");
        text.parse().expect("a number")
    }
}

/// An administrator's and a consumer's connection to a broker.
pub struct Lab {
    pub url: String,
    connection: Connection,
    channel: Channel,
}

impl Lab {
    /// On the test run's own broker, which all tests share.
    pub async fn new() -> Self {
        Self::at(&variable("TEST_RABBITMQ_URL")).await
    }

    pub async fn at(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default());
        let connection = connection.await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        Self {
            url: url.into(),
            connection,
            channel,
        }
    }

    pub fn sink(&self) -> RabbitmqSink {
        sink(&["--rabbitmq-url", &self.url])
    }

    /// A sink that publishes to an exchange.
    pub fn sink_to(&self, exchange: &str) -> RabbitmqSink {
        sink(&["--rabbitmq-url", &self.url, "--rabbitmq-exchange", exchange])
    }

    /// A new durable queue.
    pub async fn queue(&self) -> String {
        let name = unique("queue");
        self.declare(&name, &[]).await;
        name
    }

    /// A new queue that refuses (nacks) what comes beyond `limit` messages.
    pub async fn full_queue(&self, limit: i64) -> String {
        let name = unique("full");
        let arguments = [
            ("x-max-length", AMQPValue::LongLongInt(limit)),
            ("x-overflow", AMQPValue::LongString("reject-publish".into())),
        ];
        self.declare(&name, &arguments).await;
        name
    }

    pub async fn declare(&self, name: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        // Test runs leave no queues behind for long.
        table.insert("x-expires".into(), AMQPValue::LongInt(600_000));
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declare = self.channel.queue_declare(name.into(), options, table);
        declare.await.expect("declared");
    }

    #[expect(dead_code, reason = "for the contract suite")]
    pub async fn delete(&self, queue: &str) {
        let options = QueueDeleteOptions::default();
        let delete = self.channel.queue_delete(queue.into(), options);
        delete.await.expect("deleted");
    }

    pub async fn declare_exchange(&self, name: &str, kind: ExchangeKind) {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let arguments = FieldTable::default();
        let declare = (self.channel).exchange_declare(name.into(), kind, options, arguments);
        declare.await.expect("declared");
    }

    pub async fn delete_exchange(&self, name: &str) {
        let options = ExchangeDeleteOptions::default();
        let delete = self.channel.exchange_delete(name.into(), options);
        delete.await.expect("deleted");
    }

    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let options = QueueBindOptions::default();
        let (queue, exchange, key) = (queue.into(), exchange.into(), routing_key.into());
        let bind = (self.channel).queue_bind(queue, exchange, key, options, FieldTable::default());
        bind.await.expect("bound");
    }

    /// How many messages are in a queue.
    pub async fn depth(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let arguments = FieldTable::default();
        let declare = self.channel.queue_declare(queue.into(), options, arguments);
        declare.await.expect("a queue").message_count()
    }

    /// Consumes everything there is in a queue.
    pub async fn read(&self, queue: &str) -> Vec<Received> {
        let mut received = Vec::new();
        // One by one is slow: most come as they come to a consumer.
        let expected = self.depth(queue).await as usize;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let (tag, arguments) = (unique("reader"), FieldTable::default());
        let consume = (self.channel).basic_consume(queue.into(), tag.into(), options, arguments);
        let mut consumer = consume.await.expect("a queue");
        let mut cancelled = false;
        loop {
            if received.len() >= expected && !cancelled {
                let cancel =
                    (self.channel).basic_cancel(consumer.tag(), BasicCancelOptions::default());
                cancel.await.expect("cancelled");
                cancelled = true;
            }
            let Some(delivery) = consumer.next().await else {
                break;
            };
            let delivery = delivery.expect("a message");
            received.push(Received::new(&delivery.properties, delivery.data.clone()));
        }
        let no_ack = BasicGetOptions { no_ack: true };
        while let Some(got) = (self.channel.basic_get(queue.into(), no_ack).await).expect("a queue")
        {
            let delivery = &got.delivery;
            received.push(Received::new(&delivery.properties, delivery.data.clone()));
        }
        received
    }

    pub async fn close(&self) {
        let _ = self.connection.close(200, "OK".into()).await;
    }
}

/// Every payload number by key, in order of arrival, repetitions dropped.
pub fn first_occurrences(received: &[Received]) -> BTreeMap<String, Vec<usize>> {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for message in received {
        let numbers = by_key.entry(message.key.clone().unwrap_or_default());
        let numbers = numbers.or_default();
        if !numbers.contains(&message.number()) {
            numbers.push(message.number());
        }
    }
    by_key
}

/// A short word for an outcome.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Published => "published",
        Outcome::Unavailable(reason) if reason.scope == Scope::Sink => "sink",
        Outcome::Unavailable(_) => "destination",
        Outcome::Transient(_) => "transient",
        Outcome::Rejected(_) => "rejected",
        Outcome::Withheld => "withheld",
    }
}

pub fn words(outcomes: &[Outcome]) -> Vec<&'static str> {
    outcomes.iter().map(word).collect()
}

pub fn count(outcomes: &[Outcome], what: &str) -> usize {
    words(outcomes).iter().filter(|word| **word == what).count()
}

/// What an outcome says to people.
pub fn detail(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Unavailable(unavailable) => unavailable.detail.clone(),
        Outcome::Transient(reason) | Outcome::Rejected(reason) => reason.detail.clone(),
        Outcome::Published | Outcome::Withheld => String::new(),
    }
}

/// `rabbitmqctl` on the shared broker.
pub fn rabbitmqctl(arguments: &[&str]) {
    run(&mut services(), &[&["rabbitmqctl"], arguments].concat());
}

fn services() -> Command {
    Command::new(variable("TEST_SERVICES"))
}

fn run(command: &mut Command, arguments: &[&str]) -> String {
    let command = command.args(arguments);
    let Output {
        status,
        stdout,
        stderr,
    } = tokio::task::block_in_place(|| command.output()).expect("services.sh");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(stdout).expect("text")
}

/// A broker that a test may stop or starve, gone with the test.
pub struct PrivateBroker {
    folder: PathBuf,
    pub url: String,
}

impl PrivateBroker {
    pub fn up() -> Self {
        let folder = std::env::temp_dir().join(unique("outboxd-broker"));
        let mut broker = Self {
            folder,
            url: String::new(),
        };
        broker.run(&["up", "rabbitmq"]);
        let lines = broker.run(&["env"]);
        let prefix = "export TEST_RABBITMQ_URL=";
        let url = lines.lines().find_map(|line| line.strip_prefix(prefix));
        broker.url = url.expect("a URL").trim_matches('\'').into();
        broker
    }

    pub fn stop(&self) {
        self.run(&["stop", "rabbitmq"]);
    }

    pub fn start(&self) {
        self.run(&["start", "rabbitmq"]);
    }

    pub fn rabbitmqctl(&self, arguments: &[&str]) {
        self.run(&[&["rabbitmqctl"], arguments].concat());
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = services();
        command.env("SERVICES_DIR", &self.folder);
        // The run's own broker is not ours.
        command.env_remove("TEST_RABBITMQ_URL");
        if let Ok(folder) = std::env::var("SERVICES_DIR") {
            command.env("SERVICES_CACHE", format!("{folder}/cache"));
        }
        run(&mut command, arguments)
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        let mut command = services();
        command.env("SERVICES_DIR", &self.folder).arg("destroy");
        let _ = command.output();
    }
}

/// A way to the broker that can go dead without closing, as networks do.
pub struct Proxy {
    pub address: SocketAddr,
    frozen: watch::Sender<bool>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (frozen, state) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, state.clone()));
            }
        });
        Self { address, frozen }
    }

    /// From now on nothing passes, on connections old and new; those of now stay dead.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }

    /// The URL of the shared broker, by way of this proxy.
    pub fn url(&self) -> String {
        let mut url = url::Url::parse(&variable("TEST_RABBITMQ_URL")).expect("a URL");
        url.set_port(Some(self.address.port())).expect("a port");
        url.to_string()
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut state: watch::Receiver<bool>) {
    let mut server = TcpStream::connect(target).await.expect("the broker");
    let frozen = async { drop(state.wait_for(|frozen| *frozen).await) };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => return,
        () = frozen => {}
    }
    // Both ends stay open, unread.
    std::future::pending::<()>().await;
}

/// Where the shared broker listens.
pub fn broker_address() -> SocketAddr {
    let url = url::Url::parse(&variable("TEST_RABBITMQ_URL")).expect("a URL");
    let address = format!(
        "{}:{}",
        url.host_str().expect("a host"),
        url.port().expect("a port")
    );
    address.parse().expect("an address")
}
