//! Order per key: rows that strangers hold, late commits, frozen claims.

use std::time::Duration;

use sqlx::Connection as _;

use crate::common::{
    broker::{Broker, Kind, assert_complete_and_in_order},
    database::Database,
    relay::{Relay, until},
};

on_each_broker!(
    a_row_that_a_stranger_holds_is_not_overtaken_by_its_key,
    a_row_that_a_stranger_holds_at_the_end_of_its_lane_is_not_forgotten,
    a_claim_that_freezes_is_freed_by_its_own_timeout_and_keeps_the_order_when_it_wakes,
    events_committed_late_are_delivered_though_their_ids_are_low,
    rolled_back_events_are_never_sent,
);

async fn a_row_that_a_stranger_holds_is_not_overtaken_by_its_key(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let mut stranger = database.connect().await;
    let mut held = stranger.begin().await.unwrap();
    database.insert(&topic, 20, 2).await;
    // The second event of key-1: the first may go, the third and later may not.
    sqlx::raw_sql("select 1 from outbox where payload = to_jsonb(3) for key share")
        .execute(&mut *held)
        .await
        .unwrap();

    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relay = Relay::run(&flags).ready().await;
    until(
        "all but what stands behind the held row is published",
        || async { database.pending().await == 9 },
    )
    .await;
    // A claim or two later it is still so.
    let claims = relay.metric("outboxd_claim_duration_seconds_count").await;
    database.insert(&topic, 0, 1).await;
    database.execute(&format!("insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('{topic}', 'other', 'Tested', to_jsonb(21))")).await;
    until("another claim is made", || async {
        relay.metric("outboxd_claim_duration_seconds_count").await > claims
    })
    .await;
    until("the other key is published", || async {
        database.pending().await == 9
    })
    .await;
    assert_eq!(database.number("select count(*) from outbox where aggregate_id = 'key-1' and published_at is not null").await, 1);
    assert_eq!(
        database
            .number("select count(*) from outbox_failures")
            .await,
        0
    );

    held.rollback().await.unwrap();
    until("the rest is published", || async {
        database.pending().await == 0
    })
    .await;
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&topic).await, 21),
        0
    );
}

async fn a_row_that_a_stranger_holds_at_the_end_of_its_lane_is_not_forgotten(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    // Two events of one key, and of one lane; the other lanes are empty.
    database.insert(&topic, 2, 1).await;
    let mut stranger = database.connect().await;
    let mut held = stranger.begin().await.unwrap();
    sqlx::raw_sql("select 1 from outbox where payload = to_jsonb(2) for key share")
        .execute(&mut *held)
        .await
        .unwrap();
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relay = Relay::run(&flags).ready().await;
    until("the free one is published", || async {
        database.pending().await == 1
    })
    .await;
    // Long enough for floors to rise.
    tokio::time::sleep(Duration::from_secs(2)).await;
    held.rollback().await.unwrap();
    database
        .execute(&format!("insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('{topic}', 'key-0', 'Tested', to_jsonb(3))"))
        .await;
    until("all are published", || async {
        database.pending().await == 0
    })
    .await;
    assert!(relay.stop().await.success());
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&topic).await, 3),
        0
    );
}

