//! Backlog and lag.

use std::time::Duration;

use outboxd::outbox::{Sample, Want};

use crate::{
    common::database::Database,
    lab::{fail, insert, outbox, publish_all},
};

/// And whether a drain has something to wait for.
async fn sample(database: &Database) -> (Sample, bool) {
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    let sample = outbox.sample(&mut link).await.unwrap();
    (sample, outbox.is_anything_left(&mut link).await.unwrap())
}

async fn age(database: &Database, id: i64, minutes: u32) {
    database
        .execute(&format!(
            "update outbox set created_at = now() - interval '{minutes} minutes' where id = {id}"
        ))
        .await;
}

fn assert_lag(sample: &Sample, minutes: u64) {
    let expected = Duration::from_mins(minutes);
    let off = sample.lag.abs_diff(expected);
    assert!(
        off < Duration::from_secs(50),
        "lag {:?}, not {expected:?}",
        sample.lag
    );
}

#[tokio::test]
async fn an_empty_outbox_has_no_lag() {
    let database = Database::new().await;
    assert_eq!(sample(&database).await, (Sample::default(), false));
}

#[tokio::test]
async fn events_that_are_dead_discarded_or_held_by_a_dead_one_do_not_age() {
    let database = Database::new().await;
    let (dead, held) = (insert(&database, "a").await, insert(&database, "a").await);
    let (discarded, lone, fresh) = (
        insert(&database, "b").await,
        insert(&database, "c").await,
        insert(&database, "d").await,
    );
    for (id, minutes) in [
        (dead, 50),
        (held, 40),
        (discarded, 30),
        (lone, 20),
        (fresh, 5),
    ] {
        age(&database, id, minutes).await;
    }
    fail(&database, dead, "dead", true).await;
    fail(&database, discarded, "discarded", false).await;
    fail(&database, lone, "dead", false).await;
    let (now, left) = sample(&database).await;
    assert_lag(&now, 5);
    // The held one is pending all the same.
    assert_eq!(
        (
            now.pending_events,
            now.dead_letters,
            now.held_keys,
            now.retrying_events
        ),
        (2, 2, 1, 0)
    );
    assert!(left);
    let at = database
        .number("select hashtextextended('d', 0) & 63")
        .await;
    assert_eq!(now.lanes, 1 << at);
    let publish = format!("update outbox set published_at = now() where id = {fresh}");
    database.execute(&publish).await;
    let (now, left) = sample(&database).await;
    assert_eq!((now.pending_events, left), (1, false));
}

#[tokio::test]
async fn retrying_events_and_those_behind_them_count() {
    let database = Database::new().await;
    let (first, behind) = (insert(&database, "a").await, insert(&database, "a").await);
    age(&database, first, 30).await;
    age(&database, behind, 10).await;
    fail(&database, first, "retrying", true).await;
    let (now, left) = sample(&database).await;
    assert_lag(&now, 30);
    assert_eq!(
        (now.pending_events, now.retrying_events, now.held_keys),
        (2, 1, 1)
    );
    assert!(left);
}

#[tokio::test]
async fn an_event_from_the_future_has_no_negative_lag() {
    let database = Database::new().await;
    let id = insert(&database, "a").await;
    database
        .execute(&format!(
            "update outbox set created_at = now() + interval '1 day' where id = {id}"
        ))
        .await;
    assert_eq!(sample(&database).await.0.lag, Duration::ZERO);
}

#[tokio::test]
async fn a_failure_of_an_earlier_row_under_the_same_id_counts_for_nothing() {
    let database = Database::new().await;
    let id = insert(&database, "a").await;
    fail(&database, id, "dead", false).await;
    database
        .execute("update outbox_failures set event_id = 'of another row'")
        .await;
    let (now, left) = sample(&database).await;
    assert_eq!((now.pending_events, left), (1, true));
}

/// Claims raise the floors above everything they saw; what is still pending below must count.
#[tokio::test]
async fn what_the_floors_have_passed_still_counts() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    let keyless = insert(&database, "x").await;
    fail(&database, keyless, "retrying", false).await;
    age(&database, keyless, 60).await;
    for round in 0..4 {
        database.insert("orders", 100, 100).await;
        assert_eq!(publish_all(&outbox, &mut link).await, 100, "round {round}");
        // The horizon is asked for every 200 ms at most.
        tokio::time::sleep(Duration::from_millis(210)).await;
    }
    assert!(outbox.sample(&mut link).await.unwrap().pending_events == 1);
    assert_lag(&outbox.sample(&mut link).await.unwrap(), 60);
    assert!(outbox.is_anything_left(&mut link).await.unwrap());
}

#[tokio::test]
async fn rows_of_a_paused_destination_count_although_claims_pass_them() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    database.insert("paused", 10, 10).await;
    for _ in 0..4 {
        let want = Want {
            events: 1000,
            bytes: 1 << 20,
            lanes: 64,
            event_bytes: 1 << 20,
            paused: vec!["paused".into()],
        };
        let claim = outbox.claim(&mut link, || want).await.unwrap();
        assert!(claim.events.is_empty());
        outbox.settle(&mut link, &[], &[], &[], &[]).await.unwrap();
        outbox.raise_floors(&claim, &[]);
        tokio::time::sleep(Duration::from_millis(210)).await;
    }
    assert_eq!(outbox.sample(&mut link).await.unwrap().pending_events, 10);
    assert!(outbox.is_anything_left(&mut link).await.unwrap());
}

#[tokio::test]
async fn large_backlogs_are_exact_up_to_the_cap_and_estimated_above() {
    let database = Database::new().await;
    database.insert("orders", 100_000, 100).await;
    let (now, left) = sample(&database).await;
    assert_eq!((now.pending_events, left), (100_000, true));
    database.insert("orders", 50_000, 100).await;
    let (now, left) = sample(&database).await;
    assert!(now.pending_events >= 100_000, "{}", now.pending_events);
    assert!(left);
    database.execute("vacuum analyze outbox").await;
    let (now, _) = sample(&database).await;
    assert!(
        (140_000..=160_000).contains(&now.pending_events),
        "{}",
        now.pending_events
    );
}
