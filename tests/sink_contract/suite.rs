//! The suite. It knows outcomes and messages, and no broker.

use crate::common::sending::Sending as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use outboxd::{
    event::Message,
    sink::{Outcome, ReasonKind, Scope, Sink},
};

use crate::lab::{Lab, PATIENCE, Seen, deliver, first_occurrences, large, message, messages};

/// Runs the suite for a sink, each test under its own name.
macro_rules! contract {
    ($sink:ident, $lab:ty) => {
        mod $sink {
            contract! { @tests $lab:
                messages_arrive_once_and_in_the_order_of_their_keys,
                outcomes_belong_to_the_messages_at_their_place,
                ids_headers_and_content_types_arrive_as_in_the_contract,
                a_missing_payload_is_not_an_empty_one,
                an_empty_key_is_a_key_like_any_other,
                an_empty_batch_has_no_outcomes,
                an_illegal_destination_is_rejected_alone_and_holds_its_key,
                an_unknown_destination_pauses_only_itself_and_delivers_once_it_exists,
                what_the_client_finds_too_large_is_rejected_alone,
                what_the_broker_finds_too_large_charges_only_the_culprit,
                a_key_does_not_pass_its_message_that_is_too_large,
                many_culprits_are_found_one_by_one,
                an_outage_charges_nobody_and_loses_nothing,
                outages_under_load_keep_the_order_of_keys,
                a_sink_can_be_made_before_its_broker_is_up,
                concurrent_batches_keep_the_order_of_their_keys,
                probes_tell_what_can_be_published_to
            }
        }
    };
    (@tests $lab:ty: $($test:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::suite::$test::<$lab>().await;
            }
        )*
    };
}

fn assert_each_key_has(seen: &[Seen], keys: usize, numbers: &[usize]) {
    let first = first_occurrences(seen);
    assert_eq!(first.len(), keys);
    for (key, found) in first {
        assert_eq!(found, numbers, "of key {key:?}");
    }
}

fn is_paused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unavailable(u) if u.scope == Scope::Destination)
}

fn is_rejected(outcome: &Outcome, kind: ReasonKind) -> bool {
    matches!(outcome, Outcome::Rejected(reason) if reason.kind == kind)
}

async fn prepared<L: Lab>() -> (L, Arc<dyn Sink>, String) {
    let lab = L::shared().await;
    let destination = lab.new_name();
    lab.create(&destination).await;
    let sink = lab.sink(PATIENCE);
    (lab, sink, destination)
}

pub async fn messages_arrive_once_and_in_the_order_of_their_keys<L: Lab>() {
    let (lab, sink, destination) = prepared::<L>().await;
    let all = messages(&destination, 50, 100);
    for batch in all.chunks(1700) {
        let outcomes = sink.send(batch).await;
        assert!(outcomes.iter().all(|o| *o == Outcome::Published));
    }
    let seen = lab.read(&destination).await;
    assert_eq!(seen.len(), all.len());
    assert_each_key_has(&seen, 50, &(0..100).collect::<Vec<_>>());
}

pub async fn outcomes_belong_to_the_messages_at_their_place<L: Lab>() {
    let (lab, sink, destination) = prepared::<L>().await;
    let mut batch = messages(&destination, 30, 1);
    for place in [0, 7, 29] {
        batch[place].destination = lab.illegal_destination();
    }
    let outcomes = sink.send(&batch).await;
    assert_eq!(outcomes.len(), 30);
    for (place, outcome) in outcomes.iter().enumerate() {
        if [0, 7, 29].contains(&place) {
            assert!(is_rejected(outcome, ReasonKind::Invalid), "{outcome:?}");
        } else {
            assert_eq!(*outcome, Outcome::Published, "at {place}");
        }
    }
    assert_eq!(lab.read(&destination).await.len(), 27);
}

