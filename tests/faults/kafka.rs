//! Faults of Kafka's topics, under load. Those of the way there are in `network`.

use std::{
    collections::{HashMap, HashSet},
    process::Command,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};

use crate::{
    common::{
        blocking,
        broker::{Broker, Kind},
        database::Database,
        env,
        relay::{outboxd, until},
    },
    scene::Scene,
};

fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.address);
    config.create().unwrap()
}

async fn scene() -> Scene {
    let (broker, database) = (Broker::shared(Kind::Kafka), Database::new().await);
    let url = database.url.clone();
    Scene::new(database, &url, broker, &[]).await
}

/// What the deleted topic held is gone with it; what was not yet confirmed is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_deleted_and_made_again_gets_what_was_not_yet_confirmed() {
    let mut scene = scene().await;
    scene.load().await;
    let (admin, options) = (admin(&scene.broker), AdminOptions::new());
    let deleted = admin.delete_topics(&[&scene.topic], &options).await;
    deleted.unwrap()[0].as_ref().unwrap();
    scene.write(200).await;
    scene.pauses().await;
    let pending = "select coalesce(string_agg(payload::text, ' ' order by id), '') from outbox where published_at is null";
    let pending = scene.database.text(pending).await;
    scene.broker.create(&scene.topic).await;
    scene.recovers("a deleted topic").await;
    let (deliveries, ..) = scene.deliveries().await;
    let mut newest: HashMap<Option<String>, i64> = HashMap::new();
    let mut arrived = HashSet::new();
    for delivery in deliveries {
        if arrived.insert(delivery.number()) {
            let before = newest.insert(delivery.key.clone(), delivery.number());
            assert!(
                before < Some(delivery.number()),
                "{delivery:?} after {before:?}"
            );
        }
    }
    let numbers: Vec<i64> = pending.split(' ').map(|n| n.parse().unwrap()).collect();
    assert!(numbers.len() >= 200);
    assert!(numbers.iter().all(|number| arrived.contains(number)));
}

/// Batches are too large then, too, but no fault of theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_limit_lowered_under_load_charges_only_what_is_too_large() {
    let mut scene = scene().await;
    scene.load().await;
    scene.begin();
    limit(&scene, "2000").await;
    scene.write_large(10_000).await;
    scene.write(200).await;
    until("all but the large one is published", || async {
        scene.database.pending().await == 1
    })
    .await;
    let failures = "select string_agg(key || ' ' || state || ' ' || attempts || ' ' || split_part(reason, ':', 1), ', ') from outbox_failures";
    assert_eq!(
        scene.database.text(failures).await,
        "large dead 1 too_large"
    );
    limit(&scene, "1000000").await;
    let retry = [
        "dead",
        "retry",
        "--all",
        "--database-url",
        &scene.database.url,
    ];
    assert_eq!(outboxd(&retry).0, 0);
    scene.recovers("a lowered limit").await;
    scene.ends().await;
}

async fn limit(scene: &Scene, bytes: &str) {
    let alter =
        AlterConfig::new(ResourceSpecifier::Topic(&scene.topic)).set("max.message.bytes", bytes);
    let done = admin(&scene.broker)
        .alter_configs(&[alter], &AdminOptions::new())
        .await;
    done.unwrap()[0].as_ref().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_taken_away_under_load_pauses_the_topic_until_it_is_given_back() {
    let (mut broker, database) = (Broker::shared(Kind::Kafka), Database::new().await);
    broker.enter_by(env("TEST_KAFKA_SASL_BROKERS"));
    let (url, ca) = (database.url.clone(), env("TEST_CA_FILE"));
    let options = [
        "security.protocol=sasl_ssl".to_owned(),
        format!("ssl.ca.location={ca}"),
        "sasl.mechanisms=SCRAM-SHA-256".to_owned(),
        "sasl.username=alice".to_owned(),
        "sasl.password=alice-secret".to_owned(),
    ];
    let flags: Vec<&str> = options
        .iter()
        .flat_map(|option| ["--kafka-option", option])
        .collect();
    let mut scene = Scene::new(database, &url, broker, &flags).await;
    scene.load().await;
    scene.begin();
    let topic = scene.topic.clone();
    let rule = [
        "--deny-principal",
        "User:alice",
        "--topic",
        &topic,
        "--operation",
        "Write",
    ];
    acl(&[&["--add"], &rule[..]].concat());
    scene.write(200).await;
    scene.pauses().await;
    acl(&[&["--remove", "--force"], &rule[..]].concat());
    scene.recovers("a permission taken away").await;
    scene.ends().await;
}

fn acl(arguments: &[&str]) {
    let mut command = Command::new(env("TEST_SERVICES"));
    command
        .args(["kafka", "AclCommand", "--bootstrap-server"])
        .arg(env("TEST_KAFKA_BROKERS"))
        .args(arguments);
    let output = blocking(|| command.output()).unwrap();
    assert!(output.status.success(), "{output:?}");
}
