//! `outboxd dead`.

use crate::{
    common::database::Database,
    lab::{claim, event_id, fail, ids, insert, outbox, outboxd, publish_all, state},
};

#[tokio::test]
async fn list_gives_every_field_as_json() {
    let database = Database::new().await;
    let id = insert(&database, "order-1").await;
    fail(&database, id, "dead", true).await;
    let other = insert(&database, "order-2").await;
    fail(&database, other, "retrying", true).await;
    let list = outboxd(&database.url, &["dead", "list", "--json"])
        .exits(0)
        .json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    let dead = &list[0];
    assert_eq!(dead["event_id"], event_id(&database, id).await.as_str());
    assert_eq!(
        (dead["id"].as_i64(), dead["attempts"].as_i64()),
        (Some(id), Some(3))
    );
    assert_eq!(
        (&dead["destination"], &dead["key"]),
        (&"orders".into(), &"order-1".into())
    );
    assert_eq!(
        (&dead["state"], &dead["reason"]),
        (&"dead".into(), &"refused: a nack".into())
    );
    assert!(dead["failed_at"].as_str().unwrap().ends_with('Z'), "{dead}");
    assert!(dead["next_attempt_at"].is_null());
    let all = outboxd(&database.url, &["dead", "list", "--json", "--state", "all"])
        .exits(0)
        .json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let table = outboxd(&database.url, &["dead", "list"]).exits(0).stdout;
    assert!(
        table.contains("order-1") && table.contains("holds its key"),
        "{table}"
    );
}

#[tokio::test]
async fn filters_choose_by_destination_key_reason_and_age() {
    let database = Database::new().await;
    let mut ids = Vec::new();
    for key in ["a", "b", "c"] {
        let id = insert(&database, key).await;
        fail(&database, id, "dead", false).await;
        ids.push(id);
    }
    database
        .execute(&format!(
            "update outbox_failures set reason = 'too_large: 9 MB', failed_at = now() - interval '3 hours' where id = {}; \
             update outbox_failures set destination = 'bills', reason = 'invalid: refused by policy' where id = {}",
            ids[0], ids[1]
        ))
        .await;
    let chosen = |arguments: &[&str]| {
        let arguments = [&["dead", "list", "--json"], arguments].concat();
        let list = outboxd(&database.url, &arguments).exits(0).json();
        let keys = list
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["key"].as_str().unwrap().to_owned());
        keys.collect::<String>()
    };
    assert_eq!(chosen(&["--topic", "bills"]), "b");
    assert_eq!(chosen(&["--key", "c"]), "c");
    assert_eq!(chosen(&["--reason", "too_large"]), "a");
    assert_eq!(
        chosen(&["--reason", "refused"]),
        "c",
        "a kind is not looked for in the text"
    );
    assert_eq!(chosen(&["--reason", "BY POLICY"]), "b");
    assert_eq!(chosen(&["--before", "2h"]), "a");
    assert_eq!(chosen(&["--before", "2020-01-01T00:00:00Z"]), "");
    assert_eq!(chosen(&["--limit", "2"]), "ab");
    assert_eq!(chosen(&["--before", "2h", "--key", "b"]), "");
}

#[tokio::test]
async fn without_a_choice_nothing_is_changed() {
    let database = Database::new().await;
    let id = insert(&database, "a").await;
    fail(&database, id, "dead", false).await;
    for command in ["retry", "discard"] {
        let refused = outboxd(&database.url, &["dead", command]).exits(64);
        assert!(refused.stderr.contains("--all"), "{}", refused.stderr);
    }
    let wrong = outboxd(&database.url, &["dead", "retry", "--before", "yesterday"]).exits(78);
    assert!(wrong.stderr.contains("--before"), "{}", wrong.stderr);
    assert_eq!(state(&database, id).await, "dead");
}

#[tokio::test]
async fn a_retried_dead_letter_is_published_before_the_rest_of_its_key() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    let (dead, held) = (insert(&database, "a").await, insert(&database, "a").await);
    fail(&database, dead, "dead", true).await;
    assert_eq!(publish_all(&outbox, &mut link).await, 0);
    let done = outboxd(
        &database.url,
        &["dead", "retry", &event_id(&database, dead).await],
    )
    .exits(0);
    assert!(done.stderr.contains("retried 1 event"), "{}", done.stderr);
    assert!(
        !done.stderr.contains("out of order"),
        "it held its key: {}",
        done.stderr
    );
    let after = database
        .text(
            "select state || holds || attempts || (next_attempt_at <= now()) from outbox_failures",
        )
        .await;
    assert_eq!(after, "retryingtrue0true");
    let first = claim(&outbox, &mut link).await;
    assert_eq!(ids(&first), [dead.to_string()]);
    outbox
        .settle(&mut link, &first.events, &[0], &[0], &[])
        .await
        .unwrap();
    let second = claim(&outbox, &mut link).await;
    assert_eq!(ids(&second), [held.to_string()]);
}