pub async fn ids_headers_and_content_types_arrive_as_in_the_contract<L: Lab>() {
    let (lab, sink, destination) = prepared::<L>().await;
    let sent = Message {
        id: "5f0c1f9e-6f1d-4c3c-8d7e-0123456789ab".into(),
        destination: destination.clone(),
        key: Some("schlüssel".into()),
        event_type: "OrderPlaced".into(),
        content_type: "application/cloudevents+json; charset=utf-8".into(),
        headers: vec![
            ("traceparent".into(), "00-aa-bb-01".into()),
            ("x-empty".into(), String::new()),
            ("x-ünïcode".into(), "päyload".into()),
        ],
        payload: Some(vec![0, 159, 146, 150]),
        timestamp_ms: 1_700_000_000_000,
    };
    assert_eq!(
        sink.send(std::slice::from_ref(&sent)).await,
        [Outcome::Published]
    );
    let [seen] = &lab.read(&destination).await[..] else {
        panic!("not exactly one message")
    };
    let expected = Seen {
        id: sent.id,
        key: sent.key,
        event_type: sent.event_type,
        content_type: sent.content_type.into_owned(),
        headers: sent.headers,
        payload: sent.payload,
        timestamp_ms: sent.timestamp_ms,
    };
    assert_eq!(*seen, expected);
}

pub async fn a_missing_payload_is_not_an_empty_one<L: Lab>() {
    let (lab, sink, destination) = prepared::<L>().await;
    let mut batch = messages(&destination, 1, 3);
    batch[0].payload = None;
    batch[1].payload = Some(Vec::new());
    sink.send(&batch).await;
    let payloads = lab.read(&destination).await;
    let payloads: Vec<_> = payloads.into_iter().map(|seen| seen.payload).collect();
    let missing = L::NULL_IS_EMPTY.then(Vec::new);
    assert_eq!(
        payloads,
        [missing, Some(Vec::new()), Some(b"{\"n\":2}".to_vec())]
    );
}

pub async fn an_empty_key_is_a_key_like_any_other<L: Lab>() {
    let (lab, sink, destination) = prepared::<L>().await;
    let batch: Vec<_> = (0..200).map(|n| message(&destination, "", n)).collect();
    let outcomes = sink.send(&batch).await;
    assert!(outcomes.iter().all(|o| *o == Outcome::Published));
    let seen = lab.read(&destination).await;
    assert_eq!(seen[0].key.as_deref(), Some(""));
    assert_each_key_has(&seen, 1, &(0..200).collect::<Vec<_>>());
}

pub async fn an_empty_batch_has_no_outcomes<L: Lab>() {
    let sink = L::shared().await.sink(PATIENCE);
    assert_eq!(sink.send(&[]).await, []);
}

pub async fn an_illegal_destination_is_rejected_alone_and_holds_its_key<L: Lab>() {
    let (lab, sink, destination) = prepared::<L>().await;
    let illegal = lab.illegal_destination();
    let batch = [
        message(&destination, "a", 0),
        message(&illegal, "a", 1),
        message(&illegal, "a", 2),
        message(&illegal, "b", 0),
        message(&destination, "a", 3),
    ];
    let outcomes = sink.send(&batch).await;
    assert_eq!(outcomes[0], Outcome::Published);
    assert!(is_rejected(&outcomes[1], ReasonKind::Invalid));
    assert_eq!(outcomes[2], Outcome::Withheld, "after it, of its key");
    assert!(is_rejected(&outcomes[3], ReasonKind::Invalid));
    assert_eq!(outcomes[4], Outcome::Published, "of another destination");
}

pub async fn an_unknown_destination_pauses_only_itself_and_delivers_once_it_exists<L: Lab>() {
    let (lab, sink, known) = prepared::<L>().await;
    let unknown = lab.new_name();
    let mut batch = messages(&known, 3, 2);
    batch.extend(messages(&unknown, 3, 2).into_iter().map(|sent| Message {
        id: format!("unknown/{}", sent.id), // ids are unique
        ..sent
    }));
    for _ in 0..2 {
        let outcomes = sink.send(&batch).await;
        assert!(crate::lab::all_published(&outcomes[..6]), "{outcomes:?}");
        let waits = |o: &Outcome| is_paused(o) || *o == Outcome::Withheld;
        assert!(outcomes[6..].iter().all(waits), "{outcomes:?}");
    }
    let paused = sink.probe_destination(&unknown).await;
    lab.create(&unknown).await;
    if let Err(unavailable) = paused {
        assert_eq!(unavailable.scope, Scope::Destination);
        assert!(unavailable.detail.contains(&unknown), "{unavailable}");
        while sink.probe_destination(&unknown).await.is_err() {}
    }
    assert!(deliver(sink.as_ref(), &batch[6..]).await.is_empty());
    assert_each_key_has(&lab.read(&unknown).await, 3, &[0, 1]);
}

