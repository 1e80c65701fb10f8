//! Rules and dashboard on what a real relay exports.

use std::collections::BTreeSet;

use lapin::types::FieldTable;

use crate::{
    common::{
        broker::{Broker, Kind},
        database::Database,
        free_port,
        proxy::{Fault, Proxy},
        rabbitmq,
        relay::{Relay, until},
        unique,
    },
    files::{alert_expressions, dashboard_expressions},
    prometheus::{Prometheus, promtool},
};

/// Alerts that fire and clear in what follows; the others' rules have tests without a relay.
const OUTAGE: [&str; 3] = [
    "OutboxdSinkDown",
    "OutboxdDatabaseDown",
    "OutboxdReplicaUnready",
];
const TROUBLE: [&str; 7] = [
    "OutboxdDeadLettersGrow",
    "OutboxdDestinationPaused",
    "OutboxdKeysHeld",
    "OutboxdLagHigh",
    "OutboxdLagging",
    "OutboxdNotPublishing",
    "OutboxdRetrying",
];

/// Waits until each of these has fired at some time.
async fn until_fired(prometheus: &Prometheus, alerts: &[&str]) {
    let fired = tokio::sync::Mutex::new(BTreeSet::new());
    let what = format!("all of these fire: {alerts:?}");
    until(&what, || async {
        let mut fired = fired.lock().await;
        fired.extend(prometheus.firing().await);
        alerts.iter().all(|alert| fired.contains(*alert))
    })
    .await;
}

async fn until_quiet(prometheus: &Prometheus) {
    until("no alert fires", || async {
        prometheus.firing().await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_when_there_is_trouble_and_clear_when_it_is_over() {
    let port = free_port();
    let prometheus = Prometheus::scraping(port).await;
    let (mut broker, database) = (Broker::shared(Kind::Rabbitmq), Database::new().await);
    let (full, missing) = (unique("full"), unique("missing"));
    broker.create_refusing(&full, 1).await;
    let way_to_broker = broker.behind_proxy().await;
    let (way_to_database, url) = database.through_proxy().await;
    until_fired(&prometheus, &["OutboxdAbsent", "OutboxdReplicaAbsent"]).await;

    let retries = [
        "--backoff-initial",
        "50ms",
        "--backoff-max",
        "200ms",
        "--max-attempts",
        "10000",
    ];
    let flags = [&["--database-url", &url][..], &broker.flags(), &retries].concat();
    let relay = Relay::run(&flags).ready().await;
    let listening = format!("127.0.0.1:{}", relay.port());
    let _door = Proxy::at(&format!("127.0.0.1:{port}"), &listening).await;
    until_quiet(&prometheus).await;

    // A poison row, a destination that is missing, and a key that a full queue holds up.
    database
        .execute(&format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload, headers) values \
             ('{full}', 'poison', 'Tested', '1', '[]'), ('{missing}', 'waits', 'Tested', '1', '{{}}')"
        ))
        .await;
    database.insert(&full, 12, 1).await;
    until_fired(&prometheus, &TROUBLE).await;
    rabbitmq::declare(&broker.address, &missing, FieldTable::default()).await;
    until("all but the dead letter is published", || async {
        broker.read(&full).await;
        database.pending().await == 1
    })
    .await;
    until_quiet(&prometheus).await;

    way_to_broker.set(Fault::Cut);
    database.insert(&missing, 1, 1).await;
    until_fired(&prometheus, &OUTAGE[..1]).await;
    way_to_database.set(Fault::Cut);
    until_fired(&prometheus, &OUTAGE[1..]).await;
    way_to_broker.heal();
    way_to_database.heal();
    until_quiet(&prometheus).await;

    relay.stop().await;
    until_fired(&prometheus, &["OutboxdGone"]).await;
}

/// The parts of a rule that read metrics, without what they are compared with.
fn compared(expression: &str) -> Vec<String> {
    let plain = expression.replace("absent(", "(");
    let mut parts = vec![plain.replace("on (namespace, job, instance) ", "")];
    for separator in [" == ", " > ", " and ", " or ", " unless "] {
        let split = parts.iter().flat_map(|part| part.split(separator));
        parts = split.map(|part| part.trim().to_owned()).collect();
    }
    let reads = |part: &String| part.contains("outboxd");
    parts.into_iter().filter(reads).collect()
}

/// The labels that an expression groups by.
fn grouped_by(expression: &str) -> Vec<&str> {
    let groups = expression.split("by (").skip(1);
    groups
        .flat_map(|rest| rest.split_once(')').unwrap().0.split(", "))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_of_rules_and_dashboard_reads_what_a_relay_exports() {
    let (broker, database) = (Broker::shared(Kind::Kafka), Database::new().await);
    let topic = broker.destination().await;
    let flags = [&["--database-url", &database.url][..], &broker.flags()].concat();
    let relay = Relay::run(&flags).ready().await;
    let prometheus = Prometheus::scraping(relay.port()).await;
    database.insert(&topic, 100, 10).await;
    until("it is published", || async {
        database.pending().await == 0
    })
    .await;

    let (_, exposition) = relay.get("/metrics").await.unwrap();
    promtool(&["check", "metrics"], &exposition);
    let rules = alert_expressions();
    assert_eq!(rules.len(), 18);
    let panels = dashboard_expressions().into_iter().map(|expression| {
        let variables = [
            ("[5m:15s]", "[5s:1s]"),
            ("$__rate_interval", "5s"),
            ("$job", ".*"),
            ("$instance", ".*"),
        ];
        let shown = variables.into_iter();
        shown.fold(expression, |text, (name, value)| text.replace(name, value))
    });
    let expressions: Vec<String> = rules
        .iter()
        .flat_map(|rule| compared(rule))
        .chain(panels)
        .collect();
    for expression in &expressions {
        let may_be_empty = expression.contains("> 0");
        until(&format!("there is data for {expression}"), || async {
            !prometheus.query(expression).await.is_empty() || may_be_empty
        })
        .await;
        for label in grouped_by(expression) {
            let scraped = ["namespace", "job", "instance"].contains(&label);
            assert!(
                scraped || exposition.contains(&format!("{label}=\"")),
                "{label} in {expression}"
            );
        }
    }
}
