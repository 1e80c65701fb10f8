//! Bad input: clear words, nothing lost, no neighbour charged.

use crate::common::{
    broker::{Broker, Kind, assert_complete_and_in_order},
    database::Database,
    relay::{Relay, outboxd, until},
};

on_each_broker!(events_that_cannot_be_sent_die_alone_with_a_reason);

async fn events_that_cannot_be_sent_die_alone_with_a_reason(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    database.insert(&topic, 50, 10).await;
    let bad = |number: i64, column: &str, value: &str| {
        format!("update outbox set {column} = {value} where payload = to_jsonb({number});")
    };
    let illegal = match kind {
        Kind::Kafka => "'no/such topic'".to_owned(),
        Kind::Rabbitmq => "repeat('r', 300)".to_owned(),
    };
    let changes = [
        bad(11, "headers", r#"'["a"]'"#),
        bad(12, "headers", r#"'{"a": "x\r\ny"}'"#),
        bad(13, "headers", r#"'{"": "x"}'"#),
        bad(14, "topic", &illegal),
    ];
    database.execute(&changes.concat()).await;
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relay = Relay::run(&flags).ready().await;
    until("all others are published", || async {
        database.pending().await == 4
    })
    .await;
    assert_eq!(database.number("select count(*) from outbox_failures where state = 'dead' and attempts = 1 and reason like 'invalid: %'").await, 4);
    assert_eq!(
        relay
            .metric(r#"outboxd_dead_lettered_total{reason="invalid"}"#)
            .await,
        4.0
    );
    let (code, list, _) = outboxd(&["dead", "list", "--json", "--database-url", &database.url]);
    assert_eq!(code, 0);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 4);

    // Mended and sent again, they arrive.
    database
        .execute("update outbox set headers = '{}', topic = null where published_at is null")
        .await;
    let (code, _, errors) = outboxd(&["dead", "retry", "--all", "--database-url", &database.url]);
    assert_eq!(code, 0, "{errors}");
    until("the mended ones are published", || async {
        database.pending().await == 0
    })
    .await;
    assert!(relay.stop().await.success());
    let mut deliveries = broker.read(&topic).await;
    deliveries.sort_by_key(super::common::broker::Delivery::number);
    assert_eq!(assert_complete_and_in_order(&deliveries, 50), 0);
    assert_eq!(
        database
            .number("select count(*) from outbox_failures")
            .await,
        0
    );
}

#[test]
fn all_wrong_values_are_reported_at_once_and_none_of_them_is_a_usage_error() {
    let (code, _, errors) = outboxd(&[
        "run",
        "--database-url",
        "mysql://u:canary@h/x",
        "--table",
        "a.b.c",
        "--topic",
        "{x",
        "--sink",
        "pigeon",
        "--poll-interval",
        "soon",
        "--batch-bytes",
        "many",
        "--workers",
        "0",
        "--on-dead",
        "cry",
        "--listen",
        "here",
    ]);
    assert_eq!(code, 78, "{errors}");
    for flag in [
        "database-url",
        "table",
        "topic",
        "sink",
        "poll-interval",
        "batch-bytes",
        "workers",
        "on-dead",
        "listen",
    ] {
        assert!(
            errors.contains(&format!("--{flag}")),
            "{flag} is not named in:\n{errors}"
        );
    }
    assert!(!errors.contains("canary"), "{errors}");
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    assert_eq!(outboxd(&["run", "--no-such-flag"]).0, 64);
}

#[tokio::test]
async fn a_table_that_is_not_there_ends_the_start_with_the_remedy() {
    let database = Database::empty().await;
    let (code, _, errors) = outboxd(&[
        "run",
        "--database-url",
        &database.url,
        "--sink",
        "stdout",
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(code, 78, "{errors}");
    assert!(errors.contains("outboxd migrate"), "{errors}");
}
