//! RabbitMQ for tests: queues, and what a consumer sees of them.

use futures_util::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

pub async fn connect(url: &str) -> Connection {
    let connection = Connection::connect(url, ConnectionProperties::default());
    connection.await.unwrap()
}

/// Declares a durable queue.
pub async fn declare(url: &str, name: &str, arguments: FieldTable) {
    let connection = connect(url).await;
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .queue_declare(name.into(), options, arguments)
        .await
        .unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

/// The exchange that [`bind`] and [`unbind`] are about.
pub const EXCHANGE: &str = "amq.direct";

/// Has a queue take what is published to [`EXCHANGE`] under its name.
pub async fn bind(url: &str, queue: &str) {
    let connection = connect(url).await;
    let channel = connection.create_channel().await.unwrap();
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(
            queue.into(),
            EXCHANGE.into(),
            queue.into(),
            options,
            arguments,
        )
        .await
        .unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

/// Ends that.
pub async fn unbind(url: &str, queue: &str) {
    let connection = connect(url).await;
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_unbind(
            queue.into(),
            EXCHANGE.into(),
            queue.into(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

/// Everything that is in a queue now, in its order; taken out of it, or left in its place.
pub async fn read(url: &str, queue: &str, take: bool) -> Vec<Delivery> {
    let connection = connect(url).await;
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let declared = channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await
        .unwrap();
    let count = declared.message_count() as usize;
    let options = BasicConsumeOptions::default();
    let consumer = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .unwrap();
    let deliveries: Vec<_> = consumer.take(count).map(Result::unwrap).collect().await;
    // What is not acknowledged goes back to its place.
    if let (true, Some(last)) = (take, deliveries.last()) {
        last.ack(BasicAckOptions { multiple: true }).await.unwrap();
    }
    channel.close(200, "done".into()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    deliveries
}

/// The headers, in the order of their names; all are long strings.
pub fn headers(delivery: &Delivery) -> Vec<(String, String)> {
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    let text = |(name, value): (&ShortString, &AMQPValue)| match value {
        AMQPValue::LongString(text) => (name.to_string(), text.to_string()),
        other => panic!("header {name} is {other:?}"),
    };
    headers.inner().iter().map(text).collect()
}

pub fn text(property: Option<&ShortString>) -> String {
    property.map(ToString::to_string).unwrap_or_default()
}
