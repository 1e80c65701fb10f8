//! Replicas: every row once, every key in order; killed and stopped ones.

use crate::common::{
    broker::{Broker, Kind, assert_complete_and_in_order},
    database::Database,
    relay::{Relay, until},
};

on_each_broker!(
    two_replicas_empty_a_backlog_once_and_in_order,
    four_replicas_empty_a_backlog_once_and_in_order,
    a_killed_replica_loses_nothing_and_repeats_no_more_than_was_in_flight,
    a_stopped_replica_repeats_nothing,
    published_rows_are_deleted_in_delete_mode,
);

/// Rows to start with; `TEST_BACKLOG=200000` for the full measure.
fn backlog() -> u32 {
    std::env::var("TEST_BACKLOG").map_or(40_000, |rows| rows.parse().unwrap())
}

async fn two_replicas_empty_a_backlog_once_and_in_order(kind: Kind) {
    empty_a_backlog(kind, 2).await;
}

async fn four_replicas_empty_a_backlog_once_and_in_order(kind: Kind) {
    empty_a_backlog(kind, 4).await;
}

async fn empty_a_backlog(kind: Kind, replicas: usize) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let rows = backlog();
    database
        .insert(&topic, rows.try_into().unwrap(), 1000)
        .await;
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relays: Vec<Relay> = (0..replicas).map(|_| Relay::run(&flags)).collect();
    until("the backlog is empty", || async {
        database.pending().await == 0
    })
    .await;
    for relay in relays {
        assert!(relay.stop().await.success());
    }
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&topic).await, rows.into()),
        0
    );
    assert_eq!(
        database
            .number("select count(*) from outbox_failures")
            .await,
        0
    );
}

async fn a_killed_replica_loses_nothing_and_repeats_no_more_than_was_in_flight(kind: Kind) {
    const IN_FLIGHT: usize = 4 * 200;
    let (_, duplicates) = end_replicas_in_the_midst(kind, async |victim| drop(victim)).await; // SIGKILL
    assert!(duplicates <= ENDS * IN_FLIGHT, "{duplicates} duplicates");
}

async fn a_stopped_replica_repeats_nothing(kind: Kind) {
    let stop = async |relay: Relay| assert!(relay.stop().await.success());
    let (database, duplicates) = end_replicas_in_the_midst(kind, stop).await;
    assert_eq!(duplicates, 0);
    assert_eq!(
        database
            .number("select count(*) from outbox_instances where not clean")
            .await,
        0
    );
}

/// Replicas that are ended while they publish.
const ENDS: usize = 5;

/// Empties a backlog with a relay that lives on beside some that are ended in the midst of it; gives
/// the number of duplicates.
async fn end_replicas_in_the_midst(kind: Kind, end: impl AsyncFn(Relay)) -> (Database, usize) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    database.insert(&topic, 40_000, 100).await;
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &["--batch-size", "200"],
    ]
    .concat();
    let survivor = Relay::run(&flags);
    for _ in 0..ENDS {
        let ended = Relay::run(&flags).ready().await;
        until("it is in the midst of it", || async {
            database.pending().await == 0 || ended.metric("outboxd_in_flight_events").await > 0.0
        })
        .await;
        end(ended).await;
    }
    until("the backlog is empty", || async {
        database.pending().await == 0
    })
    .await;
    assert!(survivor.stop().await.success());
    let duplicates = assert_complete_and_in_order(&broker.read(&topic).await, 40_000);
    (database, duplicates)
}

async fn published_rows_are_deleted_in_delete_mode(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    database.insert(&topic, 5000, 50).await;
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &["--on-published", "delete"],
    ]
    .concat();
    let relay = Relay::run(&flags);
    until("the table is empty", || async {
        database.number("select count(*) from outbox").await == 0
    })
    .await;
    assert!(relay.stop().await.success());
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&topic).await, 5000),
        0
    );
}