pub async fn what_the_client_finds_too_large_is_rejected_alone<L: Lab>() {
    let (lab, sink, destination) = prepared::<L>().await;
    let mut batch = messages(&destination, 10, 3);
    batch[14] = large(&destination, "k4", 1, sink.max_message_bytes() + 1);
    let outcomes = sink.send(&batch).await;
    for (place, outcome) in outcomes.iter().enumerate() {
        match place {
            14 => assert!(is_rejected(outcome, ReasonKind::TooLarge), "{outcome:?}"),
            24 => assert_eq!(*outcome, Outcome::Withheld, "after it, of its key"),
            _ => assert_eq!(*outcome, Outcome::Published),
        }
    }
    assert_eq!(lab.read(&destination).await.len(), 28);
}

pub async fn what_the_broker_finds_too_large_charges_only_the_culprit<L: Lab>() {
    let (lab, destination) = L::limited(20_000).await;
    let sink = lab.sink(PATIENCE);
    let mut batch = messages(&destination, 100, 1);
    batch.insert(60, large(&destination, "culprit", 0, 50_000));
    let charged = deliver(sink.as_ref(), &batch).await;
    assert_eq!(charged.len(), 1);
    assert!(is_rejected(&charged["culprit/0"], ReasonKind::TooLarge));
    assert_each_key_has(&lab.read(&destination).await, 100, &[0]);
}

pub async fn a_key_does_not_pass_its_message_that_is_too_large<L: Lab>() {
    let (lab, destination) = L::limited(20_000).await;
    let sink = lab.sink(PATIENCE);
    let mut batch = messages(&destination, 4, 50);
    let culprit = 4 * 20 + 1;
    batch[culprit] = large(&destination, "k1", 20, 50_000);

    let outcomes = sink.send(&batch).await;
    assert!(is_rejected(&outcomes[culprit], ReasonKind::TooLarge));
    let seen = lab.read(&destination).await;
    let of_its_key = &first_occurrences(&seen)[&Some("k1".into())];
    assert_eq!(*of_its_key, (0..of_its_key.len()).collect::<Vec<_>>());
    assert!(of_its_key.len() <= 20, "its key passed it: {of_its_key:?}");
    for (message, outcome) in batch.iter().zip(&outcomes).skip(culprit + 1) {
        if message.key.as_deref() == Some("k1") {
            assert_eq!(*outcome, Outcome::Withheld, "{}", message.id);
        }
    }

    let mut rest = batch.clone();
    rest.remove(culprit);
    deliver(sink.as_ref(), &rest).await;
    let mut expected: Vec<_> = (0..50).collect();
    for (key, numbers) in first_occurrences(&lab.read(&destination).await) {
        expected.retain(|&n| n != 20 || key.as_deref() != Some("k1"));
        if key.as_deref() == Some("k1") {
            assert_eq!(numbers, expected);
            expected.insert(20, 20);
        } else {
            assert_eq!(numbers, (0..50).collect::<Vec<_>>());
        }
    }
}

pub async fn many_culprits_are_found_one_by_one<L: Lab>() {
    let (lab, destination) = L::limited(20_000).await;
    let sink = lab.sink(PATIENCE);
    let mut batch = messages(&destination, 10, 12);
    for place in [0, 33, 34, 55, 119] {
        let Message { id, key, .. } = batch[place].clone();
        batch[place] = large(&destination, "x", 0, 30_000 + place);
        (batch[place].id, batch[place].key) = (id, key);
    }
    let charged = deliver(sink.as_ref(), &batch).await;
    let mut ids: Vec<_> = charged.keys().map(String::as_str).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["k0/0", "k3/3", "k4/3", "k5/5", "k9/11"]);
    let seen = lab.read(&destination).await;
    let first = first_occurrences(&seen);
    assert_eq!(first.values().map(Vec::len).sum::<usize>(), 115);
    assert!(first.values().all(|numbers| numbers.is_sorted()));
}

