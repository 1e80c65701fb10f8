//! Which sink, and with what: the settings that choose one.

use std::{sync::Arc, time::Duration};

use clap::Args;

use super::{
    Sink,
    kafka::{KafkaArgs, KafkaConfig, KafkaSink},
    rabbitmq::{RabbitmqArgs, RabbitmqConfig, RabbitmqSink},
    stdout::StdoutSink,
};
use crate::{
    cloudevents::{AMQP_PREFIX, KAFKA_PREFIX},
    settings::Problems,
};

/// Where events go.
#[derive(Clone, Args)]
#[command(next_help_heading = "Sink")]
pub struct SinkArgs {
    /// kafka, rabbitmq or stdout; inferred from the broker that is set
    #[arg(long, env = "OUTBOXD_SINK", value_name = "SINK")]
    pub sink: Option<String>,

    /// Settings of the Kafka sink.
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// Settings of the RabbitMQ sink.
    #[command(flatten)]
    pub rabbitmq: RabbitmqArgs,
}

/// A validated choice.
pub enum SinkConfig {
    /// Apache Kafka.
    Kafka(KafkaConfig),
    /// RabbitMQ.
    Rabbitmq(RabbitmqConfig),
    /// Standard output.
    Stdout,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kafka,
    Rabbitmq,
    Stdout,
}

const KINDS: [(&str, Kind); 3] = [
    ("kafka", Kind::Kafka),
    ("rabbitmq", Kind::Rabbitmq),
    ("stdout", Kind::Stdout),
];

impl SinkArgs {
    /// Whether any sink was named at all.
    pub fn is_set(&self) -> bool {
        self.sink.is_some() || self.kafka.is_set() || self.rabbitmq.is_set()
    }

    /// What names of CloudEvents attributes begin with on the chosen sink. Standard output shows Kafka's.
    pub fn attribute_prefix(&self) -> &'static str {
        let is_rabbitmq = match self.sink.as_deref() {
            Some(sink) => sink == "rabbitmq",
            None => self.rabbitmq.is_set(),
        };
        if is_rabbitmq {
            AMQP_PREFIX
        } else {
            KAFKA_PREFIX
        }
    }

    /// Checks the settings of the chosen sink; what is wrong is noted in `problems`.
    pub fn validate(
        self,
        problems: &mut Problems,
        publish_timeout: Duration,
    ) -> Option<SinkConfig> {
        let kind = match (&self.sink, self.kafka.is_set(), self.rabbitmq.is_set()) {
            (Some(sink), ..) => problems.choice("sink", sink, &KINDS),
            (None, true, false) => Kind::Kafka,
            (None, false, true) => Kind::Rabbitmq,
            (None, true, true) => {
                problems.add("both --kafka-brokers and --rabbitmq-url are set: say which with --sink kafka or --sink rabbitmq");
                return None;
            }
            (None, false, false) => {
                problems.add("no sink: set --kafka-brokers, --rabbitmq-url or --sink stdout");
                return None;
            }
        };
        match kind {
            Kind::Kafka => self
                .kafka
                .validate(problems, publish_timeout)
                .map(SinkConfig::Kafka),
            Kind::Rabbitmq => self.rabbitmq.validate(problems).map(SinkConfig::Rabbitmq),
            Kind::Stdout => Some(SinkConfig::Stdout),
        }
    }
}

impl SinkConfig {
    /// Makes the sink. Connects to nothing yet.
    ///
    /// # Errors
    /// When the client library cannot make a client of the settings.
    pub fn build(self, publish_timeout: Duration, instance: &str) -> Result<Arc<dyn Sink>, String> {
        Ok(match self {
            Self::Kafka(config) => Arc::new(
                KafkaSink::new(config, publish_timeout).map_err(|error| error.to_string())?,
            ),
            Self::Rabbitmq(config) => {
                Arc::new(RabbitmqSink::new(config, publish_timeout, instance))
            }
            Self::Stdout => Arc::new(StdoutSink::new(publish_timeout)),
        })
    }

    /// The sink and its settings for the start's log line, secrets hidden.
    pub fn describe(&self) -> String {
        match self {
            Self::Kafka(config) => config.describe(),
            Self::Rabbitmq(config) => {
                format!(
                    "{} exchange {:?} order {:?}",
                    config.address(),
                    config.exchange(),
                    config.order()
                )
            }
            Self::Stdout => "stdout".into(),
        }
    }
}
