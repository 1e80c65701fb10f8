//! Every event once, and every key in order, whatever ids and order are made of.

use sqlx::{AssertSqlSafe, Connection as _};

use crate::{
    common::{
        broker::{Broker, Kind, assert_complete_and_in_order},
        relay::until,
    },
    lab::{By, Foreign},
};

on_each_broker!(
    replicas_empty_a_table_ordered_by_time,
    replicas_empty_a_table_ordered_by_a_number_that_is_not_its_id,
    a_row_that_a_stranger_holds_is_not_overtaken_where_time_orders,
    a_row_that_a_stranger_holds_is_not_overtaken_where_a_number_orders,
    a_failed_event_holds_back_its_key_where_time_orders,
    a_killed_relay_loses_nothing_of_a_table_ordered_by_time,
);

/// More than one claim and one round of reading, one key being half of it.
const ROWS: usize = 8_000;

async fn empty_by_replicas(kind: Kind, by: By) {
    let (broker, foreign) = (Broker::shared(kind), Foreign::new(by).await);
    let topic = broker.destination().await;
    foreign.insert(&topic, 0, ROWS / 2, 300).await;
    foreign.insert(&topic, ROWS / 2, ROWS / 2, 1).await;
    let relays = [(); 2].map(|()| foreign.relay(&broker, &[]));
    until("the table is empty", || async {
        foreign.pending().await == 0
    })
    .await;
    for relay in relays {
        assert!(relay.stop().await.success());
    }
    let deliveries = broker.read(&topic).await;
    assert_eq!(assert_complete_and_in_order(&deliveries, ROWS as i64), 0);
    let marked = "select count(*) from \"Events\" where state = 'SENT' and sent_at > now() - interval '10 minutes'";
    assert_eq!(foreign.database.number(marked).await, ROWS as i64);
}

async fn replicas_empty_a_table_ordered_by_time(kind: Kind) {
    empty_by_replicas(kind, By::Time).await;
}

async fn replicas_empty_a_table_ordered_by_a_number_that_is_not_its_id(kind: Kind) {
    empty_by_replicas(kind, By::Number).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_empty_a_table_with_hostile_texts_for_ids() {
    empty_by_replicas(Kind::Kafka, By::Text).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_empty_a_table_with_ids_that_the_application_gives_out() {
    empty_by_replicas(Kind::Kafka, By::Given).await;
}

async fn pass_a_stranger(kind: Kind, by: By) {
    let (broker, foreign) = (Broker::shared(kind), Foreign::new(by).await);
    let topic = broker.destination().await;
    let mut stranger = foreign.database.connect().await;
    let mut held = stranger.begin().await.unwrap();
    foreign.insert(&topic, 0, 20, 2).await;
    // The second event of key-1: the first may go, the third and later may not.
    let lock = "select 1 from \"Events\" where n = 3 for key share";
    sqlx::raw_sql(lock).execute(&mut *held).await.unwrap();
    let relay = foreign.relay(&broker, &[]).ready().await;
    until("all but what stands behind it is published", || async {
        foreign.pending().await == 9
    })
    .await;
    foreign.insert(&topic, 100, 1, 7).await;
    until("a later claim has published another key", || async {
        foreign.pending().await == 9
    })
    .await;
    held.rollback().await.unwrap();
    until("all is published", || async {
        foreign.pending().await == 0
    })
    .await;
    assert!(relay.stop().await.success());
    let mut deliveries = broker.read(&topic).await;
    deliveries.retain(|delivery| delivery.number() != 101);
    assert_eq!(assert_complete_and_in_order(&deliveries, 20), 0);
}

async fn a_row_that_a_stranger_holds_is_not_overtaken_where_time_orders(kind: Kind) {
    pass_a_stranger(kind, By::Time).await;
}

async fn a_row_that_a_stranger_holds_is_not_overtaken_where_a_number_orders(kind: Kind) {
    pass_a_stranger(kind, By::Number).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_a_stranger_holds_is_not_overtaken_where_hostile_texts_order() {
    pass_a_stranger(Kind::Kafka, By::Text).await;
}

/// A text of a fixed length is ordered by all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_empty_a_table_ordered_by_characters() {
    empty_by_replicas(Kind::Kafka, By::Characters).await;
}

async fn a_failed_event_holds_back_its_key_where_time_orders(kind: Kind) {
    let (broker, foreign) = (Broker::shared(kind), Foreign::new(By::Time).await);
    let topic = broker.destination().await;
    foreign.insert(&topic, 0, 20, 2).await;
    // As if a relay had written it: tried again in an hour, its key waits.
    let fail = "insert into \"Events_failures\" (id, event_id, lane, key, destination, state, holds, attempts, next_attempt_at, reason, failed_at) \
        select ref, ref::text, hashtextextended(\"Agg\", 0) & 63, \"Agg\", topic, 'retrying', true, 1, now() + interval '1 hour', 'refused: no', now() \
          from \"Events\" where n = 1";
    foreign.database.execute(fail).await;
    let relay = foreign.relay(&broker, &[]).ready().await;
    until("all but what it holds is published", || async {
        foreign.pending().await == 10
    })
    .await;
    let event = "select ref::text from \"Events\" where n = 1";
    let event = foreign.database.text(event).await;
    let listed = foreign.outboxd(&["dead", "list", "--state", "retrying", "--json"]);
    assert!(
        listed
            .exits(0)
            .stdout
            .contains(&format!("\"id\": \"{event}\""))
    );
    assert_eq!(relay.metric("outboxd_held_keys").await, 1.0);
    let retry = ["dead", "retry", "--state", "retrying", &event];
    foreign.outboxd(&retry).exits(0);
    until("all is published", || async {
        foreign.pending().await == 0
    })
    .await;
    assert!(relay.stop().await.success());
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&topic).await, 20),
        0
    );
    let failures = "select count(*) from \"Events_failures\"";
    assert_eq!(foreign.database.number(failures).await, 0);
}

async fn a_killed_relay_loses_nothing_of_a_table_ordered_by_time(kind: Kind) {
    let (broker, foreign) = (Broker::shared(kind), Foreign::new(By::Time).await);
    let topic = broker.destination().await;
    let survivor = foreign
        .relay(&broker, &["--batch-size", "200"])
        .ready()
        .await;
    let mut writer = foreign.database.connect().await;
    for round in 0..5 {
        let victim = foreign
            .relay(&broker, &["--batch-size", "200"])
            .ready()
            .await;
        let sql = foreign.insert_sql(&topic, round * 2000, 2000, 40);
        let written = sqlx::raw_sql(AssertSqlSafe(sql));
        written.execute(&mut writer).await.unwrap();
        until("they are at work", || async {
            foreign.pending().await < 2000
        })
        .await;
        drop(victim); // SIGKILL
    }
    until("all is published", || async {
        foreign.pending().await == 0
    })
    .await;
    assert!(survivor.stop().await.success());
    assert_complete_and_in_order(&broker.read(&topic).await, 10_000);
}
