//! Where there is nothing to compare, and what is asked for wrongly.

use std::time::Duration;

use crate::{
    common::{blocking, broker::Kind, env, proxy::Fault, relay::outboxd},
    poller::{Letter, Sender, Twist, faithfully},
    scene::{Scene, Shadow, assert_counts},
};

#[tokio::test]
async fn nothing_that_arrives_is_no_success() {
    for kind in [Kind::Kafka, Kind::Rabbitmq] {
        let scene = Scene::new(kind).await;
        let told = scene.shadow(&["--json", "--for", "1s"]).end().exits(1);
        assert_counts(&told, &[]);
        let verdict = told["verdict"].as_str().unwrap();
        assert!(verdict.contains("the table is empty"), "{verdict}");
    }
    // Rows, and a poller that sends to a topic nobody follows.
    let scene = Scene::new(Kind::Kafka).await;
    let other = scene.broker.destination().await;
    let shadow = scene.shadow(&["--json", "--follow", &other]);
    scene.insert(3).await;
    scene.poller(faithfully).await.drain().await;
    let told = shadow.stop().exits(1);
    assert_counts(&told, &[("only_ours", 3)]);
    let verdict = told["verdict"].as_str().unwrap();
    assert!(
        verdict.contains(&other) && verdict.contains("does the other relay send there"),
        "{verdict}"
    );
}

/// As Debezium sends rows that were inserted and deleted in one transaction.
#[tokio::test]
async fn rows_that_nobody_can_see_are_told_with_what_to_do() {
    for kind in [Kind::Kafka, Kind::Rabbitmq] {
        let scene = Scene::new(kind).await;
        let shadow = scene.shadow(&["--for", "5s"]);
        let sender = Sender::to(&scene.broker, "amq.direct").await;
        for n in 0..5 {
            let id = scene.database.text(
                "with inserted as (insert into outbox (aggregate_type, aggregate_id, event_type, payload)
                   values ('x', 'x', 'x', '{}') returning event_id) select event_id::text from inserted",
            );
            let id = id.await;
            scene
                .database
                .execute(
                    "begin; insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
                values ('x', 'x', 'x', '{}'); delete from outbox; commit",
                )
                .await;
            let letter = Letter {
                topic: scene.topic.clone(),
                key: format!("{n}"),
                headers: vec![(
                    "id".into(),
                    format!("00000000-0000-0000-0000-00000000000{}", &id[..1]),
                )],
                payload: Some("{}".into()),
            };
            sender.send(&letter).await;
        }
        sender.flush();
        let told = shadow.end();
        assert_eq!(told.code, 1, "{}", told.stdout);
        for part in [
            "nothing was compared",
            "let rows stay",
            "docs/from-debezium.md",
        ] {
            assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
        }
    }
}

#[tokio::test]
async fn messages_without_an_id_lead_to_the_right_header() {
    let twist: Twist = |mut letters| {
        for letter in &mut letters {
            let id = letter
                .headers
                .iter()
                .find(|(name, _)| name == "id")
                .unwrap()
                .1
                .clone();
            letter.drop("id");
            letter.set("event-id", &id);
        }
        letters
    };
    for kind in [Kind::Kafka, Kind::Rabbitmq] {
        let scene = Scene::new(kind).await;
        let shadow = scene.shadow(&["--json", "--for", "5s"]);
        scene.insert(3).await;
        scene.poller(twist).await.drain().await;
        let told = shadow.end().exits(1);
        assert_counts(&told, &[("without_id", 3), ("only_ours", 3)]);
        assert!(
            told["verdict"].as_str().unwrap().contains("--id-header"),
            "{told:#}"
        );

        // Found by it, they still lack the header that consumers of outboxd go by.
        let shadow = scene.shadow(&[
            "--json",
            "--id-header",
            "event-id",
            "--ignore-header",
            "event-id",
        ]);
        scene.insert(3).await;
        scene.poller(twist).await.drain().await;
        let told = shadow.stop().exits(1);
        assert_counts(
            &told,
            &[("compared", 3), ("different", 3), ("missing_headers", 3)],
        );
    }
}

#[tokio::test]
async fn the_text_tells_the_same_and_the_end_comes_after_so_many_events() {
    let scene = Scene::new(Kind::Kafka).await;
    let twist: Twist = |mut letters| {
        for letter in &mut letters {
            letter.drop("tenant");
        }
        letters
    };
    let shadow = scene.shadow(&["--events", "30", "--differences", "2"]);
    scene.insert(30).await;
    scene.poller(twist).await.drain().await;
    let told = shadow.end();
    assert_eq!(told.code, 1, "{}", told.stdout);
    for part in [
        "30 compared: 0 same, 30 different",
        "headers: 30 missing in theirs",
        "header tenant is missing in theirs (30)",
        "Not ready",
    ] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    assert_eq!(
        told.stdout.matches("outboxd  acme").count(),
        2,
        "{}",
        told.stdout
    );
    assert!(
        told.stderr.contains("not ready to cut over"),
        "{}",
        told.stderr
    );
}

#[tokio::test]
async fn from_the_beginning_what_was_sent_before_is_compared_and_what_is_missing_told() {
    let scene = Scene::new(Kind::Kafka).await;
    scene.insert(30).await;
    let twist: Twist = |mut letters| {
        // The oldest may be forgotten by the topic; another is lost.
        letters.remove(4);
        letters.remove(0);
        letters
    };
    scene.poller(twist).await.drain().await;
    let told = scene
        .shadow(&["--json", "--from-beginning", "--for", "5s"])
        .end()
        .exits(1);
    assert_counts(&told, &[("compared", 28), ("same", 28), ("only_ours", 1)]);
    assert_eq!(told["differences"][0]["examples"][0]["at"], "row 5");
    // From now on there is nothing.
    let told = scene.shadow(&["--json", "--for", "1s"]).end().exits(1);
    assert_counts(&told, &[]);
}

