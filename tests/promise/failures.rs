//! Events that fail: held keys, retries, dead letters, pauses.

use crate::common::{
    broker::{Broker, Kind, assert_complete_and_in_order},
    database::Database,
    relay::{Relay, outboxd, until},
    unique,
};

on_each_broker!(
    a_failed_event_holds_back_its_key_and_charges_nobody_else,
    a_key_of_any_length_can_be_held,
    a_destination_that_does_not_exist_yet_is_paused_then_delivered_to,
    a_discarded_event_stays_unsent_when_a_held_key_of_its_lane_is_free_again,
    a_failure_written_under_a_lock_that_a_claim_waits_for_is_heeded,
);

/// Kafka refuses one event of the key for its size, for good; RabbitMQ's full queue refuses one,
/// until there is room.
async fn a_failed_event_holds_back_its_key_and_charges_nobody_else(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let (narrow, wide) = (unique("narrow"), broker.destination().await);
    broker
        .create_refusing(&narrow, if kind == Kind::Kafka { 100_000 } else { 30 })
        .await;
    database
        .execute(&format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
             select '{narrow}', 'key-' || n % 3, 'Tested', to_jsonb(n) from generate_series(1, 90) n"
        ))
        .await;
    if kind == Kind::Kafka {
        // Number 46 is of key-1 and far too large, however well it is compressed.
        database
            .execute("update outbox set headers = jsonb_build_object('pad', (select string_agg(md5(i::text), '') from generate_series(1, 10000) i)) where payload = to_jsonb(46)")
            .await;
    }
    database.insert(&wide, 100, 10).await;
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &["--backoff-initial", "100ms", "--max-attempts", "1000"],
    ]
    .concat();
    let relay = Relay::run(&flags).ready().await;
    match kind {
        Kind::Kafka => {
            until("all but the giant is published", || async {
                database.pending().await == 1
            })
            .await;
            assert_eq!(database.text("select state || ' ' || attempts || ' ' || split_part(reason, ':', 1) from outbox_failures").await, "dead 1 too_large");
            let numbers: Vec<i64> = broker
                .read(&narrow)
                .await
                .iter()
                .filter(|d| d.key.as_deref() == Some("key-1"))
                .map(super::common::broker::Delivery::number)
                .collect();
            let expected: Vec<i64> = (1..=90).filter(|n| n % 3 == 1 && *n != 46).collect();
            let mut first: Vec<i64> = Vec::new();
            for number in numbers {
                if !first.contains(&number) {
                    first.push(number);
                }
            }
            assert_eq!(first, expected);
        }
        Kind::Rabbitmq => {
            until("the queue is full and a key of each is held", || async {
                relay.metric("outboxd_held_keys").await == 3.0
            })
            .await;
            // Only the first refused event of each key has a failure; nothing passed it.
            assert_eq!(
                database
                    .number("select count(*) from outbox_failures")
                    .await,
                3
            );
            assert_eq!(database.number("select count(*) from outbox_failures f where f.id <> (select min(o.id) from outbox o where o.published_at is null and o.aggregate_type = f.destination and o.aggregate_id = f.key)").await, 0);
            let mut deliveries = Vec::new();
            while database.pending().await > 0 {
                deliveries.extend(broker.read(&narrow).await);
            }
            deliveries.extend(broker.read(&narrow).await);
            assert_complete_and_in_order(&deliveries, 90);
            until("no failure is left", || async {
                database
                    .number("select count(*) from outbox_failures")
                    .await
                    == 0
            })
            .await;
        }
    }
    // On Kafka a refused request ends the producer, and with it what others had in flight.
    let duplicates = assert_complete_and_in_order(&broker.read(&wide).await, 100);
    assert!(kind == Kind::Kafka || duplicates == 0, "{duplicates}");
    assert_eq!(
        database
            .number(&format!(
                "select count(*) from outbox_failures where destination = '{wide}'"
            ))
            .await,
        0
    );
}

/// The event is let go while floors have passed it, and what it holds.
#[tokio::test]
async fn a_discarded_event_is_not_sent_and_its_key_goes_on() {
    let database = Database::new().await;
    database.insert("topic", 3, 1).await;
    // As a broker's refusals leave it.
    database
        .execute(
            "insert into outbox_failures \
             select id, event_id::text, hashtextextended(aggregate_id, 0) & 63, aggregate_id, aggregate_type, \
                    'retrying', true, 3, now() + interval '1 hour', 'refused: no', now() from outbox where payload = to_jsonb(1)",
        )
        .await;
    let relay = Relay::run(&["--database-url", &database.url, "--sink", "stdout"]);
    let others_flow = async || {
        for _ in 0..5 {
            database
                .execute("insert into outbox (aggregate_type, aggregate_id, event_type) values ('topic', 'other', 'Tested')")
                .await;
            until("another key is published", || async {
                database
                    .number("select count(*) from outbox where aggregate_id = 'other' and published_at is null")
                    .await
                    == 0
            })
            .await;
        }
    };
    others_flow().await;
    assert_eq!(database.pending().await, 3);
    let (code, _, errors) = outboxd(&[
        "dead",
        "discard",
        "--state",
        "retrying",
        "--all",
        "--database-url",
        &database.url,
    ]);
    assert_eq!(code, 0, "{errors}");
    until("its key goes on", || async {
        database.pending().await <= 1
    })
    .await;
    others_flow().await;
    assert_eq!(
        database
            .text("select string_agg(payload::text, ',') from outbox where published_at is null")
            .await,
        "1"
    );
    assert!(relay.stop().await.success());
}

