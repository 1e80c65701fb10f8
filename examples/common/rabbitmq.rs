//! RabbitMQ as an operator sees it.

use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

use super::Failure;

/// Makes a quorum queue.
pub async fn create(url: &str, queue: &str) -> Result<(), Failure> {
    let (connection, channel) = connect(url).await?;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, arguments);
    declared.await?;
    Ok(connection.close(200, "".into()).await?)
}

/// Removes a queue.
pub async fn delete(url: &str, queue: &str) -> Result<(), Failure> {
    let (connection, channel) = connect(url).await?;
    let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
    deleted.await?;
    Ok(connection.close(200, "".into()).await?)
}

/// A connection and a channel on it.
pub async fn connect(url: &str) -> Result<(Connection, Channel), Failure> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}
