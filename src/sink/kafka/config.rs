//! Kafka's settings: flags, librdkafka options, and what of them may not be changed.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use clap::Args;
use rdkafka::{
    ClientConfig,
    config::{FromClientConfig, RDKafkaLogLevel},
    error::KafkaError,
    producer::BaseProducer,
};

use super::{
    options::{Options, REFERENCE},
    partitioner::Partitioner,
};
use crate::settings::Problems;

/// Messages above this are refused by the client; below it the broker decides.
const MAX_MESSAGE_BYTES: usize = 10_000_000;
const PARTITIONER: &str = "murmur2_random";
const HIDDEN: &str = "***";

/// Where Kafka is, and how to talk to it.
#[derive(Args, Clone, Default)]
pub struct KafkaArgs {
    /// Kafka brokers to begin with; the others are learned from them
    #[arg(long, env = "OUTBOXD_KAFKA_BROKERS", value_name = "HOST:PORT,...")]
    pub kafka_brokers: Option<String>,

    /// A librdkafka option; may be given several times
    ///
    /// For instance, TLS with a password:
    ///
    ///   --kafka-option security.protocol=sasl_ssl
    ///   --kafka-option sasl.mechanisms=SCRAM-SHA-256
    ///   --kafka-option sasl.username=outboxd
    ///   --kafka-option ssl.ca.location=/etc/kafka/ca.pem
    ///
    /// with `sasl.password=...` in --kafka-options-file, where other users of the machine do not
    /// see it. In the environment variable: one option a line. An option given here wins over the
    /// file's. Options that would lose, repeat or reorder events are refused. All of them:
    /// <https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>
    #[arg(
        long,
        env = "OUTBOXD_KAFKA_OPTION",
        value_name = "NAME=VALUE",
        value_delimiter = '\n',
        hide_env_values = true,
        verbatim_doc_comment
    )]
    #[expect(clippy::doc_markdown, reason = "it is the help text")]
    pub kafka_option: Vec<String>,

    /// A file of librdkafka options, one NAME=VALUE a line; the place for secrets
    ///
    /// Lines that begin with # are comments. Values from this file are never printed.
    #[arg(long, env = "OUTBOXD_KAFKA_OPTIONS_FILE", value_name = "PATH")]
    pub kafka_options_file: Option<PathBuf>,
}

/// Without the options' values: they may be secrets.
impl fmt::Debug for KafkaArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaArgs")
            .field("kafka_brokers", &self.kafka_brokers)
            .field("kafka_options_file", &self.kafka_options_file)
            .finish_non_exhaustive()
    }
}

impl KafkaArgs {
    /// Whether brokers are named.
    pub fn is_set(&self) -> bool {
        self.kafka_brokers.is_some()
    }

    /// The typed configuration, or `None` after noting why there is none.
    ///
    /// librdkafka itself is asked whether it takes the options (names, values, certificate files),
    /// without connecting anywhere.
    pub fn validate(
        self,
        problems: &mut Problems,
        publish_timeout: Duration,
    ) -> Option<KafkaConfig> {
        let before = problems.list().len();
        let brokers = self.brokers(problems);
        let mut options = Options::default();
        if let Some(path) = &self.kafka_options_file {
            options.read_file(path, problems);
        }
        options.read_flags(&self.kafka_option, problems);
        options.check(problems);
        if problems.list().len() > before {
            return None;
        }
        let config = KafkaConfig {
            brokers,
            options,
            publish_timeout,
        };
        if let Err(error) = BaseProducer::from_config(&config.unconnected()) {
            problems.add(format!(
                "librdkafka refuses the Kafka options: {}",
                creation_problem(&error)
            ));
            return None;
        }
        Some(config)
    }

    fn brokers(&self, problems: &mut Problems) -> String {
        let text = self.kafka_brokers.as_deref().unwrap_or_default();
        let brokers: Vec<&str> = text.split(',').map(str::trim).collect();
        if text.trim().is_empty() {
            problems.add("--kafka-brokers is not set; write it like kafka-1:9092,kafka-2:9092");
        } else if let Some(wrong) = brokers.iter().find(|broker| !is_address(broker)) {
            problems.add(format!(
                "--kafka-brokers: {wrong:?} is not HOST:PORT; for TLS set \
                 --kafka-option security.protocol=ssl"
            ));
        }
        brokers.join(",")
    }
}

fn is_address(broker: &str) -> bool {
    let (host, port) = match broker.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        None => (broker, true), // librdkafka's default port, 9092
    };
    port && !host.is_empty() && !host.contains(['/', '@', ' '])
}

/// librdkafka's own words; but for an option's value.
fn creation_problem(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientCreation(text) => text.clone(),
        KafkaError::ClientConfig(_, _, name, _) => format!("{name}; see {REFERENCE}"),
        other => other.to_string(),
    }
}

