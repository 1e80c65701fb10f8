//! Outages of the broker and of the database.

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::common::{
    broker::{Broker, Kind, assert_complete_and_in_order},
    database::Database,
    relay::{Relay, until},
};

on_each_broker!(
    a_broker_that_is_away_charges_nobody_and_holds_no_transaction,
    lost_database_connections_are_made_again,
    everything_works_through_pgbouncer,
    a_pooler_that_passes_sessions_on_is_noticed_without_an_error,
    a_settlement_that_fails_after_publishing_does_not_publish_again,
    a_schema_change_under_way_is_survived,
    a_table_emptied_swapped_or_rewritten_under_way_is_looked_at_anew,
);

async fn a_broker_that_is_away_charges_nobody_and_holds_no_transaction(kind: Kind) {
    let (broker, database) = (Broker::private(kind).await, Database::new().await);
    let topic = broker.destination().await;
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &["--publish-timeout", "4s", "--shutdown-timeout", "10s"],
    ]
    .concat();
    let relay = Relay::run(&flags).ready().await;
    database.insert(&topic, 1000, 10).await;
    until("it flows", || async { database.pending().await == 0 }).await;
    broker.control("stop");
    let more = format!(
        "insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
         select '{topic}', 'key-' || n % 10, 'Tested', to_jsonb(n) from generate_series(1001, 6000) n"
    );
    database.execute(&more).await;
    until("the sink is seen to be down", || async {
        relay.metric("outboxd_sink_up").await == 0.0
    })
    .await;
    let open = "select count(*) from pg_stat_activity where datname = current_database() and \
                application_name like 'outboxd/%' and state like 'idle in transaction%' and now() - state_change > interval '1 second'";
    until("no transaction is left open", || async {
        database.number(open).await == 0
    })
    .await;
    for _ in 0..20 {
        assert_eq!(database.number(open).await, 0);
        tokio::task::yield_now().await;
    }
    assert_eq!(relay.get("/readyz").await.unwrap().0, 503);
    assert_eq!(relay.get("/livez").await.unwrap().0, 200);
    broker.control("start");
    until("everything is delivered once it is back", || async {
        database.pending().await == 0
    })
    .await;
    assert_eq!(
        database
            .number("select count(*) from outbox_failures")
            .await,
        0
    );
    assert!(relay.stop().await.success());
    assert_complete_and_in_order(&broker.read(&topic).await, 6000);
}

async fn lost_database_connections_are_made_again(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    database.insert(&topic, 20_000, 100).await;
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &["--batch-size", "100"],
    ]
    .concat();
    let relay = Relay::run(&flags).ready().await;
    while database.pending().await > 0 {
        database
            .execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'outboxd/%'")
            .await;
    }
    until("the relay has settled what it owes", || async {
        relay
            .get("/readyz")
            .await
            .is_some_and(|(status, _)| status == 200)
    })
    .await;
    assert!(relay.stop().await.success());
    assert_complete_and_in_order(&broker.read(&topic).await, 20_000);
    assert_eq!(
        database
            .number("select count(*) from outbox_failures")
            .await,
        0
    );
}

async fn everything_works_through_pgbouncer(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    database.insert(&topic, 20_000, 100).await;
    let url = database.through_pgbouncer();
    let flags = [
        &["--database-url", &url][..],
        &broker.flags(),
        &["--batch-size", "500"],
    ]
    .concat();
    let relays = [Relay::run(&flags), Relay::run(&flags)];
    until("the backlog is empty", || async {
        database.pending().await == 0
    })
    .await;
    for relay in relays {
        assert!(!relay.log().contains("ERROR"), "{}", relay.log());
        assert!(relay.stop().await.success());
    }
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&topic).await, 20_000),
        0
    );
}