async fn a_claim_that_freezes_is_freed_by_its_own_timeout_and_keeps_the_order_when_it_wakes(
    kind: Kind,
) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let short = [
        "--publish-timeout",
        "2s",
        "--shutdown-timeout",
        "5s",
        "--batch-size",
        "50",
        "--workers",
        "1",
    ];
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &short,
    ]
    .concat();
    let frozen = Relay::run(&flags).ready().await;
    // A steady stream, so that the relay is frozen with a claim in its hands.
    let mut frozen_in_a_claim = false;
    let mut count = 0;
    while !frozen_in_a_claim {
        let first = count + 1;
        count += 2000;
        database
            .execute(&format!(
                "insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
                 select '{topic}', 'key-' || n % 5, 'Tested', to_jsonb(n) from generate_series({first}, {count}) n"
            ))
            .await;
        for _ in 0..50 {
            frozen.signal("-STOP");
            let open = "select count(*) from pg_stat_activity where datname = current_database() \
                        and application_name like 'outboxd/%' and state = 'idle in transaction' \
                        and wait_event = 'ClientRead'";
            let locks = "select count(*) from pg_locks where locktype = 'advisory' and objid < 64 and database = \
                         (select oid from pg_database where datname = current_database())";
            if database.number(open).await > 0 && database.number(locks).await > 0 {
                frozen_in_a_claim = true;
                break;
            }
            frozen.signal("-CONT");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    let other = Relay::run(&flags).ready().await;
    until(
        "the frozen relay's lanes are freed and emptied by the other",
        || async { database.pending().await == 0 },
    )
    .await;
    frozen.signal("-CONT");
    until("the frozen relay is back", || async {
        frozen
            .get("/readyz")
            .await
            .is_some_and(|(status, _)| status == 200)
    })
    .await;
    database.insert(&topic, 0, 1).await;
    assert!(other.stop().await.success());
    assert!(frozen.stop().await.success());
    assert_eq!(
        database
            .number("select count(*) from outbox_failures")
            .await,
        0
    );
    let duplicates = assert_complete_and_in_order(&broker.read(&topic).await, count);
    assert!(
        duplicates <= 50,
        "{duplicates} duplicates, more than were in flight"
    );
}

async fn events_committed_late_are_delivered_though_their_ids_are_low(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relay = Relay::run(&flags).ready().await;
    let mut late = database.connect().await;
    let mut open = late.begin().await.unwrap();
    let insert = |number: i64| {
        format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('{topic}', 'late', 'Tested', to_jsonb({number}))"
        )
    };
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert(1)))
        .execute(&mut *open)
        .await
        .unwrap();
    // Many later ids are committed, published, and passed by the floors as far as they may be.
    for _ in 0..10 {
        database.insert(&topic, 500, 64).await;
        until("later ids are published", || async {
            database.pending().await == 0
        })
        .await;
        relay.request("POST", "/wake").await.unwrap();
    }
    open.commit().await.unwrap();
    until("the late one is published", || async {
        database.pending().await == 0
    })
    .await;
    let deliveries = broker.read(&topic).await;
    assert_eq!(deliveries.len(), 5001);
    assert_eq!(
        deliveries
            .iter()
            .filter(|delivery| delivery.key.as_deref() == Some("late"))
            .count(),
        1
    );
}

async fn rolled_back_events_are_never_sent(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let _relay = Relay::run(&flags).ready().await;
    let mut writer = database.connect().await;
    for number in 1..=40 {
        let mut transaction = writer.begin().await.unwrap();
        let sql = format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload) values ('{topic}', 'k', 'Tested', to_jsonb({number}))"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut *transaction)
            .await
            .unwrap();
        if number % 2 == 0 {
            transaction.rollback().await
        } else {
            transaction.commit().await
        }
        .unwrap();
    }
    until("everything committed is published", || async {
        database.pending().await == 0
    })
    .await;
    let numbers: Vec<i64> = broker
        .read(&topic)
        .await
        .iter()
        .map(super::common::broker::Delivery::number)
        .collect();
    assert_eq!(
        numbers,
        (1..=40)
            .filter(|number| number % 2 == 1)
            .collect::<Vec<_>>()
    );
}

/// Its locks belong to no process meanwhile.
#[tokio::test]
async fn an_event_of_a_prepared_transaction_is_delivered_once_it_commits() {
    let database = Database::new().await;
    let insert = |key: &str| {
        format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type) values ('topic', '{key}', 'Tested')"
        )
    };
    let prepare = format!("prepare transaction '{}'", database.name);
    database
        .execute(&format!("begin; {}; {prepare}", insert("late")))
        .await;
    let flags = ["--database-url", &database.url, "--sink", "stdout"];
    let relay = Relay::run(&[&flags[..], &["--poll-interval", "20ms"]].concat());
    // Long enough for the relay to look at the writers several times.
    for _ in 0..8 {
        database.execute(&insert("other")).await;
        until("another key is published", || async {
            database.pending().await == 0
        })
        .await;
    }
    database
        .execute(&format!("commit prepared '{}'", database.name))
        .await;
    until("it is published", || async {
        database.pending().await == 0
    })
    .await;
    assert!(relay.stop().await.success());
}