/// Valid settings of the Kafka sink.
#[derive(Clone)]
pub struct KafkaConfig {
    brokers: String,
    options: Options,
    publish_timeout: Duration,
}

impl KafkaConfig {
    /// The brokers to begin with.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// `message.max.bytes` in force.
    pub fn max_message_bytes(&self) -> usize {
        self.options
            .get("message.max.bytes")
            .and_then(|value| value.parse().ok())
            .unwrap_or(MAX_MESSAGE_BYTES)
    }

    /// The settings in force, for the log, without secrets.
    pub fn describe(&self) -> String {
        let mut settings: BTreeMap<String, String> = self.defaults().into_iter().collect();
        for option in self.options.iter() {
            let value = if option.is_secret() {
                HIDDEN
            } else {
                &option.value
            };
            settings.insert(option.name.clone(), value.to_owned());
        }
        let settings: Vec<_> = settings.iter().map(|(n, v)| format!("{n}={v}")).collect();
        settings.join(" ")
    }

    /// For the producer whose batches must have no gaps.
    pub(super) fn pipelined(&self) -> ClientConfig {
        self.client(true)
    }

    /// For the producer that sends one message at a time and goes on after a refusal. It needs no
    /// idempotence to keep the order, and need not wait half a second for a producer id.
    pub(super) fn solo(&self) -> ClientConfig {
        let mut client = self.client(true);
        client.set("enable.gapless.guarantee", "false");
        client.set("enable.idempotence", "false");
        client.set("linger.ms", "0");
        client
    }

