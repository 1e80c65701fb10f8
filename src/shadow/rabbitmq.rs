//! Reading what another relay sends to RabbitMQ, from a queue that is there for this.

use futures_util::StreamExt;
use lapin::{
    BasicProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::sync::mpsc;

use super::{Stream, compare::Sent, ledger::Theirs};
use crate::{
    event::Message,
    sink::rabbitmq::{self, KEY_HEADER, RabbitmqConfig},
};

/// Messages on their way to us, at most.
const PREFETCH: u16 = 1000;

/// What outboxd would send.
pub(super) fn ours(message: &Message, exchange: &str) -> Result<Sent, String> {
    let (routing_key, properties) = rabbitmq::envelope(message)?;
    let body = message.payload.clone().unwrap_or_default();
    Ok(sent(exchange, &routing_key, &properties, body))
}

/// Begins to read all queues on one connection.
pub(super) async fn follow(config: &RabbitmqConfig, queues: &[String]) -> Result<Stream, String> {
    let instance = format!("shadow@{}", std::process::id());
    let dialled = rabbitmq::connect(config, &instance).await;
    let dialled = dialled.map_err(|error| format!("cannot connect to RabbitMQ: {error}"))?;
    let (sender, messages) = mpsc::channel(super::CHANNEL);
    let (failing, failure) = mpsc::channel(1);
    let mut consumers = Vec::new();
    for queue in queues {
        let refused = |error: lapin::Error| format!("queue {queue} cannot be read: {error}");
        let name = ShortString::try_new(queue.as_str());
        let name =
            name.map_err(|_| format!("{queue:?} is no queue's name: AMQP allows 255 bytes"))?;
        let channel = dialled.connection.create_channel().await.map_err(refused)?;
        let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
        qos.await.map_err(refused)?;
        let consumer = channel.basic_consume(
            name,
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        consumers.push((
            queue.clone(),
            channel.clone(),
            consumer.await.map_err(refused)?,
        ));
    }
    for (queue, channel, mut consumer) in consumers {
        let (sender, failing, dialled) = (sender.clone(), failing.clone(), dialled.clone());
        tokio::spawn(async move {
            // The connection and the channel live as long as what reads from them.
            let _open = (dialled, channel);
            let error = loop {
                let delivery = tokio::select! {
                    delivery = consumer.next() => delivery,
                    () = sender.closed() => return,
                };
                let delivery = match delivery {
                    Some(Ok(delivery)) => delivery,
                    Some(Err(error)) => break error.to_string(),
                    None => break "the broker ended it: is the queue gone?".to_owned(),
                };
                // Read is read: the queue is there for nothing else.
                if let Err(error) = delivery.ack(BasicAckOptions::default()).await {
                    break error.to_string();
                }
                if sender.send(theirs(&queue, delivery)).await.is_err() {
                    return;
                }
            };
            let _ = failing.try_send(format!("reading queue {queue}: {error}"));
        });
    }
    Ok(Stream { messages, failure })
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
            key = Some(value);
        } else {
            headers.push((name.to_string(), Some(value)));
        }
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
