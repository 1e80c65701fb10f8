//! What is in the topic afterwards.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    Message, Offset, Timestamp, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
};

use crate::{common::Failure, common::kafka, stage::Scene};

const PATIENCE: Duration = Duration::from_secs(30);

/// Has the broker write down when each message came.
pub async fn stamp_by_broker(scene: &Scene<'_>) -> Result<(), Failure> {
    let admin: AdminClient<DefaultClientContext> = kafka::client(scene.stage.broker).create()?;
    let topic = AlterConfig::new(ResourceSpecifier::Topic(&scene.name))
        .set("message.timestamp.type", "LogAppendTime");
    let altered = admin.alter_configs(&[topic], &AdminOptions::new()).await?;
    for result in altered {
        result.map_err(|(_, error)| format!("Kafka topic {}: {error}", scene.name))?;
    }
    Ok(())
}

/// For the scene's topic.
pub fn consumer(scene: &Scene<'_>) -> Result<BaseConsumer, Failure> {
    let mut config = kafka::client(scene.stage.broker);
    Ok(config.set("group.id", &scene.name).create()?)
}

/// How many messages there are so far.
pub fn count(consumer: &BaseConsumer, scene: &Scene<'_>) -> Result<i64, Failure> {
    let mut sum = 0;
    for partition in 0..kafka::PARTITIONS {
        let (_, end) = consumer.fetch_watermarks(&scene.name, partition, PATIENCE)?;
        sum += end;
    }
    Ok(sum)
}

/// Every event of the outbox, at least once.
pub struct Arrivals {
    /// In milliseconds since 1970, ascending.
    pub stamps: Vec<i64>,
    /// Behind a later event of their key.
    pub late: usize,
    /// More than once.
    pub repeated: usize,
}

/// Of [`Stage`](crate::stage::Stage)'s rows.
#[derive(serde::Deserialize)]
struct Payload {
    /// From 1, ascending with the row's id.
    order: usize,
}

impl Arrivals {
    /// Reads the topic.
    pub fn read(scene: &Scene<'_>) -> Result<Self, Failure> {
        let consumer = consumer(scene)?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..kafka::PARTITIONS {
            partitions.add_partition_offset(&scene.name, partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        let mut reading = Reading::new(scene.stage.rows);
        for _ in 0..count(&consumer, scene)? {
            let message = consumer
                .poll(PATIENCE)
                .ok_or("the topic cannot be read")??;
            reading.add(&message)?;
        }
        reading.finish()
    }
}

struct Reading {
    arrivals: Arrivals,
    seen: Vec<bool>,
    /// The latest event of each key so far.
    latest: HashMap<Vec<u8>, usize>,
}

impl Reading {
    fn new(rows: usize) -> Self {
        let arrivals = Arrivals {
            stamps: Vec::with_capacity(rows),
            late: 0,
            repeated: 0,
        };
        Self {
            arrivals,
            seen: vec![false; rows],
            latest: HashMap::new(),
        }
    }

    fn add(&mut self, message: &BorrowedMessage<'_>) -> Result<(), Failure> {
        let Timestamp::LogAppendTime(stamp) = message.timestamp() else {
            return Err("a message without the broker's time".into());
        };
        self.arrivals.stamps.push(stamp);
        let payload = message.payload().ok_or("a message without payload")?;
        let Payload { order } = serde_json::from_slice(payload)?;
        let key = message.key().ok_or("a message without key")?;
        let mut headers = message.headers().into_iter().flat_map(Headers::iter);
        if !headers.any(|header| header.key == "id") {
            return Err("a message without header id".into());
        }
        let seen = order.checked_sub(1).and_then(|n| self.seen.get_mut(n));
        if std::mem::replace(seen.ok_or("a message of nobody's")?, true) {
            self.arrivals.repeated += 1;
            return Ok(());
        }
        match self.latest.get_mut(key) {
            Some(latest) if *latest > order => self.arrivals.late += 1,
            Some(latest) => *latest = order,
            None => {
                self.latest.insert(key.to_vec(), order);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Arrivals, Failure> {
        match self.seen.iter().filter(|seen| !**seen).count() {
            0 => {
                self.arrivals.stamps.sort_unstable();
                Ok(self.arrivals)
            }
            missing => Err(format!("{missing} events never arrived").into()),
        }
    }
}
