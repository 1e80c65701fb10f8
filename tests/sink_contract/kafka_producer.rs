//! The failures of Kafka's producer, by librdkafka's own mock cluster.

use crate::common::sending::Sending as _;
use std::time::{Duration, Instant};

use outboxd::{
    event::Message,
    sink::{Outcome, ReasonKind, Scope, Sink, kafka::KafkaSink},
};
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use crate::{
    kafka_lab::kafka_sink,
    lab::{PATIENCE, all_published, deliver, message, messages, unavailable},
};

type Mock = MockCluster<'static, DefaultProducerContext>;

fn mock(timeout: Duration) -> (Mock, KafkaSink) {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("topic", 4, 1).unwrap();
    let sink = kafka_sink(&mock.bootstrap_servers(), timeout, &[]);
    (mock, sink)
}

#[tokio::test]
async fn a_fatal_producer_error_charges_nobody_and_a_new_producer_goes_on() {
    let (mock, sink) = mock(PATIENCE);
    let batch = messages("topic", 10, 20);
    assert!(all_published(&sink.send(&batch).await));
    let out_of_order = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    mock.request_errors(RDKafkaApiKey::Produce, &[out_of_order]);
    let start = Instant::now();
    let outcomes = sink.send(&batch).await;
    assert!(start.elapsed() < PATIENCE / 2, "it waited for its deadline");
    let failed = outcomes.iter().find(|o| **o != Outcome::Published).unwrap();
    let detail = &unavailable(failed, Scope::Sink).detail;
    assert!(detail.contains("sequence"), "{detail}");
    assert_eq!(sink.probe().await, Ok(()));
    assert!(deliver(&sink, &batch).await.is_empty());
}

#[tokio::test]
async fn an_unclear_refusal_is_charged_only_to_a_message_sent_alone() {
    let (mock, _) = mock(PATIENCE);
    // That the others are together.
    let sink = kafka_sink(&mock.bootstrap_servers(), PATIENCE, &["linger.ms=20"]);
    let unclear = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN;
    let fine = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    let batch: Vec<_> = (0..5).map(|n| message("topic", "k", n)).collect();
    // The first message goes first to a topic that is new to the producer, the others together.
    mock.request_errors(RDKafkaApiKey::Produce, &[fine, unclear, fine, unclear]);
    let outcomes = sink.send(&batch).await;
    assert_eq!(outcomes[0], Outcome::Published);
    assert_eq!(outcomes[1], Outcome::Published);
    assert!(matches!(&outcomes[2], Outcome::Transient(r) if r.kind == ReasonKind::Refused));
    assert_eq!(outcomes[3..], [Outcome::Withheld, Outcome::Withheld]);
    assert_eq!(deliver(&sink, &batch[2..]).await.len(), 0);
}

#[tokio::test]
async fn a_refusal_by_policy_is_not_tried_again() {
    let (mock, sink) = mock(PATIENCE);
    let policy = RDKafkaRespErr::RD_KAFKA_RESP_ERR_POLICY_VIOLATION;
    mock.request_errors(RDKafkaApiKey::Produce, &[policy, policy]);
    let outcomes = sink.send(&[message("topic", "k", 0)]).await;
    assert!(matches!(&outcomes[0], Outcome::Rejected(r) if r.kind == ReasonKind::Refused));
}

#[tokio::test]
async fn what_passes_is_tried_again_by_the_producer_itself() {
    let (mock, sink) = mock(PATIENCE);
    let passing = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    mock.request_errors(RDKafkaApiKey::Produce, &passing);
    assert!(all_published(&sink.send(&messages("topic", 10, 20)).await));
}

#[tokio::test]
async fn a_hung_broker_is_given_up_in_time_by_all_workers() {
    let timeout = Duration::from_secs(2);
    let (mock, sink) = mock(timeout);
    let batch = messages("topic", 10, 20);
    assert!(all_published(&sink.send(&batch).await));
    mock.broker_round_trip_time(1, Duration::from_mins(1))
        .unwrap();
    let start = Instant::now();
    let others = messages("topic", 10, 20);
    let (one, two) = tokio::join!(sink.send(&batch), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        sink.send(&others).await
    });
    assert!(start.elapsed() <= timeout + Duration::from_millis(300));
    unavailable(&one[0], Scope::Sink);
    for outcome in one.iter().chain(&two).filter(|o| **o != Outcome::Withheld) {
        unavailable(outcome, Scope::Sink);
    }
    mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    while sink.probe().await.is_err() {}
    assert!(deliver(&sink, &batch).await.is_empty());
}

#[tokio::test]
async fn a_topic_that_does_not_answer_pauses_alone() {
    let timeout = Duration::from_secs(2);
    let mock = MockCluster::new(2).unwrap();
    for (topic, leader) in [("good", 1), ("silent", 2)] {
        mock.create_topic(topic, 1, 1).unwrap();
        mock.partition_leader(topic, 0, Some(leader)).unwrap();
    }
    let sink = kafka_sink(&mock.bootstrap_servers(), timeout, &[]);
    let mut batch = messages("good", 3, 1);
    batch.extend(messages("silent", 3, 1));
    assert!(all_published(&sink.send(&batch).await));
    mock.broker_round_trip_time(2, Duration::from_mins(1))
        .unwrap();
    let start = Instant::now();
    let outcomes = sink.send(&batch).await;
    assert!(start.elapsed() <= timeout, "{:?}", start.elapsed());
    assert!(all_published(&outcomes[..3]));
    for outcome in &outcomes[3..] {
        let detail = &unavailable(outcome, Scope::Destination).detail;
        assert!(detail.contains("min.insync.replicas"), "{detail}");
    }
}

#[tokio::test]
async fn a_batch_larger_than_the_queue_waits_for_room() {
    let (mock, sink) = mock(PATIENCE);
    assert!(all_published(&sink.send(&messages("topic", 40, 1)).await));
    mock.broker_round_trip_time(1, Duration::from_millis(100))
        .unwrap();
    let small = |n: usize| Message {
        payload: None,
        ..message("topic", &format!("k{}", n % 40), n / 40)
    };
    let batch: Vec<_> = (0..250_000).map(small).collect();
    let outcomes = sink.send(&batch).await;
    assert!(all_published(&outcomes));
}

#[tokio::test]
async fn a_partition_without_a_leader_pauses_its_topic() {
    let (mock, sink) = mock(PATIENCE);
    mock.partition_leader("topic", 2, None).unwrap();
    let outcomes = sink.send(&messages("topic", 10, 1)).await;
    let detail = &unavailable(&outcomes[0], Scope::Destination).detail;
    assert!(detail.contains("no leader"), "{detail}");
    assert!(sink.probe_destination("topic").await.is_err());
    mock.partition_leader("topic", 2, Some(1)).unwrap();
    assert_eq!(sink.probe_destination("topic").await, Ok(()));
    assert!(all_published(&sink.send(&messages("topic", 10, 1)).await));
}
