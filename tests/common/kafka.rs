//! Kafka for tests: topics, and what a consumer sees of them.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Headers as _, OwnedMessage},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Creates a topic with that many partitions and those settings.
pub async fn create_topic(brokers: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let created = admin.create_topics(&[topic], &options).await.unwrap();
    assert_eq!(created, vec![Ok(name.to_owned())]);
}

/// Everything in a topic, partition by partition in the order of offsets.
pub fn read_topic(brokers: &str, topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "outboxd-tests")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "10")
        .set("fetch.message.max.bytes", "20000000")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    assert!(partitions > 0, "{topic} is not there");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap() {
        assignment
            .add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut messages = Vec::new();
    let mut at_end = 0;
    while at_end < partitions {
        match consumer.poll(PATIENCE).expect("a message or the end") {
            Ok(message) => messages.push(message.detach()),
            Err(KafkaError::PartitionEOF(_)) => at_end += 1,
            Err(error) if is_passing(&error) => {}
            Err(error) => panic!("reading {topic}: {error}"),
        }
    }
    messages.sort_by_key(|message| (message.partition(), message.offset()));
    messages
}

/// A broker that has just started is not there for every connection at once.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
    )
}

/// A message's headers, in their order.
pub fn headers(message: &OwnedMessage) -> Vec<(String, String)> {
    let headers = message.headers().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    headers
        .iter()
        .map(|header| (header.key.to_owned(), text(header.value.unwrap())))
        .collect()
}
