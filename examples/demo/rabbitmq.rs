//! RabbitMQ as a consumer sees it.

use futures_util::StreamExt;
use lapin::{
    BasicProperties, Connection,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure,
    common::rabbitmq::connect,
    consumer::{Arrival, Arrivals},
};

const PREFETCH: u16 = 500;

/// Subscribes to a queue.
pub async fn subscribe(url: &str, queue: &str) -> Result<Subscription, Failure> {
    let (connection, channel) = connect(url).await?;
    let qos = channel.basic_qos(PREFETCH, BasicQosOptions::default());
    qos.await?;
    let consumer = channel
        .basic_consume(
            queue.into(),
            "demo".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(Subscription {
        connection,
        consumer,
    })
}

/// A subscription with acknowledgements by hand.
pub struct Subscription {
    connection: Connection,
    consumer: lapin::Consumer,
}

impl Subscription {
    /// Reads until told to stop.
    pub async fn read(
        mut self,
        stop: CancellationToken,
        mut arrivals: Arrivals,
    ) -> Result<Arrivals, Failure> {
        loop {
            let delivery = tokio::select! {
                delivery = self.consumer.next() => delivery,
                () = stop.cancelled() => break,
            };
            let delivery = delivery.ok_or("RabbitMQ ended the subscription")??;
            arrivals.push(arrival(&delivery.properties, &delivery.data)?);
            delivery.ack(BasicAckOptions::default()).await?;
        }
        self.connection.close(200, "".into()).await?;
        Ok(arrivals)
    }
}

fn arrival(properties: &BasicProperties, payload: &[u8]) -> Result<Arrival, Failure> {
    let id = properties.message_id().as_ref();
    let id = id.ok_or("a RabbitMQ message without message_id")?;
    let headers = properties.headers().as_ref();
    let key = headers.and_then(|headers| headers.inner().get("aggregate_id"));
    let Some(AMQPValue::LongString(key)) = key else {
        return Err("a RabbitMQ message without the header aggregate_id".into());
    };
    let key = std::str::from_utf8(key.as_bytes())?;
    Arrival::new(id.as_str(), key, payload)
}
