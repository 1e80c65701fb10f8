//! Reading what another relay sends to RabbitMQ, from a queue that is there for this.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::sync::mpsc;

use super::{Stream, compare::Sent, sides::Theirs};
use crate::{
    event::Message,
    sink::rabbitmq::{self, Dialled, KEY_HEADER, RabbitmqConfig},
};

/// Messages on their way to us, at most.
const PREFETCH: u16 = 1000;

/// What outboxd would send.
pub(super) fn ours(message: &Message, exchange: &str) -> Result<Sent, String> {
    let (routing_key, properties) = rabbitmq::envelope(message)?;
    let body = message.payload.clone().unwrap_or_default();
    Ok(sent(exchange, &routing_key, &properties, body))
}

/// Begins to read all queues, on one connection.
pub(super) async fn follow(config: &RabbitmqConfig, queues: &[String]) -> Result<Stream, String> {
    let instance = format!("shadow@{}", std::process::id());
    let dialled = rabbitmq::connect(config, &instance).await;
    let dialled = dialled.map_err(|error| format!("cannot connect to RabbitMQ: {error}"))?;
    let (sender, messages) = mpsc::channel(super::CHANNEL);
    let (failing, failure) = mpsc::channel(1);
    for queue in queues {
        let reader = Reader::open(Arc::clone(&dialled), queue).await?;
        let (sender, failing) = (sender.clone(), failing.clone());
        tokio::spawn(async move {
            if let Err(error) = reader.read(&sender).await {
                // One is enough to know.
                let _ = failing.try_send(error);
            }
        });
    }
    Ok(Stream { messages, failure })
}

/// Reads one queue.
struct Reader {
    queue: String,
    deliveries: Consumer,
    /// They live as long as what reads from them.
    _open: (Channel, Arc<Dialled>),
}

impl Reader {
    async fn open(dialled: Arc<Dialled>, queue: &str) -> Result<Self, String> {
        let name = ShortString::try_new(queue)
            .map_err(|_| format!("{queue:?} is no queue's name: AMQP allows 255 bytes"))?;
        let opening = async {
            let channel = dialled.connection.create_channel().await?;
            channel
                .basic_qos(PREFETCH, BasicQosOptions::default())
                .await?;
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let tag = ShortString::default();
            let deliveries = channel.basic_consume(name, tag, options, arguments).await?;
            Ok::<_, lapin::Error>((channel, deliveries))
        };
        let (channel, deliveries) = opening
            .await
            .map_err(|error| format!("queue {queue} cannot be read: {error}"))?;
        Ok(Self {
            queue: queue.to_owned(),
            deliveries,
            _open: (channel, dialled),
        })
    }

    /// Until nobody listens; else gives why it ended.
    async fn read(mut self, sender: &mpsc::Sender<Theirs>) -> Result<(), String> {
        let problem = |error: &str| format!("reading queue {}: {error}", self.queue);
        loop {
            let delivery = tokio::select! {
                delivery = self.deliveries.next() => delivery,
                () = sender.closed() => return Ok(()),
            };
            let delivery = delivery
                .ok_or_else(|| problem("the broker ended it: is the queue gone?"))?
                .map_err(|error| problem(&error.to_string()))?;
            // Read is read: the queue is there for nothing else.
            let acked = delivery.ack(BasicAckOptions::default()).await;
            acked.map_err(|error| problem(&error.to_string()))?;
            if sender.send(theirs(&self.queue, delivery)).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn theirs(queue: &str, delivery: Delivery) -> Theirs {
    let (exchange, routing_key) = (delivery.exchange.as_str(), delivery.routing_key.as_str());
    Theirs {
        at: format!("queue {queue}, delivery {}", delivery.delivery_tag),
        stream: queue.to_owned(),
        our_partition: None,
        sent: sent(exchange, routing_key, &delivery.properties, delivery.data),
    }
}

fn sent(exchange: &str, routing_key: &str, properties: &BasicProperties, body: Vec<u8>) -> Sent {
    let mut headers = of_properties(properties);
    let mut key = None;
    let table = properties.headers().clone().unwrap_or_default();
    for (name, value) in table.inner() {
        let value = text(value);
        if name.as_str() == KEY_HEADER {
            key = Some(value.clone());
        }
        headers.push((name.to_string(), Some(value)));
    }
    Sent {
        exchange: Some(exchange.to_owned()),
        destination: routing_key.to_owned(),
        key,
        headers,
        payload: Some(body),
    }
}

/// Those that are set; but for when it was sent and how it is stored.
fn of_properties(properties: &BasicProperties) -> Vec<(String, Option<Vec<u8>>)> {
    let priority = properties
        .priority()
        .map(|it| ShortString::from(it.to_string()));
    let named = [
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
        ("priority", &priority),
    ];
    let set = named
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)));
    set.map(|(name, value)| (name.to_owned(), Some(value.as_str().as_bytes().to_vec())))
        .collect()
}

/// Text as it is; what is of another type is not the same as its text.
fn text(value: &AMQPValue) -> Vec<u8> {
    match value {
        AMQPValue::LongString(text) => text.as_bytes().to_vec(),
        AMQPValue::ShortString(text) => text.as_str().as_bytes().to_vec(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().to_vec(),
        other => format!("{other:?}").into_bytes(),
    }
}