/// What was prepared in one session is not there in the next.
async fn a_pooler_that_passes_sessions_on_is_noticed_without_an_error(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let url = database.through_pgbouncer();
    let flags = [
        &["--database-url", &url][..],
        &broker.flags(),
        &["--workers", "1", "--log-level", "debug"],
    ]
    .concat();
    let relay = Relay::run(&flags).ready().await;
    // Whoever opens a transaction gets the session that was used last.
    let (mut others, mut events) = (Vec::new(), 0);
    while !relay.log().contains("a pooler is before the database") {
        let options = url.parse::<PgConnectOptions>().unwrap();
        let options = options.extra_float_digits(None);
        let mut other = PgConnection::connect_with(&options).await.unwrap();
        let begun = sqlx::raw_sql("begin; select 1").execute(&mut other).await;
        begun.unwrap();
        others.push(other);
        assert!(others.len() < 10, "{}", relay.log());
        events += 1;
        let insert = format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload)
             values ('{topic}', 'key-0', 'Tested', to_jsonb({events}))"
        );
        database.execute(&insert).await;
        until("it flows", || async { database.pending().await == 0 }).await;
    }
    assert!(!relay.log().contains("ERROR"), "{}", relay.log());
    assert!(relay.stop().await.success());
    assert_complete_and_in_order(&broker.read(&topic).await, events);
}

async fn a_settlement_that_fails_after_publishing_does_not_publish_again(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    database
        .execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$; \
             create trigger refuse before update on outbox for each row execute function refuse()",
        )
        .await;
    database.insert(&topic, 500, 10).await;
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &["--workers", "1"],
    ]
    .concat();
    let relay = Relay::run(&flags);
    let failed = r#"outboxd_database_errors_total{operation="settle"}"#;
    until("marking has failed several times", || async {
        relay.get("/metrics").await.is_some() && relay.metric(failed).await > 4.0
    })
    .await;
    let answered = format!(
        r#"outboxd_publish_attempts_total{{outcome="published",sink="{}"}}"#,
        broker.label()
    );
    assert_eq!(relay.metric(&answered).await, 500.0);
    assert_eq!(relay.get("/readyz").await.unwrap().0, 503);
    database.execute("drop trigger refuse on outbox").await;
    until("what was published is marked", || async {
        database.pending().await == 0
    })
    .await;
    assert!(relay.stop().await.success());
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&topic).await, 500),
        0
    );
}

async fn a_schema_change_under_way_is_survived(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relay = Relay::run(&flags).ready().await;
    database.insert(&topic, 100, 10).await;
    until("it flows", || async { database.pending().await == 0 }).await;
    database.execute("alter table outbox add column extra text; alter table outbox alter column payload type text using payload::text").await;
    database
        .execute(&format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
             select '{topic}', 'key-' || n % 10, 'Tested', n::text from generate_series(101, 200) n"
        ))
        .await;
    until("it flows with another payload type", || async {
        database.pending().await == 0
    })
    .await;
    database
        .execute("alter table outbox rename to elsewhere")
        .await;
    until("it is unready without its table", || async {
        relay.get("/readyz").await.unwrap().0 == 503
    })
    .await;
    database
        .execute("alter table elsewhere rename to outbox")
        .await;
    until("it is ready again", || async {
        relay.get("/readyz").await.unwrap().0 == 200
    })
    .await;
    assert!(relay.stop().await.success());
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&topic).await, 200),
        0
    );
}

async fn a_table_emptied_swapped_or_rewritten_under_way_is_looked_at_anew(kind: Kind) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relay = Relay::run(&flags).ready().await;
    let changes = [
        "select 1",
        "truncate outbox restart identity",
        "begin; alter table outbox rename to outbox_before; create table outbox (like outbox_before including all); commit",
        "alter table outbox alter column payload type bytea using convert_to(payload::text, 'UTF8')",
    ];
    for (change, first) in changes.into_iter().zip((1_i64..).step_by(50)) {
        database.execute(change).await;
        let payload = if change.contains("bytea") {
            "convert_to(n::text, 'UTF8')"
        } else {
            "to_jsonb(n)"
        };
        database
            .execute(&format!(
                "insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
                 select '{topic}', 'key-' || n % 10, 'Tested', {payload} from generate_series({first}, {first} + 49) n"
            ))
            .await;
        until("it flows", || async { database.pending().await == 0 }).await;
        // Long enough for floors to rise.
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    }
    assert!(relay.stop().await.success());
    assert_eq!(
        assert_complete_and_in_order(&broker.read(&topic).await, 200),
        0
    );
}
