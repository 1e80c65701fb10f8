//! Unroutable messages, and exchanges that are not there.

use crate::lab::sending::Sending as _;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use lapin::ExchangeKind;
use outboxd::sink::Sink;

use crate::lab::{Lab, Received, count, detail, message, unique, word, words};

/// lapin attaches a returned message to another's confirm now and then, so that a sink that trusts
/// it loses messages without a word.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_unroutable_messages_are_found_in_many_rounds() {
    let lab = Lab::new().await;
    let sink = Arc::new(lab.sink());
    let (queue, nowhere) = (lab.queue().await, unique("nowhere"));
    for round in 0..20 {
        let seed = round * 7919;
        let unroutable = |number: usize| ((number * 2_654_435_761 + seed) >> 7).is_multiple_of(4);
        let messages: Vec<_> = (0..2000)
            .map(|number| {
                let missing = format!("{nowhere}-{number}");
                let destination = if unroutable(number) { &missing } else { &queue };
                message(destination, None, number)
            })
            .collect();
        let outcomes = sink.send(&messages).await;
        for (number, outcome) in outcomes.iter().enumerate() {
            let expected = ["published", "destination"][usize::from(unroutable(number))];
            let told = detail(outcome);
            assert_eq!(
                word(outcome),
                expected,
                "round {round}, message {number}: {told}"
            );
        }
        let received: BTreeSet<_> = (lab.read(&queue).await.iter())
            .map(Received::number)
            .collect();
        let expected = (0..2000).filter(|number| !unroutable(*number));
        assert_eq!(received, expected.collect::<BTreeSet<_>>());
    }
}

