//! Pruning.

use std::time::Duration;

use outboxd::outbox::{Outbox, PruneCursor};

use crate::{
    common::database::Database,
    lab::{claim, fail, insert, outbox, outboxd},
};

const DAY: Duration = Duration::from_hours(24);

/// Prunes until nothing is due; gives rows and failures deleted.
async fn prune(outbox: &Outbox, cursor: &mut PruneCursor) -> (u64, u64) {
    let mut link = outbox.link().await.unwrap();
    let (mut events, mut failures) = (0, 0);
    loop {
        let step = outbox.prune_step(&mut link, cursor, DAY).await.unwrap();
        assert!(!step.elsewhere);
        events += step.events;
        failures += step.failures;
        if !step.more {
            return (events, failures);
        }
    }
}

/// So many rows, created and published so many hours ago.
async fn published(database: &Database, count: u32, hours: u32) {
    database
        .execute(&format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, created_at, published_at) \
             select 'orders', n::text, 'T', now() - interval '{hours} hours', now() - interval '{hours} hours' from generate_series(1, {count}) n"
        ))
        .await;
}

#[tokio::test]
async fn only_rows_published_longer_ago_than_the_retention_go() {
    let database = Database::new().await;
    published(&database, 5000, 25).await;
    let pending = insert(&database, "pending").await;
    published(&database, 10, 23).await;
    database
        .execute(
            "update outbox set created_at = now() - interval '9 days' where published_at is null",
        )
        .await;
    assert_eq!(
        prune(&outbox(&database.url), &mut PruneCursor::default()).await,
        (5000, 0)
    );
    assert_eq!(database.number("select count(*) from outbox").await, 11);
    assert_eq!(
        database
            .number(&format!("select count(*) from outbox where id = {pending}"))
            .await,
        1
    );
}

#[tokio::test]
async fn a_step_tells_how_overdue_its_rows_were() {
    let database = Database::new().await;
    published(&database, 10, 25).await;
    published(&database, 10, 30).await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    let mut overdue = Vec::new();
    for _ in 0..2 {
        let cursor = &mut PruneCursor::default();
        let step = outbox.prune_step(&mut link, cursor, DAY).await.unwrap();
        overdue.push(step.overdue.as_secs() / 60);
    }
    assert_eq!(overdue, [6 * 60, 0]);
}

#[tokio::test]
async fn pages_of_old_pending_rows_and_dead_letters_are_walked_past() {
    let database = Database::new().await;
    database.insert("orders", 5000, 50).await;
    database
        .execute("update outbox set created_at = now() - interval '3 days'")
        .await;
    published(&database, 100, 48).await;
    assert_eq!(
        prune(&outbox(&database.url), &mut PruneCursor::default()).await,
        (100, 0)
    );
    assert_eq!(database.pending().await, 5000);
}

#[tokio::test]
async fn the_walk_stops_at_young_rows_and_goes_on_from_there() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    published(&database, 3000, 30).await;
    published(&database, 9000, 1).await;
    let mut cursor = PruneCursor::default();
    assert_eq!(prune(&outbox, &mut cursor).await, (3000, 0));
    let mut link = outbox.link().await.unwrap();
    let step = outbox
        .prune_step(&mut link, &mut cursor, DAY)
        .await
        .unwrap();
    assert!(step.events == 0 && !step.more, "{step:?}");
    // A day later.
    database
        .execute("update outbox set created_at = created_at - interval '1 day', published_at = published_at - interval '1 day'")
        .await;
    assert_eq!(prune(&outbox, &mut cursor).await, (9000, 0));
}

#[tokio::test]
async fn dead_letters_stay_and_failures_without_their_event_go() {
    let database = Database::new().await;
    let mut ids = Vec::new();
    for key in ["dead", "deleted", "by-hand", "reused", "discarded"] {
        ids.push(insert(&database, key).await);
    }
    for id in &ids[..4] {
        fail(&database, *id, "dead", true).await;
    }
    fail(&database, ids[4], "discarded", false).await;
    database
        .execute(&format!(
            "delete from outbox where id = {}; update outbox set published_at = now() where id = {}; \
             update outbox set event_id = gen_random_uuid() where id = {}",
            ids[1], ids[2], ids[3]
        ))
        .await;
    assert_eq!(
        prune(&outbox(&database.url), &mut PruneCursor::default()).await,
        (0, 3)
    );
    let left = database
        .text("select string_agg(key, ',' order by id) from outbox_failures")
        .await;
    assert_eq!(left, "dead,discarded");
}

#[tokio::test]
async fn a_failure_without_its_event_waits_while_its_lane_is_in_use() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let id = insert(&database, "k").await;
    fail(&database, id, "dead", false).await;
    database.execute("delete from outbox").await;
    insert(&database, "k").await;
    let mut busy = outbox.link().await.unwrap();
    assert_eq!(claim(&outbox, &mut busy).await.events.len(), 1);
    assert_eq!(prune(&outbox, &mut PruneCursor::default()).await, (0, 0));
    busy.session.rollback().await.unwrap();
    assert_eq!(prune(&outbox, &mut PruneCursor::default()).await, (0, 1));
}

#[tokio::test]
async fn there_is_one_pruner() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let (mut first, mut second) = (outbox.link().await.unwrap(), outbox.link().await.unwrap());
    first
        .session
        .begin(&outboxd::outbox::timeouts(DAY, DAY, DAY))
        .await
        .unwrap();
    let lock = "select pg_advisory_xact_lock('outbox'::regclass::oid::int, 1000000)";
    first.session.batch("test", lock.into()).await.unwrap();
    let step = outbox
        .prune_step(&mut second, &mut PruneCursor::default(), DAY)
        .await
        .unwrap();
    assert!(step.elsewhere);
    let refused = outboxd(&database.url, &["prune"]).exits(1);
    assert!(
        refused
            .stderr
            .contains("another outboxd prunes public.outbox"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn the_command_says_what_it_deleted() {
    let database = Database::new().await;
    published(&database, 2500, 3).await;
    let kept = outboxd(&database.url, &["prune"]).exits(0);
    assert!(
        kept.stderr.contains("deleted 0 published rows"),
        "{}",
        kept.stderr
    );
    let gone = outboxd(&database.url, &["prune", "--retention", "2h"]).exits(0);
    assert!(
        gone.stderr.contains("deleted 2500 published rows"),
        "{}",
        gone.stderr
    );
    let wrong = outboxd(&database.url, &["prune", "--retention", "0"]).exits(78);
    assert!(wrong.stderr.contains("--retention"), "{}", wrong.stderr);
}