#[tokio::test]
async fn a_retry_behind_its_key_says_that_it_is_out_of_order() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let dead = insert(&database, "a").await;
    fail(&database, dead, "dead", false).await;
    insert(&database, "a").await;
    assert_eq!(
        publish_all(&outbox, &mut outbox.link().await.unwrap()).await,
        1
    );
    let done = outboxd(&database.url, &["dead", "retry", "--all", "--json"]).exits(0);
    assert!(done.stderr.contains("out of order"), "{}", done.stderr);
    assert_eq!(
        (
            done.json()["retried"].as_i64(),
            done.json()["overtaken"].as_i64()
        ),
        (Some(1), Some(1))
    );
}

#[tokio::test]
async fn a_discarded_event_is_never_published_and_frees_its_key() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    let (stuck, held) = (insert(&database, "a").await, insert(&database, "a").await);
    fail(&database, stuck, "retrying", true).await;
    let id = event_id(&database, stuck).await;
    let unwanted = outboxd(&database.url, &["dead", "discard", &id]).exits(1);
    assert!(
        unwanted
            .stderr
            .contains("it is retrying: say --state retrying"),
        "{}",
        unwanted.stderr
    );
    outboxd(
        &database.url,
        &["dead", "discard", "--state", "retrying", &id],
    )
    .exits(0);
    assert_eq!(state(&database, stuck).await, "discarded");
    let next = claim(&outbox, &mut link).await;
    assert_eq!(ids(&next), [held.to_string()]);
    link.session.rollback().await.unwrap();
    // And back again.
    outboxd(
        &database.url,
        &["dead", "retry", "--state", "discarded", &id],
    )
    .exits(0);
    let next = claim(&outbox, &mut link).await;
    assert_eq!(ids(&next)[0], stuck.to_string());
}

#[tokio::test]
async fn unknown_events_are_named_and_the_others_are_changed() {
    let database = Database::new().await;
    let known = insert(&database, "a").await;
    fail(&database, known, "dead", false).await;
    let id = event_id(&database, known).await;
    let done = outboxd(&database.url, &["dead", "retry", &id, "no-such-event"]).exits(1);
    assert!(
        done.stderr
            .contains("no-such-event: no failed event has this id"),
        "{}",
        done.stderr
    );
    assert_eq!(state(&database, known).await, "retrying");
}

#[tokio::test]
async fn an_event_that_is_pending_no_more_is_dropped() {
    let database = Database::new().await;
    let id = insert(&database, "a").await;
    fail(&database, id, "dead", true).await;
    database
        .execute("update outbox set published_at = now()")
        .await;
    let done = outboxd(&database.url, &["dead", "retry", "--all"]).exits(0);
    assert!(
        done.stderr.contains("retried 0 events") && done.stderr.contains("dropped 1 event"),
        "{}",
        done.stderr
    );
    assert_eq!(
        database
            .number("select count(*) from outbox_failures")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_waits_for_the_lane_and_says_who_holds_it() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    let dead = insert(&database, "a").await;
    fail(&database, dead, "dead", false).await;
    insert(&database, "a").await;
    let held = claim(&outbox, &mut link).await;
    assert_eq!(held.events.len(), 1);
    let arguments = ["dead", "retry", "--all", "--lock-timeout", "300ms"];
    let refused = outboxd(&database.url, &arguments).exits(69);
    assert!(
        refused.stderr.contains("is held by outboxd/test (pid "),
        "{}",
        refused.stderr
    );
    assert_eq!(state(&database, dead).await, "dead");
    let url = database.url.clone();
    let waiting = tokio::task::spawn_blocking(move || {
        outboxd(&url, &["dead", "retry", "--all", "--lock-timeout", "30s"])
    });
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                 and database = (select oid from pg_database where datname = current_database())";
    while database.number(waits).await == 0 {
        tokio::task::yield_now().await;
    }
    link.session.rollback().await.unwrap();
    waiting.await.unwrap().exits(0);
    assert_eq!(state(&database, dead).await, "retrying");
}

#[tokio::test]
async fn thousands_are_changed_in_batches_over_all_lanes() {
    let database = Database::new().await;
    database.insert("orders", 5000, 700).await;
    database
        .execute(
            "insert into outbox_failures select id, event_id, hashtextextended(aggregate_id, 0) & 63, aggregate_id, aggregate_type, \
             'dead', false, 1, null, 'refused: a nack', now() from outbox",
        )
        .await;
    let list = outboxd(&database.url, &["dead", "list", "--json"]).exits(0);
    assert_eq!(list.json().as_array().unwrap().len(), 1000);
    assert!(list.stderr.contains("--all"), "{}", list.stderr);
    let list = outboxd(&database.url, &["dead", "list", "--json", "--all"]).exits(0);
    assert_eq!(list.json().as_array().unwrap().len(), 5000);
    outboxd(
        &database.url,
        &["dead", "discard", "--topic", "orders", "--limit", "1000"],
    )
    .exits(0);
    let oldest = database
        .number("select max(id) from outbox_failures where state = 'discarded'")
        .await;
    assert_eq!(
        oldest,
        database
            .number("select id from outbox order by id offset 999 limit 1")
            .await
    );
    let rest = outboxd(&database.url, &["dead", "retry", "--all"]).exits(0);
    assert!(
        rest.stderr.contains("retried 4000 events"),
        "{}",
        rest.stderr
    );
}
