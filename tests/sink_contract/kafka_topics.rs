//! Kafka: partitions, topics that come and go, and messages the broker refuses.

use crate::common::sending::Sending as _;
use std::{sync::Arc, time::Instant};

use outboxd::sink::{Outcome, ReasonKind, Scope, Sink};
use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

use crate::{
    common::{env, kafka},
    kafka_lab::{new_topic, read, seen, sink},
    lab::{
        PATIENCE, all_published, deliver, first_occurrences, large, message, messages, unavailable,
    },
};

#[tokio::test]
async fn keys_go_to_the_partitions_of_javas_producer() {
    let topic = new_topic(7, &[]).await;
    // From the tests of org.apache.kafka.common.utils.Utils.murmur2.
    let hashes = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ];
    let batch: Vec<_> = hashes
        .iter()
        .map(|(key, _)| message(&topic, key, 0))
        .collect();
    assert!(all_published(&sink(&[]).send(&batch).await));
    let seen = read(&topic).await;
    for (key, hash) in hashes {
        let of_key = |m: &&rdkafka::message::OwnedMessage| m.key() == Some(key.as_bytes());
        let message = seen.iter().find(of_key).unwrap();
        assert_eq!(message.partition(), (hash & 0x7fff_ffff) % 7, "{key}");
    }
}

#[tokio::test]
async fn a_partition_new_to_the_producer_does_not_let_a_key_pass() {
    let topic = new_topic(1, &[("max.message.bytes", "10000")]).await;
    // One message a request, so that the next one is on its way when the first is refused.
    let sink = sink(&["batch.num.messages=1", "linger.ms=0"]);
    let mut batch = messages(&topic, 1, 8);
    batch[0] = large(&topic, "k0", 0, 20_000);
    let outcomes = sink.send(&batch).await;
    assert!(matches!(&outcomes[0], Outcome::Rejected(r) if r.kind == ReasonKind::TooLarge));
    assert!(outcomes[1..].iter().all(|o| *o == Outcome::Withheld));
    assert_eq!(read(&topic).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn culprits_of_one_worker_do_not_reorder_the_keys_of_another() {
    let topic = new_topic(3, &[("max.message.bytes", "10000")]).await;
    // Small requests, so that several of a partition are on their way at once.
    let sink = Arc::new(sink(&["batch.num.messages=2", "linger.ms=0"]));
    let start = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (sink, topic) = (Arc::clone(&sink), topic.clone());
        workers.spawn(async move {
            let key = |n: usize| format!("w{worker}-{}", n % 5);
            let mut all: Vec<_> = (0..500).map(|n| message(&topic, &key(n), n / 5)).collect();
            for n in [0, 1, 7, 130 + worker, 250 + 17 * worker] {
                all[n] = large(&topic, &key(n), n / 5, 20_000);
            }
            let mut charged = Vec::new();
            for batch in all.chunks(125) {
                charged.extend(deliver(sink.as_ref(), batch).await);
            }
            charged.len()
        });
    }
    while let Some(charged) = workers.join_next().await {
        assert_eq!(charged.unwrap(), 5);
    }
    let waited = start.elapsed() > 2 * PATIENCE;
    assert!(
        !waited,
        "batches wait for their deadline: {:?}",
        start.elapsed()
    );
    let seen: Vec<_> = read(&topic).await.iter().map(seen).collect();
    let first = first_occurrences(&seen);
    assert_eq!(first.values().map(Vec::len).sum::<usize>(), 4 * (500 - 5));
    for (key, numbers) in first {
        assert!(numbers.is_sorted(), "{key:?}: {numbers:?}");
    }
}

#[tokio::test]
async fn a_deleted_topic_pauses_until_it_is_there_again() {
    let topic = new_topic(2, &[]).await;
    let sink = sink(&[]);
    assert!(all_published(&sink.send(&messages(&topic, 4, 2)).await));
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", env("TEST_KAFKA_BROKERS"))
        .create()
        .unwrap();
    admin
        .delete_topics(&[&topic], &AdminOptions::new())
        .await
        .unwrap();

    let batch = messages(&topic, 4, 10);
    let outcomes = sink.send(&batch).await;
    assert!(
        unavailable(&outcomes[0], Scope::Destination)
            .detail
            .contains("create it")
    );
    assert!(!outcomes.contains(&Outcome::Published));

    kafka::create_topic(&env("TEST_KAFKA_BROKERS"), &topic, 2, &[]).await;
    while sink.probe_destination(&topic).await.is_err() {}
    assert!(deliver(&sink, &batch).await.is_empty());
}

#[tokio::test]
async fn a_record_the_broker_finds_invalid_charges_only_itself() {
    let compacted = new_topic(1, &[("cleanup.policy", "compact")]).await;
    let mut batch = messages(&compacted, 20, 1);
    batch[9].key = None;
    let charged = deliver(&sink(&[]), &batch).await;
    assert_eq!(charged.len(), 1);
    assert!(matches!(&charged["k9/0"], Outcome::Rejected(r) if r.kind == ReasonKind::Invalid));

    let topic = new_topic(1, &[]).await;
    let mut batch = messages(&topic, 20, 1);
    batch[9].timestamp_ms = 32_503_680_000_000; // the year 3000
    let charged = deliver(&sink(&[]), &batch).await;
    assert_eq!(charged.len(), 1);
    assert!(matches!(&charged["k9/0"], Outcome::Rejected(r) if r.kind == ReasonKind::Invalid));
}

#[tokio::test]
async fn a_request_too_large_for_its_topic_charges_none_of_its_messages() {
    let topic = new_topic(1, &[("max.message.bytes", "50000")]).await;
    let keys = (0..100).map(|n| format!("k{n}"));
    let batch: Vec<_> = keys.map(|key| large(&topic, &key, 0, 1024)).collect();
    assert!(deliver(&sink(&[]), &batch).await.is_empty());
    assert_eq!(read(&topic).await.len(), 100);
}
