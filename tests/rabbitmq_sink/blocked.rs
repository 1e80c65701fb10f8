//! A broker without memory: it blocks publishers, who would wait for ever.

use crate::lab::sending::Sending as _;
use std::{sync::Arc, time::Duration};

use outboxd::sink::Sink;
use tokio::time::Instant;

use crate::lab::{Lab, PrivateBroker, count, detail, message, word, words};

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_blocks_charges_nobody_and_passes() {
    let broker = PrivateBroker::up();
    let lab = Lab::at(&broker.url).await;
    let (queue, sink) = (lab.queue().await, Arc::new(lab.sink()));
    let outcomes = sink.send(&[message(&queue, Some("key"), 0)]).await;
    assert_eq!(words(&outcomes), ["published"]);
    assert!(!sink.blocked());

    // Tasks publish as the alarm goes off.
    let mut tasks = Vec::new();
    for task in 1..=4 {
        let (sink, queue) = (Arc::clone(&sink), queue.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0.. {
                let first = (task * 100_000 + round) * 10;
                let messages: Vec<_> = (first..first + 10)
                    .map(|number| message(&queue, Some("key"), number))
                    .collect();
                let start = Instant::now();
                let outcomes = sink.send(&messages).await;
                if count(&outcomes, "published") < 10 {
                    return (outcomes, start.elapsed());
                }
            }
            unreachable!()
        }));
    }
    broker.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1"]);
    for task in tasks {
        let (outcomes, elapsed) = task.await.expect("no panic");
        assert!(elapsed < Duration::from_secs(5), "waited {elapsed:?}");
        let failed = outcomes
            .iter()
            .position(|outcome| word(outcome) != "published");
        let failed = failed.expect("one");
        assert_eq!(word(&outcomes[failed]), "sink");
        assert!(detail(&outcomes[failed]).contains("blocked by the broker"));
        assert_eq!(count(&outcomes, "withheld"), 9 - failed);
    }
    assert!(sink.blocked());
    let told = sink.probe().await.expect_err("blocked").detail;
    assert!(told.contains("memory"), "{told}");
    assert!(told.contains("rabbitmqctl status"), "{told}");
    let start = Instant::now();
    let outcomes = sink.send(&[message(&queue, Some("key"), 1)]).await;
    assert_eq!(words(&outcomes), ["sink"]);
    assert!(start.elapsed() < Duration::from_millis(100));

    broker.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "2GB"]);
    while sink.probe().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!sink.blocked());
    let outcomes = sink.send(&[message(&queue, Some("key"), 2)]).await;
    assert_eq!(words(&outcomes), ["published"]);
    lab.close().await;
    sink.close().await;
}

/// The broker tells nobody of an alarm who has not published yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_starts_under_an_alarm_learns_of_it_at_once() {
    let broker = PrivateBroker::up();
    let lab = Lab::at(&broker.url).await;
    let (queue, sink) = (lab.queue().await, lab.sink());
    broker.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1"]);
    let start = Instant::now();
    while !sink.blocked() {
        let outcomes = sink.send(&[message(&queue, None, 0)]).await;
        assert!(["sink", "published"].contains(&word(&outcomes[0])));
        assert!(start.elapsed() < Duration::from_secs(15));
    }
    assert!(sink.probe().await.is_err());
    sink.close().await;
    lab.close().await;
}