#[tokio::test]
async fn nothing_is_published_locked_or_changed() {
    let scene = Scene::new(Kind::Kafka).await;
    scene.insert(5).await;
    let state = "select string_agg(t::text, '|' order by id) || (select xmax::text from outbox limit 1) from outbox t";
    let before = scene.database.text(state).await;
    let shadow = scene.shadow(&["--json", "--for", "2s"]);
    // A writer that locks the whole table goes on.
    scene.database.execute("begin; set local lock_timeout = '1s'; lock table outbox in share row exclusive mode; commit").await;
    shadow.end().exits(1);
    assert_eq!(scene.database.text(state).await, before);
    assert_eq!(scene.broker.read(&scene.topic).await.len(), 0);
    let tables = "select count(*) from outbox_instances";
    assert_eq!(scene.database.number(tables).await, 0);
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let scene = Scene::new(Kind::Kafka).await;
    let refused = |scene: &Scene, flags: &[&str], code: i32, part: &str| {
        let flags = scene.flags(flags);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (found, _, stderr) = outboxd(&[&["shadow"], &flags[..]].concat());
        assert_eq!(found, code, "{stderr}");
        assert!(stderr.contains(part), "{part}: {stderr}");
    };
    let missing = &["--follow", "no-such-place"];
    refused(&scene, missing, 69, "no-such-place");
    refused(&scene, &["--sink", "stdout"], 78, "Kafka or RabbitMQ");
    refused(&scene, &["--for", "soon"], 78, "--for");
    refused(&scene, &["--preset", "debezium"], 78, "outboxevent");
    let scene = Scene::new(Kind::Rabbitmq).await;
    refused(&scene, missing, 69, "no-such-place");
    refused(&scene, &["--from-beginning"], 78, "--from-beginning");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_waited_for() {
    let scene = Scene::new(Kind::Kafka).await;
    let (proxy, url) = scene.database.through_proxy().await;
    let mut flags = scene.flags(&["--json", "--events", "6"]);
    flags[1] = url;
    let shadow = Shadow::start(&flags);
    scene.insert(3).await;
    scene.poller(faithfully).await.drain().await;
    proxy.set(Fault::Cut);
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.insert(3).await;
    scene.poller(faithfully).await.drain().await;
    proxy.heal();
    let told = blocking(|| shadow.end());
    assert!(
        told.stderr.contains("waiting for the database"),
        "{}",
        told.stderr
    );
    assert_counts(&told.exits(0), &[("compared", 6), ("same", 6)]);
}

#[tokio::test]
async fn it_reads_over_tls_with_a_password_and_says_what_is_wrong_with_it() {
    let mut scene = Scene::new(Kind::Kafka).await;
    scene.broker.enter_by(env("TEST_KAFKA_SASL_BROKERS"));
    let ca = format!("ssl.ca.location={}", env("TEST_CA_FILE"));
    let with_password = |password: &str| {
        let options = [
            "security.protocol=sasl_ssl",
            &ca,
            "sasl.mechanisms=SCRAM-SHA-256",
            "sasl.username=alice",
        ];
        let mut flags = vec!["--json".to_owned(), "--events".into(), "3".into()];
        for option in options.iter().copied().chain([password]) {
            flags.extend(["--kafka-option".to_owned(), option.to_owned()]);
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        scene.flags(&flags)
    };
    let shadow = Shadow::start(&with_password("sasl.password=alice-secret"));
    scene.insert(3).await;
    scene.poller(faithfully).await.drain().await;
    assert_counts(&shadow.end().exits(0), &[("compared", 3), ("same", 3)]);

    let mut flags = vec!["shadow".to_owned()];
    flags.extend(with_password("sasl.password=canary"));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (code, stdout, stderr) = outboxd(&flags);
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("uthentication failed"), "{stderr}");
    assert!(!format!("{stdout}{stderr}").contains("canary"), "{stderr}");

    let scene = Scene::new(Kind::Rabbitmq).await;
    let (url, ca) = (env("TEST_RABBITMQ_TLS_URL"), env("TEST_CA_FILE"));
    let mut flags = scene.flags(&["--json", "--events", "3", "--rabbitmq-ca-file", &ca]);
    flags[3] = url;
    let shadow = Shadow::start(&flags);
    scene.insert(3).await;
    scene.poller(faithfully).await.drain().await;
    assert_counts(&shadow.end().exits(0), &[("compared", 3), ("same", 3)]);
}

/// More rows than are looked at in one go, and older ones than are looked at first.
#[tokio::test]
async fn a_backlog_is_compared_and_its_order_seen_as_it_is() {
    let scene = Scene::new(Kind::Kafka).await;
    scene.insert(12_000).await;
    let shadow = scene.shadow(&["--json", "--events", "24000"]);
    scene.insert(12_000).await;
    let mut poller = scene.poller(faithfully).await;
    poller.drain().await;
    let told = shadow.end().exits(0);
    assert_counts(&told, &[("compared", 24_000), ("same", 24_000)]);
    assert_eq!(told["rows_outran"], false, "{told:#}");
}
