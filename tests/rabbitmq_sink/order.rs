//! Order per key, and what a consumer sees.

use crate::lab::sending::Sending as _;
use std::{collections::BTreeMap, sync::Arc};

use lapin::types::AMQPValue;
use outboxd::event::Message;

use crate::lab::{Lab, Received, count, first_occurrences, message, sink, unique, word, words};

/// Messages of a few keys in turn, some without a key.
fn batch(queue: &str, keys: usize, count: usize) -> Vec<Message> {
    let key =
        |number: usize| (!number.is_multiple_of(7)).then(|| format!("key-{}", number * 31 % keys));
    (0..count)
        .map(|number| message(queue, key(number).as_deref(), number))
        .collect()
}

fn numbers_by_key(messages: &[Message]) -> BTreeMap<String, Vec<usize>> {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, message) in messages.iter().enumerate() {
        if let Some(key) = &message.key {
            by_key.entry(key.clone()).or_default().push(number);
        }
    }
    by_key
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_arrives_in_order_over_many_waves() {
    let lab = Lab::new().await;
    for order in ["strict", "pipelined"] {
        let queue = lab.queue().await;
        let sink = sink(&["--rabbitmq-url", &lab.url, "--rabbitmq-order", order]);
        let messages = batch(&queue, 40, 5000);
        let outcomes = sink.send(&messages).await;
        assert_eq!(count(&outcomes, "published"), 5000, "{order}");
        let received = lab.read(&queue).await;
        assert_eq!(received.len(), 5000, "{order}: nothing twice");
        let mut by_key = first_occurrences(&received);
        by_key.remove("");
        assert_eq!(by_key, numbers_by_key(&messages), "{order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_four_tasks_do_not_disturb_each_other() {
    let lab = Lab::new().await;
    let sink = Arc::new(lab.sink());
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (sink, queue) = (Arc::clone(&sink), lab.queue().await);
        tasks.push(tokio::spawn(async move {
            let messages = batch(&queue, 20, 1000);
            for _ in 0..3 {
                let outcomes = sink.send(&messages).await;
                assert_eq!(count(&outcomes, "published"), 1000);
            }
            (queue, messages)
        }));
    }
    for task in tasks {
        let (queue, messages) = task.await.expect("no panic");
        let received = lab.read(&queue).await;
        assert_eq!(received.len(), 3000);
        let mut by_key = first_occurrences(&received[..1000]);
        by_key.remove("");
        assert_eq!(by_key, numbers_by_key(&messages));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_charged_for_what_it_refuses_and_keeps_its_keys_in_order() {
    let lab = Lab::new().await;
    let (full, free) = (lab.full_queue(10).await, lab.queue().await);
    let sink = lab.sink();
    // One key of 30 for the full queue, and the same key elsewhere.
    let messages: Vec<_> = (0..60)
        .map(|number| message([&full, &free][number % 2], Some("one"), number))
        .collect();
    let outcomes = sink.send(&messages).await;
    let of_full: Vec<_> = outcomes.iter().step_by(2).map(word).collect();
    let mut expected = vec!["published"; 10];
    expected.push("transient");
    expected.resize(30, "withheld");
    assert_eq!(of_full, expected);
    let mut of_free = outcomes.iter().skip(1).step_by(2).map(word);
    assert!(of_free.all(|word| word == "published"));

    // The relay sends the rest again, from the refused one on, until there is room.
    let mut received = lab.read(&full).await;
    let rest: Vec<_> = messages.iter().step_by(2).skip(10).cloned().collect();
    let outcomes = sink.send(&rest).await;
    assert_eq!(count(&outcomes, "published"), 10);
    received.extend(lab.read(&full).await);
    let numbers: Vec<_> = received.iter().map(Received::number).collect();
    assert_eq!(numbers, (0..40).step_by(2).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_order_charges_only_what_was_refused() {
    let lab = Lab::new().await;
    let full = lab.full_queue(10).await;
    let sink = sink(&["--rabbitmq-url", &lab.url, "--rabbitmq-order", "pipelined"]);
    let messages: Vec<_> = (0..100)
        .map(|number| message(&full, Some("one"), number))
        .collect();
    let outcomes = sink.send(&messages).await;
    let received = lab.read(&full).await;
    assert_eq!(count(&outcomes, "published"), received.len());
    assert_eq!(count(&outcomes, "transient"), 100 - received.len());
    for message in received {
        assert_eq!(word(&outcomes[message.number()]), "published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_sees_the_message_contract() {
    let lab = Lab::new().await;
    let queue = unique("quorum");
    let quorum = AMQPValue::LongString("quorum".into());
    lab.declare(&queue, &[("x-queue-type", quorum)]).await;
    let full = Message {
        id: "0190b5a4-7e57-7000-8000-000000000001".into(),
        destination: queue.clone(),
        key: Some("ключ".into()),
        event_type: "OrderPlaced".into(),
        content_type: "application/json".into(),
        headers: vec![
            ("traceparent".into(), "00-4bf9-01".into()),
            ("aggregate_id".into(), "forged".into()),
        ],
        payload: Some(b"{\"total\": 1}".to_vec()),
        timestamp_ms: 1_700_000_000_999,
    };
    let bare = Message {
        id: "2".into(),
        key: None,
        headers: Vec::new(),
        payload: None,
        ..full.clone()
    };
    let outcomes = lab.sink().send(&[full.clone(), bare]).await;
    assert_eq!(words(&outcomes), ["published", "published"]);

    let [first, second] = &lab.read(&queue).await[..] else {
        panic!("not two messages");
    };
    assert_eq!(first.id, full.id);
    assert_eq!(first.key.as_deref(), Some("ключ"));
    assert_eq!(first.event_type, "OrderPlaced");
    assert_eq!(first.content_type, "application/json");
    let headers: Vec<_> = first.headers.iter().collect();
    assert_eq!(headers, [(&"traceparent".into(), &"00-4bf9-01".into())]);
    assert_eq!(first.timestamp, Some(1_700_000_000));
    assert!(first.persistent);
    assert_eq!(first.payload, b"{\"total\": 1}");
    // A tombstone is an empty body.
    assert_eq!((&second.key, &second.payload[..]), (&None, &b""[..]));
}
