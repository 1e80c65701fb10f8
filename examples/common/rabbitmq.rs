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
    declare(&channel, queue).await?;
    Ok(connection.close(200, "".into()).await?)
}

/// Declares a quorum queue that delivers a message as often as it takes.
pub async fn declare(channel: &Channel, queue: &str) -> Result<(), Failure> {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    // RabbitMQ 4 would drop a message that came back more than 20 times. Its word for no limit is -1,
    // which 3.x takes too, and drops what comes back once: the highest number does for both.
    let limit = AMQPValue::LongInt(i32::MAX);
    arguments.insert("x-delivery-limit".into(), limit);
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, arguments);
    declared.await?;
    Ok(())
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
