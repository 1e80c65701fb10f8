//! `outboxd status`, `peek` and `completions`: looking without touching.

use serde_json::Value;

use crate::{
    common::database::Database,
    lab::{fail, insert, outbox, outboxd, publish_all},
};

#[tokio::test]
async fn status_tells_backlog_failures_relays_and_what_live_ones_have_paused() {
    let database = Database::new().await;
    let (dead, retrying) = (insert(&database, "a").await, insert(&database, "b").await);
    insert(&database, "a").await;
    fail(&database, dead, "dead", true).await;
    fail(&database, retrying, "retrying", true).await;
    database
        .execute(
            r#"insert into outbox_instances (instance, version, ordering, started_at, seen_at, clean, paused) values
               ('live', '0.1.0', 'key', now(), now(), false, '{"orders": "unknown topic"}'),
               ('stale', '0.1.0', 'key', now(), now() - interval '1 minute', false, '{"old": "unknown topic"}'),
               ('stopped', '0.1.0', 'key', now(), now(), true, '{}')"#,
        )
        .await;
    let status = outboxd(&database.url, &["status", "--json"])
        .exits(0)
        .json();
    for (name, count) in [
        ("pending_events", 2),
        ("retrying_events", 1),
        ("held_keys", 2),
        ("dead_letters", 1),
    ] {
        assert_eq!(status[name], count, "{name} of {status}");
    }
    assert!(status["lag_seconds"].as_f64().unwrap() > 0.0, "{status}");
    assert_eq!(status["paused_destinations"], serde_json::json!(["orders"]));
    let live = status["instances"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|relay| relay["live"] == true);
    assert_eq!(
        live.map(|relay| relay["instance"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["live"]
    );
    let text = outboxd(&database.url, &["status"]).exits(0).stdout;
    assert!(
        text.contains("orders: unknown topic") && text.contains("gone without a stop"),
        "{text}"
    );
}

#[tokio::test]
async fn status_counts_the_lanes_in_use() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    insert(&database, "a").await;
    crate::lab::claim(&outbox, &mut link).await;
    let status = outboxd(&database.url, &["status", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        (&status["lanes"]["pending"], &status["lanes"]["claimed"]),
        (&1.into(), &1.into())
    );
}

#[tokio::test]
async fn without_tables_every_command_names_the_remedy() {
    let database = Database::empty().await;
    for arguments in [&["status"][..], &["peek"], &["dead", "list"], &["prune"]] {
        let refused = outboxd(&database.url, arguments).exits(78);
        assert!(
            refused.stderr.contains("outboxd migrate"),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
    outboxd("postgres://127.0.0.1:1/none", &["status"]).exits(69);
}

#[tokio::test]
async fn every_command_works_through_pgbouncer() {
    let database = Database::empty().await;
    let url = database.through_pgbouncer();
    for arguments in [
        &["migrate"][..],
        &["status"],
        &["peek"],
        &["dead", "retry", "--all"],
        &["dead", "list"],
        &["prune"],
    ] {
        outboxd(&url, arguments).exits(0);
    }
}

fn peek(database: &Database, arguments: &[&str]) -> Vec<Value> {
    let ran = outboxd(&database.url, &[&["peek"], arguments].concat()).exits(0);
    ran.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn peek_shows_what_is_next_in_id_order_and_settles_nothing() {
    let database = Database::new().await;
    database.insert("orders", 30, 7).await;
    let before = database
        .text("select string_agg(o::text, '') from outbox o")
        .await;
    let shown = peek(&database, &["--limit", "12"]);
    let rows: Vec<i64> = shown
        .iter()
        .map(|line| line["row"].as_i64().unwrap())
        .collect();
    assert_eq!(rows, (1..=12).collect::<Vec<_>>());
    assert_eq!(
        (
            &shown[0]["destination"],
            &shown[0]["type"],
            &shown[0]["payload"]
        ),
        (&"orders".into(), &"Tested".into(), &1.into())
    );
    assert_eq!(peek(&database, &[]).len(), 10);
    assert_eq!(
        database
            .text("select string_agg(o::text, '') from outbox o")
            .await,
        before
    );
    let outbox = outbox(&database.url);
    assert_eq!(
        publish_all(&outbox, &mut outbox.link().await.unwrap()).await,
        30
    );
    assert!(peek(&database, &[]).is_empty());
}

#[tokio::test]
async fn peek_leaves_out_what_waits_and_shows_due_retries() {
    let database = Database::new().await;
    let mut ids = Vec::new();
    for key in ["due", "due", "dead", "held", "held", "free"] {
        ids.push(insert(&database, key).await);
    }
    fail(&database, ids[0], "retrying", true).await;
    database
        .execute("update outbox_failures set next_attempt_at = now()")
        .await;
    fail(&database, ids[2], "dead", false).await;
    fail(&database, ids[3], "retrying", true).await;
    let rows: Vec<i64> = peek(&database, &[])
        .iter()
        .map(|line| line["row"].as_i64().unwrap())
        .collect();
    assert_eq!(rows, [ids[0], ids[5]]);
}

#[tokio::test]
async fn peek_waits_for_nobody_and_keeps_large_numbers() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    insert(&database, "a").await;
    database
        .execute("update outbox set payload = '{\"n\": 12345678901234567890123}'")
        .await;
    crate::lab::claim(&outbox, &mut link).await;
    let shown = outboxd(&database.url, &["peek", "--lock-timeout", "100ms"])
        .exits(0)
        .stdout;
    assert!(shown.contains("12345678901234567890123"), "{shown}");
}

#[tokio::test]
async fn peek_shows_why_an_event_cannot_be_sent() {
    let database = Database::new().await;
    insert(&database, "a").await;
    database.execute("update outbox set headers = '[1]'").await;
    let shown = peek(&database, &[]);
    assert!(
        shown[0]["error"]
            .as_str()
            .unwrap()
            .contains("not a JSON object"),
        "{shown:?}"
    );
}

#[tokio::test]
async fn completions_are_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = outboxd("", &["completions", shell]).exits(0).stdout;
        assert!(script.contains("outboxd"), "{shell}");
    }
}
