//! A poller on outboxd's own table, faithful and otherwise.

use serde_json::Value;

use crate::{
    common::broker::Kind,
    poller::{Letter, Sender, Twist, faithfully},
    scene::{Scene, Told, assert_counts, kinds},
};

const EVENTS: u64 = 30;

/// 30 events, sent by a poller with that twist while outboxd looks on.
async fn rehearse(kind: Kind, twist: Twist, flags: &[&str]) -> Told {
    let scene = Scene::new(kind).await;
    let shadow = scene.shadow(&[&["--json"], flags].concat());
    scene.insert(30).await;
    scene.poller(twist).await.drain().await;
    shadow.stop()
}

async fn on_both(twist: Twist, code: i32, check: impl Fn(&Value, Kind)) {
    for kind in [Kind::Kafka, Kind::Rabbitmq] {
        let told = rehearse(kind, twist, &[]).await.exits(code);
        assert_eq!(told["ready"], code == 0);
        check(&told, kind);
    }
}

fn changed(letters: Vec<Letter>, change: impl Fn(&mut Letter)) -> Vec<Letter> {
    let mut letters = letters;
    change(&mut letters[4]);
    letters
}

#[tokio::test]
async fn a_faithful_poller_leaves_nothing_to_tell() {
    on_both(faithfully, 0, |told, _| {
        assert_counts(told, &[("compared", EVENTS), ("same", EVENTS)]);
        let verdict = told["verdict"].as_str().unwrap();
        assert!(verdict.starts_with("Ready to cut over"), "{verdict}");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_header_is_told() {
    let twist: Twist = |letters| changed(letters, |letter| letter.drop("tenant"));
    on_both(twist, 1, |told, _| {
        assert_counts(
            told,
            &[
                ("compared", EVENTS),
                ("same", EVENTS - 1),
                ("different", 1),
                ("missing_headers", 1),
            ],
        );
        assert_eq!(
            kinds(told, "differences"),
            [("header tenant is missing in theirs".into(), 1)]
        );
        let example = &told["differences"][0]["examples"][0];
        assert_eq!(
            (&example["ours"], &example["theirs"]),
            (&"acme".into(), &Value::Null)
        );
    })
    .await;
}

#[tokio::test]
async fn further_and_other_headers_are_told_unless_they_are_ignored() {
    let twist: Twist = |letters| {
        changed(letters, |letter| {
            letter.set("tenant", "other");
            letter.set("poller", "7");
            letter.set("content-type", "text/plain");
        })
    };
    on_both(twist, 1, |told, kind| {
        let content_type = if kind == Kind::Kafka {
            "content-type"
        } else {
            "content_type"
        };
        assert_counts(
            told,
            &[
                ("compared", EVENTS),
                ("same", EVENTS - 1),
                ("different", 1),
                ("different_headers", 2),
                ("further_headers", 1),
            ],
        );
        let expected = [
            (format!("header {content_type} differs"), 1),
            ("header tenant differs".into(), 1),
            ("header poller is only in theirs".into(), 1),
        ];
        assert_eq!(kinds(told, "differences"), expected);
    })
    .await;
    for (kind, content_type) in [
        (Kind::Kafka, "content-type"),
        (Kind::Rabbitmq, "content_type"),
    ] {
        let mut flags = Vec::new();
        for name in ["tenant", "poller", content_type] {
            flags.extend(["--ignore-header", name]);
        }
        let told = rehearse(kind, twist, &flags).await.exits(0);
        assert_counts(&told, &[("compared", EVENTS), ("same", EVENTS)]);
    }
}

#[tokio::test]
async fn another_key_is_told() {
    let twist: Twist = |letters| changed(letters, |letter| letter.key = "other".into());
    on_both(twist, 1, |told, kind| {
        let (headers, title) = match kind {
            Kind::Kafka => (0, "key differs"),
            Kind::Rabbitmq => (1, "header aggregate_id differs"),
        };
        assert_counts(
            told,
            &[
                ("compared", EVENTS),
                ("same", EVENTS - 1),
                ("different", 1),
                ("different_headers", headers),
            ],
        );
        assert_eq!(kinds(told, "differences"), [(title.into(), 1)]);
        let example = &told["differences"][0]["examples"][0];
        assert_eq!(
            (&example["ours"], &example["theirs"]),
            (&"key-2".into(), &"other".into())
        );
    })
    .await;
}

#[tokio::test]
async fn another_destination_is_told() {
    // The poller heeds a row's own topic, and so does outboxd.
    let scene = Scene::new(Kind::Kafka).await;
    let other = scene.broker.destination().await;
    let follow = ["--json", "--follow", &other, "--follow", &scene.topic];
    let shadow = scene.shadow(&follow);
    scene.insert(2).await;
    let insert = format!(
        "insert into outbox (aggregate_type, aggregate_id, event_type, payload, topic)
         values ('{}', 'a', 'Tested', '{{}}', '{other}')",
        scene.topic
    );
    scene.database.execute(&insert).await;
    scene.poller(faithfully).await.drain().await;
    let told = shadow.stop().exits(0);
    assert_counts(&told, &[("compared", 3), ("same", 3)]);

    // --topic is what outboxd would go by, and the poller knows nothing of.
    let shadow = scene.shadow(&[&follow[..], &["--topic", "events.{aggregate_type}"]].concat());
    scene.insert(2).await;
    scene.database.execute(&insert).await;
    scene.poller(faithfully).await.drain().await;
    let told = shadow.stop().exits(1);
    assert_counts(&told, &[("compared", 3), ("same", 1), ("different", 2)]);
    assert_eq!(
        kinds(&told, "differences"),
        [("destination differs".into(), 2)]
    );
    let example = &told["differences"][0]["examples"][0];
    assert_eq!(example["ours"], format!("events.{}", scene.topic));
    assert_eq!(example["theirs"], scene.topic);
}

#[tokio::test]
async fn json_written_otherwise_is_the_same_and_counted_apart() {
    let twist: Twist = |letters| {
        changed(letters, |letter| {
            letter.payload = Some(
                letter
                    .payload
                    .take()
                    .unwrap()
                    .replace(": ", ":")
                    .replace('ü', "\\u00fc"),
            );
        })
    };
    on_both(twist, 0, |told, _| {
        assert_counts(
            told,
            &[
                ("compared", EVENTS),
                ("same", EVENTS - 1),
                ("written_differently", 1),
            ],
        );
        let verdict = told["verdict"].as_str().unwrap();
        assert!(verdict.contains("consumers must parse it"), "{verdict}");
    })
    .await;
}

#[tokio::test]
async fn another_payload_is_told_and_shown_only_if_asked_for() {
    let twist: Twist = |letters| {
        changed(letters, |letter| {
            letter.payload = Some(r#"{"number": 5, "text": "secret"}"#.into());
        })
    };
    on_both(twist, 1, |told, _| {
        assert_counts(
            told,
            &[("compared", EVENTS), ("same", EVENTS - 1), ("different", 1)],
        );
        let example = &told["differences"][0]["examples"][0];
        assert_eq!(example["note"], "as JSON, at /text");
        assert!(!told.to_string().contains("secret"), "{told:#}");
    })
    .await;
    let told = rehearse(Kind::Kafka, twist, &["--show-payloads"])
        .await
        .exits(1);
    let example = &told["differences"][0]["examples"][0];
    assert_eq!(example["theirs"], r#"{"number": 5, "text": "secret"}"#);
    assert_eq!(example["ours"], r#"{"text": "ü", "number": 5}"#);
}

#[tokio::test]
async fn an_event_that_is_never_sent_is_told() {
    let twist: Twist = |mut letters| {
        letters.remove(4);
        letters
    };
    on_both(twist, 1, |told, _| {
        assert_counts(
            told,
            &[
                ("compared", EVENTS - 1),
                ("same", EVENTS - 1),
                ("only_ours", 1),
            ],
        );
        assert_eq!(told["differences"][0]["examples"][0]["at"], "row 5");
    })
    .await;
}

#[tokio::test]
async fn an_event_that_is_sent_twice_is_told_and_no_difference() {
    let twist: Twist = |mut letters| {
        letters.push(letters[4].clone());
        letters
    };
    // The copy comes last: nobody waits for it but the count.
    for kind in [Kind::Kafka, Kind::Rabbitmq] {
        let scene = Scene::new(kind).await;
        let shadow = scene.shadow(&["--json", "--for", "6s"]);
        scene.insert(30).await;
        scene.poller(twist).await.drain().await;
        let told = shadow.end().exits(0);
        assert_counts(
            &told,
            &[("compared", EVENTS), ("same", EVENTS), ("duplicates", 1)],
        );
        assert_eq!(kinds(&told, "notes"), [("they sent it again".into(), 1)]);
    }
}

#[tokio::test]
async fn another_order_of_a_key_is_told() {
    let twist: Twist = |mut letters| {
        // Of one key: 5 and 8.
        letters.swap(4, 7);
        letters
    };
    on_both(twist, 0, |told, _| {
        assert_counts(
            told,
            &[("compared", EVENTS), ("same", EVENTS), ("out_of_order", 1)],
        );
        assert_eq!(kinds(told, "notes")[0].1, 1);
        assert!(
            told["verdict"].as_str().unwrap().contains("another order"),
            "{told:#}"
        );
    })
    .await;
    // Of two keys there is no order.
    let twist: Twist = |mut letters| {
        letters.swap(4, 5);
        letters
    };
    on_both(twist, 0, |told, _| {
        assert_counts(told, &[("compared", EVENTS), ("same", EVENTS)]);
    })
    .await;
}

#[tokio::test]
async fn what_waits_still_is_not_lost_until_the_grace_is_over() {
    for (grace, code, count) in [("1h", 0, "not_sent_yet"), ("0s", 1, "only_ours")] {
        let scene = Scene::new(Kind::Kafka).await;
        let shadow = scene.shadow(&["--json", "--grace", grace]);
        scene.insert(30).await;
        scene.poller(faithfully).await.drain().await;
        scene.insert(2).await;
        let told = shadow.stop().exits(code);
        assert_counts(&told, &[("compared", EVENTS), ("same", EVENTS), (count, 2)]);
    }
}

#[tokio::test]
async fn a_deleted_row_whose_message_never_came_is_told() {
    let scene = Scene::new(Kind::Kafka).await;
    let shadow = scene.shadow(&["--json", "--for", "6s"]);
    scene.insert(30).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    scene
        .database
        .execute("delete from outbox where id = 5")
        .await;
    scene.poller(faithfully).await.drain().await;
    let told = shadow.end().exits(1);
    assert_counts(
        &told,
        &[
            ("compared", EVENTS - 1),
            ("same", EVENTS - 1),
            ("only_ours", 1),
        ],
    );
}

/// As librdkafka's clients choose partitions, unless they are told otherwise.
#[tokio::test]
async fn another_partition_is_told_unless_outboxd_is_to_choose_it_too() {
    let scene = Scene::new(Kind::Kafka).await;
    for (flags, told_of) in [
        (&["--json"][..], true),
        (
            &["--json", "--kafka-option", "partitioner=consistent"],
            false,
        ),
    ] {
        let shadow = scene.shadow(flags);
        scene.insert(30).await;
        let mut poller = scene.poller(faithfully).await;
        poller.sender = Sender::kafka(&scene.broker, "consistent_random");
        poller.drain().await;
        let told = shadow.stop().exits(0);
        assert_eq!(told["same"], EVENTS, "{told:#}");
        assert_eq!(
            told["other_partition"].as_u64().unwrap() > 0,
            told_of,
            "{told:#}"
        );
        let verdict = told["verdict"].as_str().unwrap();
        assert_eq!(verdict.contains("another partition"), told_of, "{verdict}");
    }
}
