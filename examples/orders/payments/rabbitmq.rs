//! Messages from RabbitMQ.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    Channel, Connection, Error, ErrorKind,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{FieldTable, ShortString},
};
use tokio::time::sleep;

use super::{Delivery, Payments};
use crate::common::{
    Failure,
    rabbitmq::{connect, declare},
};

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
    let (connection, channel) = connect(url).await?;
    let channel = with_queue(&connection, channel, queue).await?;
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
        let (id, event_type) = (message.properties.message_id(), message.properties.kind());
        let delivery = Delivery {
            id: id.as_ref().map(ShortString::as_str),
            event_type: event_type.as_ref().map(ShortString::as_str),
            payload: &message.data,
        };
        if payments.pay_until_done(delivery).await {
            message.ack(BasicAckOptions::default()).await?;
        }
    }
    Ok(connection.close(200, "".into()).await?)
}

/// Makes the queue if there is none: the relay waits for it. One that is there is taken as it is: to
/// declare it with other arguments than its own would fail.
async fn with_queue(
    connection: &Connection,
    channel: Channel,
    queue: &str,
) -> Result<Channel, Failure> {
    let only_ask = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let asked = channel.queue_declare(queue.into(), only_ask, FieldTable::default());
    match asked.await {
        Ok(_) => Ok(channel),
        Err(error) if is_not_found(&error) => {
            // The answer has closed the channel, which lapin logs as an error.
            let channel = connection.create_channel().await?;
            declare(&channel, queue).await?;
            Ok(channel)
        }
        Err(error) => Err(error.into()),
    }
}

fn is_not_found(error: &Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return false;
    };
    *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)
}
