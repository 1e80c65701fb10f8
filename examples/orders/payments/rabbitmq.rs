//! Messages from RabbitMQ.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::sleep;

use super::Payments;
use crate::Failure;

/// How many messages the broker sends ahead of their acknowledgements.
const PREFETCH: u16 = 100;
const PAUSE: Duration = Duration::from_secs(1);

/// Consumes until told to stop, over as many connections as that takes.
pub async fn consume(url: &str, queue: &str, payments: &Payments) -> Result<(), Failure> {
    while let Err(error) = read(url, queue, payments).await {
        tracing::warn!(%error, "RabbitMQ: will connect again");
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = payments.stop.cancelled() => break,
        }
    }
    Ok(())
}

/// One connection. What is not acknowledged when it ends, RabbitMQ delivers again.
async fn read(url: &str, queue: &str, payments: &Payments) -> Result<(), Failure> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    declare(&channel, queue).await?;
    let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    qos.await?;
    let mut messages = channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = payments.stop.cancelled() => break,
        };
        let message = message.ok_or("the queue has been deleted")??;
        let id = message.properties.message_id().as_ref();
        let id = id.map(ShortString::as_str);
        if payments.settle(id, &message.data).await {
            message.ack(BasicAckOptions::default()).await?;
        }
    }
    Ok(connection.close(200, "".into()).await?)
}

/// A quorum queue, unless it is there already: the relay waits for it.
async fn declare(channel: &Channel, queue: &str) -> Result<(), Failure> {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, arguments);
    declared.await?;
    Ok(())
}
