//! Debezium's table, followed by what sends as Debezium does: each row once, and none is touched.

use sqlx::Row as _;

use crate::{
    common::{broker::Kind, database::Database},
    poller::{Letter, Sender},
    scene::{Scene, Shadow, assert_counts, kinds},
};

const TABLE: &str = "create table outboxevent (
    id uuid primary key default gen_random_uuid(), aggregatetype varchar(255) not null,
    aggregateid varchar(255) not null, type varchar(255) not null, payload jsonb,
    outbox_order bigint generated always as identity unique)";

async fn scene() -> Scene {
    let database = Database::empty().await;
    database.execute(TABLE).await;
    let scene = Scene::with(database, Kind::Kafka).await;
    scene
        .broker
        .create(&format!("outbox.event.{}", scene.topic))
        .await;
    scene
}

async fn insert(scene: &Scene, count: usize) {
    let sql = format!(
        "insert into outboxevent (aggregatetype, aggregateid, type, payload)
         select '{}', 'key-' || n % 3, 'Tested', jsonb_build_object('number', n) from generate_series(1, {count}) n",
        scene.topic
    );
    scene.database.execute(&sql).await;
}

/// With `table.expand.json.payload`: JSON without spaces, and no header but the id.
async fn send_all(scene: &Scene) {
    let sql = "select id::text, aggregateid, payload::text from outboxevent order by outbox_order";
    let rows = sqlx::query(sql)
        .fetch_all(&mut scene.database.connect().await)
        .await
        .unwrap();
    let sender = Sender::to(&scene.broker, "").await;
    for row in rows {
        let letter = Letter {
            topic: format!("outbox.event.{}", scene.topic),
            key: row.get(1),
            headers: vec![("id".into(), row.get(0))],
            payload: Some(row.get::<String, _>(2).replace(": ", ":")),
        };
        sender.send(&letter).await;
    }
    sender.flush();
}

fn flags(topic: &str) -> Vec<&str> {
    vec!["--json", "--preset", "debezium", "--follow", topic]
}

#[tokio::test]
async fn debezium_sends_the_same_but_for_the_headers_that_come_on_top() {
    let scene = scene().await;
    let topic = format!("outbox.event.{}", scene.topic);
    let shadow = scene.shadow(&[&flags(&topic)[..], &["--events", "12"]].concat());
    insert(&scene, 12).await;
    send_all(&scene).await;
    let told = shadow.end().exits(1);
    let headers = [("missing_headers", 24)];
    assert_counts(
        &told,
        &[&[("compared", 12), ("different", 12)], &headers[..]].concat(),
    );
    let missing = |name: &str| {
        (
            format!("header {name} is missing in theirs"),
            told["different"].as_u64().unwrap(),
        )
    };
    assert_eq!(
        kinds(&told, "differences"),
        [missing("content-type"), missing("type")]
    );
    let verdict = told["verdict"].as_str().unwrap();
    assert!(
        verdict.contains("--ignore-header content-type --ignore-header type"),
        "{verdict}"
    );
}

#[tokio::test]
async fn with_these_ignored_it_is_the_same_through_a_pooler_too() {
    let scene = scene().await;
    let topic = format!("outbox.event.{}", scene.topic);
    let mut flags = flags(&topic);
    flags.extend([
        "--ignore-header",
        "type",
        "--ignore-header",
        "content-type",
        "--events",
        "12",
    ]);
    for url in [
        scene.database.url.clone(),
        scene.database.through_pgbouncer(),
    ] {
        rehearse(&scene, &flags, url).await;
        scene.database.execute("delete from outboxevent").await;
    }
}

async fn rehearse(scene: &Scene, flags: &[&str], url: String) {
    let mut flags = scene.flags(flags);
    flags[1] = url;
    let shadow = Shadow::start(&flags);
    insert(scene, 12).await;
    send_all(scene).await;
    let told = shadow.end().exits(0);
    assert_counts(&told, &[("compared", 12), ("written_differently", 12)]);
}