async fn a_destination_that_does_not_exist_yet_is_paused_then_delivered_to(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let (later, there) = (unique("later"), broker.destination().await);
    database.insert(&later, 100, 10).await;
    database.insert(&there, 100, 10).await;
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relay = Relay::run(&flags).ready().await;
    until(
        "the other destination is served, this one paused",
        || async {
            database.pending().await == 100
                && relay.metric("outboxd_paused_destinations").await == 1.0
        },
    )
    .await;
    assert!(
        relay.log().contains(&later),
        "the log names the destination"
    );
    until("status tells of it", || async {
        let (_, status, _) = outboxd(&["status", "--json", "--database-url", &database.url]);
        status.contains(&later)
    })
    .await;
    assert_eq!(
        database
            .number("select count(*) from outbox_failures")
            .await,
        0
    );
    broker.create(&later).await;
    until("it is delivered to", || async {
        database.pending().await == 0
    })
    .await;
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&later).await, 100),
        0
    );
    assert_eq!(
        database
            .number("select count(*) from outbox_failures")
            .await,
        0
    );
}

async fn a_discarded_event_stays_unsent_when_a_held_key_of_its_lane_is_free_again(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let lane = "hashtextextended('key-0', 0) & 63";
    let neighbour = database
        .text(&format!("select 'n-' || n from generate_series(1, 100000) n where hashtextextended('n-' || n, 0) & 63 = {lane} limit 1"))
        .await;
    // Of one lane: an event that waits for its retry, and one that was discarded.
    for (key, number, state, due) in [
        ("key-0", 1, "retrying", "now() + interval '4 seconds'"),
        (&*neighbour, 2, "discarded", "null"),
    ] {
        database
            .execute(&format!(
                "with o as (insert into outbox (aggregate_type, aggregate_id, event_type, payload)
                            values ('{topic}', '{key}', 'Tested', to_jsonb({number})) returning *)
                 insert into outbox_failures (id, event_id, lane, key, destination, state, holds, attempts, next_attempt_at, reason, failed_at)
                 select id, event_id, {lane}, aggregate_id, aggregate_type, '{state}', '{state}' = 'retrying', 1, {due}, 'refused: by hand', now() from o"
            ))
            .await;
    }
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relay = Relay::run(&flags).ready().await;
    // Floors rise above both.
    database.insert(&topic, 10, 10).await;
    until(
        "the retry is published, and what stood behind it",
        || async { database.pending().await == 1 },
    )
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(relay.stop().await.success());
    assert_eq!(database.pending().await, 1);
    let deliveries = broker.read(&topic).await;
    assert_eq!(deliveries.len(), 11);
    assert!(
        deliveries
            .iter()
            .all(|d| d.key.as_ref() != Some(&neighbour))
    );
}

/// An index entry has 8,191 bytes at most, a key has no limit.
async fn a_key_of_any_length_can_be_held(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let narrow = unique("narrow");
    let limit = if kind == Kind::Kafka { 100_000 } else { 1 };
    broker.create_refusing(&narrow, limit).await;
    database
        .execute(&format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload, headers) \
             select '{narrow}', (select string_agg(md5(i::text), '') from generate_series(1, 600) i), 'Tested', \
                    to_jsonb(n), case when n = 2 and {large} then jsonb_build_object('pad', \
                      (select string_agg(md5(i::text), '') from generate_series(1, 10000) i)) else '{{}}' end \
               from generate_series(1, 3) n",
            large = kind == Kind::Kafka
        ))
        .await;
    let hold = ["--on-dead", "hold"];
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &hold,
    ]
    .concat();
    let _relay = Relay::run(&flags).ready().await;
    until("the refused event holds its key", || async {
        database
            .number("select count(*) from outbox_failures where holds")
            .await
            == 1
    })
    .await;
    assert_eq!(database.pending().await, 2);
}

/// A claim that asks for failures with an older snapshot than the lock it had to wait for would miss it.
async fn a_failure_written_under_a_lock_that_a_claim_waits_for_is_heeded(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &["--workers", "1"],
    ]
    .concat();
    let relay = Relay::run(&flags).ready().await;
    database.insert(&topic, 10, 10).await;
    until("it flows", || async { database.pending().await == 0 }).await;

    let mut stranger = database.connect().await;
    let lock = "begin; lock table outbox_failures in access exclusive mode";
    sqlx::raw_sql(lock).execute(&mut stranger).await.unwrap();
    let events = format!(
        "insert into outbox (aggregate_type, aggregate_id, event_type, payload)
         values ('{topic}', 'held', 'Tested', to_jsonb(11)), ('{topic}', 'held', 'Tested', to_jsonb(12))"
    );
    database.execute(&events).await;
    let waiting = "select count(*) from pg_stat_activity where datname = current_database()
                      and wait_event_type = 'Lock'
                      and (query like '%pg_try_advisory_xact_lock%' or query like '%execute outboxd_%')";
    until("a claim waits for the table", || async {
        database.number(waiting).await > 0
    })
    .await;
    let dead = "insert into outbox_failures
                    (id, event_id, lane, key, destination, state, holds, attempts, reason, failed_at)
                select id, event_id, hashtextextended(aggregate_id, 0) & 63, aggregate_id, aggregate_type, 'dead', true,
                    1, 'test', now() from outbox where payload = to_jsonb(11); commit";
    sqlx::raw_sql(dead).execute(&mut stranger).await.unwrap();
    let free = format!(
        "insert into outbox (aggregate_type, aggregate_id, event_type, payload)
         values ('{topic}', 'free', 'Tested', to_jsonb(13))"
    );
    database.execute(&free).await;
    until("another key goes on", || async {
        let sql =
            "select count(*) from outbox where aggregate_id = 'free' and published_at is not null";
        database.number(sql).await == 1
    })
    .await;
    assert_eq!(database.pending().await, 2);
    assert!(relay.stop().await.success());
    assert_eq!(broker.read(&topic).await.len(), 11);
}
