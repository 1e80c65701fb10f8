//! What one generation of the producer knows of its topics: that they exist, and where the broker
//! knows the producer.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::lock::lock;

/// Brokers forget a producer that has been idle for a day (`producer.id.expiration.ms`).
const ACQUAINTED_FOR: Duration = Duration::from_hours(1);

#[derive(Default)]
pub(super) struct Topics(Mutex<HashMap<String, Topic>>);

struct Topic {
    partitions: usize,
    /// Partitions that confirmed a message of this producer: see `is_acquainted`.
    acquainted: HashSet<i32>,
    since: Instant,
}

impl Topics {
    pub(super) fn knows(&self, name: &str) -> bool {
        lock(&self.0).contains_key(name)
    }

    pub(super) fn add(&self, name: &str, partitions: usize) {
        let mut topics = lock(&self.0);
        let topic = topics.entry(name.to_owned()).or_insert_with(|| Topic {
            partitions,
            acquainted: HashSet::new(),
            since: Instant::now(),
        });
        topic.partitions = partitions;
    }

    pub(super) fn forget(&self, name: &str) {
        lock(&self.0).remove(name);
    }

    /// Whether every partition has confirmed a message of this producer.
    ///
    /// A partition that has not accepts whatever sequence number comes first: if it refuses the
    /// first request, it takes the second one, which is already on its way, and the events in it
    /// pass those of the first. (Kafka 4.1 with librdkafka 2.12: the third event of a key in the
    /// log, and not the first two.) Idempotence guards the order from the first confirm on.
    pub(super) fn is_acquainted(&self, name: &str) -> bool {
        let mut topics = lock(&self.0);
        let Some(topic) = topics.get_mut(name) else {
            return false;
        };
        if topic.since.elapsed() > ACQUAINTED_FOR {
            topic.acquainted.clear();
            topic.since = Instant::now();
        }
        topic.acquainted.len() >= topic.partitions
    }

    /// Notes partitions that confirmed a message.
    pub(super) fn acquaint<'a>(&self, confirmed: impl Iterator<Item = (&'a str, i32)>) {
        let mut topics = lock(&self.0);
        for (name, partition) in confirmed {
            if let Some(topic) = topics.get_mut(name) {
                topic.acquainted.insert(partition);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Topics;

    #[test]
    fn a_topic_is_acquainted_when_each_partition_has_confirmed() {
        let topics = Topics::default();
        assert!(!topics.is_acquainted("orders"));
        topics.add("orders", 2);
        topics.acquaint([("orders", 0), ("orders", 0), ("other", 1)].into_iter());
        assert!(!topics.is_acquainted("orders"));
        topics.acquaint([("orders", 1)].into_iter());
        assert!(topics.is_acquainted("orders"));
        topics.forget("orders");
        assert!(!topics.knows("orders"));
        assert!(!topics.is_acquainted("orders"));
    }
}
