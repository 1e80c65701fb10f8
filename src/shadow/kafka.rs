//! Reading what another relay sends to Kafka: every partition, no group, nothing committed.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
};
use tokio::sync::mpsc;

use super::{Start, Stream, compare::Sent, sides::Theirs};
use crate::{
    event::Message,
    sink::kafka::{self, KafkaConfig, Partitioner},
};

const PATIENCE: Duration = Duration::from_secs(15);
/// How soon the end of the command is noticed.
const POLL: Duration = Duration::from_millis(100);

/// What outboxd would send.
pub(super) fn ours(message: &Message) -> Result<Sent, String> {
    let record = kafka::record(message)?;
    let headers = record.headers.iter().flat_map(|headers| headers.iter());
    Ok(Sent {
        exchange: None,
        destination: record.topic.to_owned(),
        key: record.key.map(|key| key.as_bytes().to_vec()),
        headers: headers
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect(),
        payload: record.payload.map(<[u8]>::to_vec),
    })
}

/// Begins to read; where it begins is fixed when this returns. Blocks.
pub(super) fn follow(
    config: &KafkaConfig,
    topics: &[String],
    start: Start,
) -> Result<Stream, String> {
    let consumer = config.consumer().create();
    let reader = Reader {
        consumer: consumer.map_err(|error| error.to_string())?,
        partitioner: config.partitioner(),
        partitions: HashMap::new(),
    };
    reader.begin(topics, start)
}

struct Reader {
    consumer: BaseConsumer,
    partitioner: Option<Partitioner>,
    /// How many each topic has.
    partitions: HashMap<String, i32>,
}

impl Reader {
    fn begin(mut self, topics: &[String], start: Start) -> Result<Stream, String> {
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            let count = self.count_partitions(topic)?;
            for partition in 0..count {
                let offset = self.offset(topic, partition, start)?;
                let added = assignment.add_partition_offset(topic, partition, offset);
                added.map_err(|error| format!("{topic}: {error}"))?;
            }
            self.partitions.insert(topic.clone(), count);
        }
        let assigned = self.consumer.assign(&assignment);
        assigned.map_err(|error| format!("reading {}: {error}", topics.join(", ")))?;
        let (sender, messages) = mpsc::channel(super::CHANNEL);
        let (failing, failure) = mpsc::channel(1);
        // It ends soon after the receiver is gone.
        std::thread::spawn(move || {
            if let Err(error) = self.read(&sender) {
                let _ = failing.try_send(error);
            }
        });
        Ok(Stream { messages, failure })
    }

    fn count_partitions(&self, topic: &str) -> Result<i32, String> {
        let metadata = self.consumer.fetch_metadata(Some(topic), PATIENCE);
        let metadata = metadata.map_err(|error| format!("Kafka cannot be read: {error}"))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| (found.error(), found.partitions().len())) {
            Some((None, count)) if count > 0 => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
            Some((Some(error), _)) => {
                let error = RDKafkaErrorCode::from(error);
                Err(format!("topic {topic} cannot be followed: {error}"))
            }
            _ => Err(format!("there is no topic {topic}")),
        }
    }

    fn offset(&self, topic: &str, partition: i32, start: Start) -> Result<Offset, String> {
        if start == Start::Beginning {
            return Ok(Offset::Beginning);
        }
        let marks = self.consumer.fetch_watermarks(topic, partition, PATIENCE);
        let (_, end) = marks.map_err(|error| format!("topic {topic}: {error}"))?;
        Ok(Offset::Offset(end))
    }

    fn read(&self, sender: &mpsc::Sender<Theirs>) -> Result<(), String> {
        while !sender.is_closed() {
            match self.consumer.poll(POLL) {
                None => {}
                // A receiver that is gone ends the loop.
                Some(Ok(message)) => drop(sender.blocking_send(self.theirs(&message))),
                Some(Err(error)) if is_final(&error) => return Err(error.to_string()),
                // The client connects again by itself.
                Some(Err(error)) => tracing::debug!(%error, "reading from Kafka"),
            }
        }
        Ok(())
    }

    fn theirs(&self, message: &BorrowedMessage<'_>) -> Theirs {
        let (topic, partition) = (message.topic(), message.partition());
        let headers = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter());
        let key = message.key();
        let count = self.partitions.get(topic).copied().unwrap_or_default();
        let chosen = self
            .partitioner
            .zip(key)
            .map(|(by, key)| by.partition(key, count));
        Theirs {
            at: format!("{topic}[{partition}]@{}", message.offset()),
            stream: format!("{partition}"),
            our_partition: chosen.filter(|chosen| *chosen != partition),
            sent: Sent {
                exchange: None,
                destination: topic.to_owned(),
                key: key.map(<[u8]>::to_vec),
                headers: headers
                    .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                    .collect(),
                payload: message.payload().map(<[u8]>::to_vec),
            },
        }
    }
}

/// Whether waiting is of no use.
fn is_final(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::TopicAuthorizationFailed
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::SaslAuthenticationFailed
                | Code::Fatal
        )
    )
}