/// A channel that is closed in between leaves some returns behind in lapin, attached to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn no_unroutable_message_counts_as_published_where_a_channel_is_closed() {
    let lab = Lab::new().await;
    let sink = lab.sink();
    let (queue, nowhere) = (lab.queue().await, unique("nowhere"));
    for round in 0..15 {
        let bad = 100 + round * 120;
        let mut messages: Vec<_> = (0..2000)
            .map(|number| {
                let missing = format!("{nowhere}-{number}");
                let destination = if number % 3 == 0 { &missing } else { &queue };
                message(destination, None, number)
            })
            .collect();
        messages[bad].headers.push(("CC".into(), "copy".into()));
        let outcomes = sink.send(&messages).await;
        for (number, outcome) in outcomes.iter().enumerate() {
            let expected = match number {
                _ if number == bad => "rejected",
                _ if number % 3 == 0 => "destination",
                _ => "published",
            };
            let told = detail(outcome);
            assert_eq!(
                word(outcome),
                expected,
                "round {round}, message {number}: {told}"
            );
        }
    }
    let received: HashSet<_> = (lab.read(&queue).await.iter())
        .map(Received::number)
        .collect();
    assert!((0..2000).all(|number| received.contains(&number) == (number % 3 != 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_goes_to_an_unroutable_destination_of_a_batch() {
    let lab = Lab::new().await;
    let (queue, nowhere) = (lab.queue().await, unique("nowhere"));
    // Two heads of keys, a follower of one of them, and other keys' followers elsewhere.
    let messages = [
        message(&nowhere, Some("a"), 0),
        message(&queue, Some("a"), 1),
        message(&nowhere, Some("b"), 2),
        message(&nowhere, Some("a"), 3),
        message(&queue, Some("a"), 4),
    ];
    let outcomes = lab.sink().send(&messages).await;
    let expected = [
        "destination",
        "published",
        "destination",
        "withheld",
        "published",
    ];
    assert_eq!(words(&outcomes), expected);
    let told = detail(&outcomes[0]);
    assert!(told.contains("default exchange"), "{told}");
    assert!(
        told.contains(&format!("declare the queue {nowhere:?}")),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_messages_with_one_id_neither_is_taken_for_published_when_one_was_returned() {
    let lab = Lab::new().await;
    let (queue, nowhere) = (lab.queue().await, unique("nowhere"));
    let (mut routable, mut lost) = (message(&queue, None, 0), message(&nowhere, None, 1));
    routable.id = "twin".into();
    lost.id = "twin".into();
    let outcomes = lab.sink().send(&[routable, lost]).await;
    assert_eq!(words(&outcomes), ["destination", "destination"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_declared_later_gets_what_waited_for_it() {
    let lab = Lab::new().await;
    let (sink, queue) = (lab.sink(), unique("late"));
    let messages: Vec<_> = (0..10)
        .map(|number| message(&queue, Some("key"), number))
        .collect();
    let outcomes = sink.send(&messages).await;
    assert_eq!(word(&outcomes[0]), "destination");
    assert_eq!(count(&outcomes, "withheld"), 9);
    let asked = sink.probe_destination(&queue).await.expect_err("missing");
    assert!(asked.detail.contains(&queue), "{asked}");
    assert_eq!(sink.probe().await, Ok(()), "the sink itself is fine");

    lab.declare(&queue, &[]).await;
    assert_eq!(sink.probe_destination(&queue).await, Ok(()));
    let outcomes = sink.send(&messages).await;
    assert_eq!(count(&outcomes, "published"), 10);
    assert_eq!(lab.read(&queue).await.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_declared_later_works_then() {
    let lab = Lab::new().await;
    let (exchange, queue) = (unique("exchange"), lab.queue().await);
    let sink = lab.sink_to(&exchange);
    let missing = sink.probe().await.expect_err("missing").detail;
    assert!(missing.contains(&exchange), "{missing}");
    assert!(missing.contains("declare it"), "{missing}");
    assert!(sink.probe_destination("blue").await.is_err());
    let messages = [
        message("red", Some("a"), 0),
        message("blue", Some("a"), 1),
        message("red", Some("b"), 2),
    ];
    let outcomes = sink.send(&messages).await;
    assert_eq!(words(&outcomes), ["destination", "destination", "withheld"]);
    assert!(detail(&outcomes[1]).contains(&exchange));

    lab.declare_exchange(&exchange, ExchangeKind::Topic).await;
    lab.bind(&queue, &exchange, "blue").await;
    assert_eq!(sink.probe().await, Ok(()));
    assert_eq!(sink.probe_destination("red").await, Ok(()), "nobody knows");
    let outcomes = sink.send(&messages).await;
    assert_eq!(
        words(&outcomes),
        ["destination", "published", "destination"]
    );
    assert_eq!(lab.read(&queue).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_deleted_in_mid_flight_loses_nothing_and_charges_nobody() {
    let lab = Lab::new().await;
    let (exchange, queue) = (unique("exchange"), lab.queue().await);
    lab.declare_exchange(&exchange, ExchangeKind::Fanout).await;
    lab.bind(&queue, &exchange, "").await;
    let sink = Arc::new(lab.sink_to(&exchange));
    let mut tasks = Vec::new();
    for task in 0..4 {
        let sink = Arc::clone(&sink);
        tasks.push(tokio::spawn(async move {
            let mut published = HashSet::new();
            for round in 0.. {
                let first = (task * 1_000_000 + round) * 500;
                let messages: Vec<_> = (first..first + 500)
                    .map(|number| message("any", None, number))
                    .collect();
                let outcomes = sink.send(&messages).await;
                for (number, outcome) in (first..).zip(&outcomes) {
                    match word(outcome) {
                        "published" => drop(published.insert(number)),
                        "destination" | "withheld" => {}
                        other => panic!("{other}: {}", detail(outcome)),
                    }
                }
                if count(&outcomes, "published") < 500 {
                    break;
                }
            }
            published
        }));
    }
    while lab.depth(&queue).await < 2000 {
        tokio::task::yield_now().await;
    }
    lab.delete_exchange(&exchange).await;
    let mut published = HashSet::new();
    for task in tasks {
        published.extend(task.await.expect("no panic"));
    }
    let received: HashSet<_> = (lab.read(&queue).await.iter())
        .map(Received::number)
        .collect();
    assert!(published.len() >= 2000 && published.is_subset(&received));
}