    /// For a consumer of the same brokers, in no group.
    pub(crate) fn consumer(&self) -> ClientConfig {
        let ours = ["bootstrap.servers", "client.id", "allow.auto.create.topics"];
        let network = ["socket.keepalive.enable", "reconnect.backoff.max.ms"];
        let mut client = self.client(true);
        for (name, _) in self.defaults() {
            let is_set = self.options.get(&name).is_some();
            if !is_set && ![&ours[..], &network].concat().contains(&name.as_str()) {
                client.remove(&name);
            }
        }
        client
            // It must be named. Nothing is committed, and nobody joins it.
            .set("group.id", "outboxd-shadow")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Where a topic forgets faster than it is read.
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "100");
        client
    }

    /// The partitioner in force, where it is one that can be foreseen.
    pub(crate) fn partitioner(&self) -> Option<Partitioner> {
        Partitioner::named(self.options.get("partitioner").unwrap_or(PARTITIONER))
    }

    fn unconnected(&self) -> ClientConfig {
        self.client(false)
    }

    fn client(&self, connected: bool) -> ClientConfig {
        let mut client: ClientConfig = self.defaults().into_iter().collect();
        for option in self.options.iter() {
            client.set(&option.name, &option.value);
        }
        if !connected {
            client.remove("bootstrap.servers");
        }
        client.set_log_level(match (connected, self.options.get("debug")) {
            (false, _) => RDKafkaLogLevel::Emerg,
            (true, None) => RDKafkaLogLevel::Info,
            (true, Some(_)) => RDKafkaLogLevel::Debug,
        });
        client
    }

    fn defaults(&self) -> Vec<(String, String)> {
        let message_timeout = self.publish_timeout.as_millis().saturating_mul(2);
        let message_timeout = message_timeout.clamp(1000, 2_147_483_647).to_string();
        let max_bytes = MAX_MESSAGE_BYTES.to_string();
        [
            ("bootstrap.servers", self.brokers.as_str()),
            ("client.id", "outboxd"),
            // The promise. These cannot be changed: see `options`.
            ("enable.idempotence", "true"),
            (
                "enable.gapless.guarantee",
                defect!(AllowGaps: "false", else "true"),
            ),
            ("acks", "all"),
            ("message.timeout.ms", &message_timeout),
            ("allow.auto.create.topics", "false"),
            // 8 workers' batches of 10,000, twice over.
            ("queue.buffering.max.messages", "200000"),
            // Java's partitions, so that other producers of a topic agree on a key's.
            ("partitioner", PARTITIONER),
            ("compression.type", "lz4"),
            ("message.max.bytes", &max_bytes),
            // A batch is handed over whole: waiting for more costs each event the wait (p50 at 5,000 a
            // second: 9 ms with 2, 5 ms with 0) and gains a drain nothing.
            ("linger.ms", "0"),
            // How long a missing topic may be just new; and how long a lost broker is left alone.
            ("topic.metadata.propagation.max.ms", "1000"),
            ("reconnect.backoff.max.ms", "2000"),
            ("socket.keepalive.enable", "true"),
            ("log.connection.close", "false"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.options.iter().map(|o| o.name.as_str()).collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("options", &names)
            .field("publish_timeout", &self.publish_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(options: &[&str]) -> (Option<KafkaConfig>, Vec<String>) {
        let mut problems = Problems::default();
        let args = KafkaArgs {
            kafka_brokers: Some("localhost:9092".into()),
            kafka_option: options.iter().map(|&o| o.to_owned()).collect(),
            kafka_options_file: None,
        };
        let config = args.validate(&mut problems, Duration::from_secs(30));
        (config, problems.list().to_vec())
    }

    fn problem(option: &str) -> String {
        let (config, problems) = validate(&[option]);
        assert!(config.is_none(), "{option} was accepted");
        problems.join("\n")
    }

    #[test]
    fn the_defaults_are_valid_and_promise_order() {
        let (config, problems) = validate(&[]);
        assert_eq!(problems, Vec::<String>::new());
        let described = config.unwrap().describe();
        for setting in [
            "enable.gapless.guarantee=true",
            "message.timeout.ms=60000",
            "partitioner=murmur2_random",
            "message.max.bytes=10000000",
        ] {
            assert!(described.contains(setting), "{setting} in {described}");
        }
    }

    #[test]
    fn options_pass_through_and_win_by_any_of_their_names() {
        let (config, _) = validate(&["queue.buffering.max.ms=7", "message.max.bytes=2000"]);
        let config = config.unwrap();
        assert!(config.describe().contains("linger.ms=7"));
        assert_eq!(config.max_message_bytes(), 2000);
    }

    #[test]
    fn options_that_undo_the_promise_are_refused_by_name() {
        for option in [
            "enable.idempotence=false",
            "acks=1",
            "request.required.acks=1",
            "enable.gapless.guarantee=false",
            "max.in.flight=6",
            "retries=0",
            "message.send.max.retries=0",
            "delivery.timeout.ms=5",
            "allow.auto.create.topics=true",
            "transactional.id=x",
            "partitioner=random",
            "partitioner=consistent_random",
            "bootstrap.servers=other:9092",
            "queue.buffering.max.messages=10",
            "delivery.report.only.error=true",
        ] {
            let name = option.split('=').next().unwrap();
            assert!(problem(option).contains(name), "{option}");
        }
    }

    #[test]
    fn unknown_and_malformed_options_are_named_all_at_once() {
        let (_, problems) = validate(&["no.such.option=1", "linger.ms=soon", "nothing"]);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems.iter().any(|p| p.contains("no.such.option")));
        assert!(problems.iter().any(|p| p.contains("linger.ms")));
        assert!(problems.iter().any(|p| p.contains("NAME=VALUE")));
    }

    #[test]
    fn encryption_that_would_not_happen_is_a_problem() {
        assert!(problem("ssl.ca.location=/etc/ca.pem").contains("security.protocol"));
        assert!(problem("sasl.username=alice").contains("security.protocol"));
    }

    #[test]
    fn a_missing_certificate_is_found_before_the_start() {
        let (_, problems) = validate(&["security.protocol=ssl", "ssl.ca.location=/no/such.pem"]);
        assert!(
            problems.join("").contains("ssl.ca.location"),
            "{problems:?}"
        );
    }

    #[test]
    fn brokers_are_checked() {
        for wrong in ["", "kafka:port", "kafka://host:9092", "a:1,,b:2", ":9092"] {
            let mut problems = Problems::default();
            let args = KafkaArgs {
                kafka_brokers: Some(wrong.into()),
                ..KafkaArgs::default()
            };
            assert!(args.validate(&mut problems, Duration::ZERO).is_none());
            assert!(problems.list()[0].contains("--kafka-brokers"), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_neither_described_nor_debugged() {
        let path = std::env::temp_dir().join(format!("outboxd-options-{}", std::process::id()));
        std::fs::write(
            &path,
            "# secrets\nsasl.password = canary-1\n\nclient.rack=canary-2\n",
        )
        .unwrap();
        let mut problems = Problems::default();
        let args = KafkaArgs {
            kafka_brokers: Some("localhost:9092".into()),
            kafka_option: vec![
                "security.protocol=sasl_ssl".into(),
                "sasl.mechanisms=PLAIN".into(),
                "sasl.username=alice".into(),
                "ssl.key.password=canary-3".into(),
            ],
            kafka_options_file: Some(path.clone()),
        };
        let debugged = format!("{args:?}");
        let config = args.validate(&mut problems, Duration::from_secs(1));
        std::fs::remove_file(path).unwrap();
        let config = config.unwrap_or_else(|| panic!("{problems:?}"));
        let text = format!("{debugged} {config:?} {}", config.describe());
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("sasl.password=***"), "{text}");
        assert_eq!(config.pipelined().get("sasl.password"), Some("canary-1"));
    }
}