pub async fn an_outage_charges_nobody_and_loses_nothing<L: Lab>() {
    let lab = L::private().await;
    let destination = lab.new_name();
    lab.create(&destination).await;
    let publish_timeout = Duration::from_secs(3);
    let sink = lab.sink(publish_timeout);
    let all = messages(&destination, 10, 20);
    assert!(deliver(sink.as_ref(), &all[..100]).await.is_empty());

    lab.stop();
    let start = Instant::now();
    let outcomes = sink.send(&all[100..]).await;
    assert!(start.elapsed() <= publish_timeout, "{:?}", start.elapsed());
    let unanswered = |o: &Outcome| matches!(o, Outcome::Unavailable(u) if u.scope == Scope::Sink);
    assert!(unanswered(&outcomes[0]), "{:?}", outcomes[0]);
    for outcome in outcomes {
        let untried = outcome == Outcome::Withheld;
        assert!(untried || unanswered(&outcome), "{outcome:?}");
    }
    assert_eq!(sink.probe().await.unwrap_err().scope, Scope::Sink);

    lab.start();
    while sink.probe().await.is_err() {}
    assert!(deliver(sink.as_ref(), &all[100..]).await.is_empty());
    assert_each_key_has(
        &lab.read(&destination).await,
        10,
        &(0..20).collect::<Vec<_>>(),
    );
}

pub async fn outages_under_load_keep_the_order_of_keys<L: Lab>() {
    let lab = L::private().await;
    let destination = lab.new_name();
    lab.create(&destination).await;
    let sink = lab.sink(Duration::from_secs(2));
    let calm = Arc::new(AtomicBool::new(false));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (sink, destination, calm) = (Arc::clone(&sink), destination.clone(), calm.clone());
        workers.spawn(async move {
            let mut number = 0;
            while !calm.load(Ordering::Relaxed) {
                let key = |n: usize| format!("w{worker}-{}", n % 10);
                let batch: Vec<_> = (number * 10..(number + 30) * 10)
                    .map(|n| message(&destination, &key(n), n / 10))
                    .collect();
                assert!(deliver(sink.as_ref(), &batch).await.is_empty());
                number += 30;
            }
            number
        });
    }
    let lab = tokio::task::spawn_blocking(move || {
        for outage in [L::kill, L::stop] {
            outage(&lab);
            lab.start();
        }
        lab
    });
    let lab = lab.await.unwrap();
    calm.store(true, Ordering::Relaxed);
    let mut sent = 0;
    while let Some(number) = workers.join_next().await {
        sent += 10 * number.unwrap();
    }
    let first = first_occurrences(&lab.read(&destination).await);
    assert_eq!(first.values().map(Vec::len).sum::<usize>(), sent);
    for (key, numbers) in first {
        assert!(numbers.is_sorted(), "of key {key:?}: {numbers:?}");
    }
}

pub async fn a_sink_can_be_made_before_its_broker_is_up<L: Lab>() {
    let lab = L::private().await;
    let destination = lab.new_name();
    lab.create(&destination).await;
    lab.stop();
    let sink = lab.sink(Duration::from_secs(2));
    assert!(sink.probe().await.is_err());
    lab.start();
    while sink.probe().await.is_err() {}
    let batch = messages(&destination, 2, 2);
    assert!(deliver(sink.as_ref(), &batch).await.is_empty());
    assert_each_key_has(&lab.read(&destination).await, 2, &[0, 1]);
}

pub async fn concurrent_batches_keep_the_order_of_their_keys<L: Lab>() {
    let (lab, sink, destination) = prepared::<L>().await;
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let (sink, destination) = (Arc::clone(&sink), destination.clone());
        workers.spawn(async move {
            let key = |n: usize| format!("w{worker}-{}", n % 7);
            let all: Vec<_> = (0..2100)
                .map(|n| message(&destination, &key(n), n / 7))
                .collect();
            for batch in all.chunks(500) {
                assert!(deliver(sink.as_ref(), batch).await.is_empty());
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    let seen = lab.read(&destination).await;
    assert_eq!(seen.len(), 4 * 2100);
    assert_each_key_has(&seen, 28, &(0..300).collect::<Vec<_>>());
}

pub async fn probes_tell_what_can_be_published_to<L: Lab>() {
    let (lab, sink, destination) = prepared::<L>().await;
    assert_eq!(sink.probe().await, Ok(()));
    assert_eq!(sink.probe_destination(&destination).await, Ok(()));
    let illegal = sink.probe_destination(&lab.illegal_destination()).await;
    assert_eq!(illegal.unwrap_err().scope, Scope::Destination);
    sink.close().await;
}
