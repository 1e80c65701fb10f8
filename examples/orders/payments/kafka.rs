//! Messages from Kafka.

use std::time::Duration;

use rdkafka::{
    ClientContext, Message, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Headers},
};
use tokio::runtime::Handle;

use super::{Delivery, Payments};
use crate::common::{Failure, kafka::client};

/// What is to be consumed.
pub struct Subscription {
    pub brokers: String,
    pub topic: String,
    pub group: String,
    pub instance: Option<String>,
}

/// Says when an offset could not be committed. Its message then comes again, which does no harm.
struct Warn;

impl ClientContext for Warn {}

impl ConsumerContext for Warn {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(%error, "could not commit an offset");
        }
    }
}

impl Subscription {
    fn open(&self) -> KafkaResult<BaseConsumer<Warn>> {
        let mut config = client(&self.brokers);
        config.set("group.id", &self.group);
        // Only offsets that we store are committed, in the background and when partitions are given
        // back: a commit for each message would be more than a broker keeps up with.
        config.set("enable.auto.offset.store", "false");
        config.set("auto.commit.interval.ms", "100");
        config.set("auto.offset.reset", "earliest");
        // The time after which the partitions of a dead consumer go to others: the least that brokers
        // allow by default.
        config.set("session.timeout.ms", "6000");
        config.set("heartbeat.interval.ms", "2000");
        if let Some(instance) = &self.instance {
            config.set("group.instance.id", instance);
        }
        let consumer: BaseConsumer<Warn> = config.create_with_context(Warn)?;
        consumer.subscribe(&[&self.topic])?;
        Ok(consumer)
    }
}

/// Consumes until told to stop.
pub async fn consume(subscription: Subscription, payments: Payments) -> Result<(), Failure> {
    let runtime = Handle::current();
    // librdkafka's own calls wait: they get a thread of their own.
    let reading =
        tokio::task::spawn_blocking(move || read(&subscription.open()?, &payments, &runtime));
    Ok(reading.await??)
}

fn read(
    consumer: &BaseConsumer<Warn>,
    payments: &Payments,
    runtime: &Handle,
) -> Result<(), KafkaError> {
    while !payments.stop.is_cancelled() {
        let message = match consumer.poll(Duration::from_millis(100)) {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
            Some(Err(error)) => {
                // It connects again by itself, and waits for a topic that is not there yet.
                tracing::warn!(%error, "Kafka");
                continue;
            }
        };
        let delivery = Delivery {
            id: header(&message, "id"),
            event_type: header(&message, "type"),
            payload: message.payload().unwrap_or_default(),
        };
        if runtime.block_on(payments.pay_until_done(delivery)) {
            // After the commit of the effect. It fails when the partition is another's by now, who gets
            // the message again.
            if let Err(error) = consumer.store_offset_from_message(&message) {
                tracing::warn!(%error, "could not store an offset");
            }
        }
    }
    Ok(())
}

/// One of the headers that outboxd sets.
fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let mut headers = message.headers()?.iter();
    let header = headers.find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}
