//! The RabbitMQ sink.
//!
//! # Design notes
//!
//! * One connection, and a channel for each batch on its way: lapin's confirms can be read reliably
//!   only with one batch at a time on a channel (`wave.rs`).
//! * A batch goes out in waves (`plan.rs`). In `strict` order a wave has at most one message of each
//!   (destination, key), since a queue may refuse (nack) any message of a stream and take the next.
//! * Every message is persistent and mandatory. "Confirmed" alone means nothing: an unroutable
//!   message is returned and then confirmed, and lapin may attach the return to another's confirm.
//!   So the end of a wave is a barrier. (Letting each key go on by itself, with care about returns,
//!   was tried: it gains less than 10 %, since several batches are on their way at once.)
//! * Where the broker closes a channel over one message, the others are innocent and unanswered:
//!   they are sent again, ever fewer at a time, until one is left (`publish.rs`, `verdict.rs`). One
//!   such close in a hundred takes the connection with it, by a race in lapin: every batch on it
//!   then goes on with another connection.
//! * What would make the broker close the *connection* is found before anything is sent
//!   (`properties.rs`).
//! * Every wait has a deadline, and ends when the broker blocks us (`connection.rs`). What has no
//!   answer then has an unknown outcome, and nobody is charged.

mod config;
mod connection;
mod dial;
mod plan;
mod properties;
mod publish;
mod url;
mod verdict;
mod wave;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use lapin::{
    BasicProperties, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    protocol::AMQPSoftError,
    types::{FieldTable, ShortString},
};
use tokio::time::Instant;

pub use self::config::{Order, RabbitmqArgs, RabbitmqConfig};
pub(crate) use self::properties::KEY_HEADER;
use self::{
    connection::{Broker, Link},
    dial::{Socket, dial},
    plan::Plan,
    verdict::{channel_error, exchange_name, unroutable},
};
use super::{Outcome, Sink, Unavailable};
use crate::event::Message;

/// How long a question to the broker may take, connecting included.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What RabbitMQ 3 takes at most, unless it is raised; version 4 takes 16 MiB.
pub(crate) const MAX_MESSAGE_BYTES: usize = 128 << 20;
/// RabbitMQ's, unless it is told otherwise.
const USUAL_FRAME_MAX: u32 = 131_072;

/// Publishes to one exchange of a RabbitMQ broker.
pub struct RabbitmqSink {
    broker: Broker,
    publish_timeout: Duration,
}

impl RabbitmqSink {
    /// A sink that connects when it is first used. `instance` names the connection at the broker.
    pub fn new(config: RabbitmqConfig, publish_timeout: Duration, instance: &str) -> Self {
        Self {
            broker: Broker::new(config, instance.into()),
            publish_timeout,
        }
    }

    /// Asks for the exchange. `None` when there is nothing to ask, or no permission to know.
    async fn exchange_missing(
        &self,
        link: &Link,
        deadline: Instant,
    ) -> Result<Option<String>, Unavailable> {
        let exchange = &self.broker.config().exchange;
        if exchange.as_str().is_empty() {
            return Ok(None);
        }
        let options = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let asked = link.ask(deadline, async |channel| {
            let (kind, arguments) = (ExchangeKind::Direct, FieldTable::default());
            let declare = channel.exchange_declare(exchange.clone(), kind, options, arguments);
            declare.await
        });
        let missing = missing(link, asked.await?)?;
        let name = exchange_name(exchange.as_str());
        Ok(missing.map(|text| format!("cannot publish to {name}: {text}; declare it")))
    }
}

#[async_trait]
impl Sink for RabbitmqSink {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    async fn publish(&self, messages: &[&Message]) -> Vec<Outcome> {
        let deadline = Instant::now() + self.publish_timeout;
        match self.broker.link(deadline).await {
            Ok(link) => publish::publish(&self.broker, link, messages, deadline).await,
            Err(unavailable) => {
                Plan::new(messages, self.broker.config().order, HashMap::new()).finish(&unavailable)
            }
        }
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        let deadline = Instant::now() + PROBE_TIMEOUT;
        let link = self.broker.link(deadline).await?;
        if let Some(missing) = self.exchange_missing(&link, deadline).await? {
            return Err(Unavailable::sink(missing));
        }
        // A channel shows that the broker is not merely connected.
        let asked = link.ask(deadline, async |_| Ok(())).await?;
        asked.map_err(|error| link.broken(&error))
    }

    async fn probe_destination(&self, destination: &str) -> Result<(), Unavailable> {
        let Ok(queue) = ShortString::try_new(destination) else {
            let bytes = destination.len();
            let detail = format!("a routing key has 255 bytes at most, this one {bytes}");
            return Err(Unavailable::destination(detail));
        };
        let deadline = Instant::now() + PROBE_TIMEOUT;
        let link = self.broker.link(deadline).await?;
        let exchange = &self.broker.config().exchange;
        if !exchange.as_str().is_empty() {
            let missing = self.exchange_missing(&link, deadline).await?;
            return missing.map_or(Ok(()), |text| Err(Unavailable::destination(text)));
        }
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let asked = link.ask(deadline, async |channel| {
            let declare = channel.queue_declare(queue, options, FieldTable::default());
            declare.await
        });
        match missing(&link, asked.await?)? {
            Some(_) => Err(unroutable("", destination)),
            None => Ok(()),
        }
    }

    fn blocked(&self) -> bool {
        self.broker.blocked()
    }

    fn max_message_bytes(&self) -> usize {
        MAX_MESSAGE_BYTES
    }

    async fn close(&self) {
        self.broker.close().await;
    }
}

/// What is sent for a message: routing key and properties; or why nothing can be.
pub(crate) fn envelope(message: &Message) -> Result<(String, BasicProperties), String> {
    let envelope = properties::envelope(message, USUAL_FRAME_MAX);
    let envelope = envelope.map_err(|reason| reason.to_string())?;
    Ok((envelope.routing_key.to_string(), envelope.properties))
}

/// A connection for reading; cut when dropped.
pub(crate) struct Dialled {
    /// The connection.
    pub(crate) connection: Connection,
    _socket: Socket,
}

/// Connects as the sink does.
pub(crate) async fn connect(
    config: &RabbitmqConfig,
    instance: &str,
) -> Result<Arc<Dialled>, String> {
    let socket = Socket::default();
    let connection = dial(config, &socket, instance).await?;
    Ok(Arc::new(Dialled {
        connection,
        _socket: socket,
    }))
}

/// What the broker said if a thing that was asked for is missing. Other refusals (no permission to
/// ask, someone's exclusive queue) say nothing about publishing to it.
fn missing<T>(link: &Link, answer: lapin::Result<T>) -> Result<Option<String>, Unavailable> {
    let Err(error) = answer else {
        return Ok(None);
    };
    match channel_error(&error) {
        Some((amqp, AMQPSoftError::NOTFOUND)) => Ok(Some(amqp.get_message().to_string())),
        Some(_) => Ok(None),
        None => Err(link.broken(&error)),
    }
}
