//! `docs/cut-over.md`, step by step, under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{
    common::{
        broker::{Broker, Kind, assert_complete_and_in_order},
        database::Database,
        relay::{Relay, outboxd, until},
        unique,
    },
    poller::{Letter, Sender, faithfully},
    scene::{Scene, Shadow, assert_counts},
};

/// Services that write without a pause. The events of a key are those of one writer, and their numbers rise.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicI64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(scene: &Scene, writers: usize) -> Self {
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicI64::new(0)),
        );
        let tasks = (0..writers).map(|writer| {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            let (url, topic) = (scene.database.url.clone(), scene.topic.clone());
            tokio::spawn(async move {
                let mut database = sqlx::PgConnection::connect(&url).await.unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let number = written.fetch_add(1, Ordering::Relaxed) + 1;
                    sqlx::query(
                        "insert into outbox (aggregate_type, aggregate_id, event_type, payload)
                         values ($1, $2, 'Tested', to_jsonb($3::bigint))",
                    )
                    .bind(&topic)
                    .bind(format!("key-{writer}-{}", number % 5))
                    .bind(number)
                    .execute(&mut database)
                    .await
                    .unwrap();
                    sleep(Duration::from_millis(2)).await;
                }
            })
        });
        let tasks = tasks.collect();
        Self {
            stop,
            written,
            tasks,
        }
    }

    /// Stops them; gives how many events there are.
    async fn stop(self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.written.load(Ordering::Relaxed)
    }
}

/// The guide's FLAGS.
fn flags<'a>(scene: &'a Scene, further: &[&'a str]) -> Vec<&'a str> {
    let mut flags = vec!["--database-url", scene.database.url.as_str()];
    flags.extend(scene.broker.flags());
    if scene.broker.kind == Kind::Rabbitmq {
        flags.extend(["--rabbitmq-exchange", "amq.direct"]);
    }
    flags.extend(further);
    flags
}

fn relay(scene: &Scene, further: &[&str]) -> Relay {
    Relay::run(&flags(scene, further))
}

/// Runs another command of the guide.
fn run(scene: &Scene, command: &[&str]) {
    let flags = flags(scene, &[]);
    // migrate asks no broker.
    let most = if command[0] == "migrate" {
        2
    } else {
        flags.len()
    };
    let (code, stdout, stderr) = outboxd(&[command, &flags[..most]].concat());
    assert_eq!(code, 0, "{command:?}: {stdout}{stderr}");
}

async fn until_drained(scene: &Scene) {
    until("nothing is pending", || async {
        scene.database.pending().await == 0
    })
    .await;
}

/// Everything the consumers saw.
async fn duplicates(broker: &Broker, topic: &str, written: i64) -> usize {
    assert_complete_and_in_order(&broker.read(topic).await, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_that_is_stopped_in_order_leaves_no_gap_and_no_copy() {
    for kind in [Kind::Kafka, Kind::Rabbitmq] {
        let scene = Scene::new(kind).await;
        let (stopping, stop) = watch::channel(false);
        let poller = tokio::spawn(scene.poller(faithfully).await.run(stop));
        let writers = Writers::start(&scene, 3);

        run(&scene, &["peek"]);
        run(&scene, &["check"]);
        // Rehearse. (On RabbitMQ the queue is the consumers': it is not followed here.)
        if kind == Kind::Kafka {
            let told = scene.shadow(&["--json", "--events", "300"]).end().exits(0);
            assert!(told["same"].as_u64().unwrap() >= 300, "{told:#}");
        } else {
            sleep(Duration::from_secs(1)).await;
        }

        // Stop the old relay, and wait until it is gone.
        stopping.send(true).unwrap();
        poller.await.unwrap();
        until("there is a backlog", || async {
            scene.database.pending().await > 20
        })
        .await;

        // Start outboxd.
        let relay = relay(&scene, &[]).ready().await;
        sleep(Duration::from_secs(1)).await;
        let written = writers.stop().await;
        until_drained(&scene).await;
        let (code, status, _) =
            outboxd(&["status", "--json", "--database-url", &scene.database.url]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(
            (code, &status["dead_letters"], &status["pending_events"]),
            (0, &0.into(), &0.into())
        );
        assert!(relay.stop().await.success());
        assert_eq!(
            duplicates(&scene.broker, &scene.topic, written).await,
            0,
            "{kind:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_that_dies_leaves_copies_of_its_last_batch_and_no_gap() {
    for kind in [Kind::Kafka, Kind::Rabbitmq] {
        let scene = Scene::new(kind).await;
        let writers = Writers::start(&scene, 3);
        let mut poller = scene.poller(faithfully).await;
        for _ in 0..10 {
            poller.once().await;
        }
        until("there is something to send", || async {
            scene.database.pending().await > 20
        })
        .await;
        let unmarked = poller.send_unmarked().await;
        drop(poller);
        until("its transaction is gone", || async {
            let sql = "select count(*) from pg_locks l join pg_class c on c.oid = l.relation \
                        where c.relname = 'outbox' and l.mode = 'RowExclusiveLock' and l.pid in ( \
                          select pid from pg_stat_activity where datname = current_database() and state = 'idle in transaction')";
            scene.database.number(sql).await == 0
        })
        .await;
        let relay = relay(&scene, &[]).ready().await;
        sleep(Duration::from_millis(500)).await;
        let written = writers.stop().await;
        until_drained(&scene).await;
        assert!(relay.stop().await.success());
        assert_eq!(
            duplicates(&scene.broker, &scene.topic, written).await,
            unmarked,
            "{kind:?}"
        );
    }
}

/// The way back: outboxd is stopped, and the old relay goes on.
#[tokio::test(flavor = "multi_thread")]
async fn rolling_back_leaves_no_gap_and_no_copy_either() {
    let scene = Scene::new(Kind::Kafka).await;
    let writers = Writers::start(&scene, 3);
    let relay = relay(&scene, &[]).ready().await;
    sleep(Duration::from_secs(1)).await;
    assert!(relay.stop().await.success());
    let (stopping, stop) = watch::channel(false);
    let poller = tokio::spawn(scene.poller(faithfully).await.run(stop));
    sleep(Duration::from_millis(500)).await;
    let written = writers.stop().await;
    until_drained(&scene).await;
    stopping.send(true).unwrap();
    poller.await.unwrap();
    assert_eq!(duplicates(&scene.broker, &scene.topic, written).await, 0);
}

const LEASES: &str =
    "create table letters (id bigint generated always as identity primary key, key text not null,
    kind text not null, body text, status text not null default 'NEW')";

const MAPPING: &str = r#"
table = "letters"
id = "id"
key = "key"
destination = { constant = "TOPIC" }
type = "kind"
payload = "body"
content_type = { constant = "application/json" }
pending = "status = 'NEW'"
done = { status = "SENT" }
"#;

/// A relay that leases rows and dies: step 6 of the guide.
#[tokio::test(flavor = "multi_thread")]
async fn leased_rows_are_sent_once_they_are_set_back() {
    let database = Database::empty().await;
    database.execute(LEASES).await;
    let scene = Scene::with(database, Kind::Kafka).await;
    let mapping = std::env::temp_dir().join(unique("outboxd-letters"));
    std::fs::write(&mapping, MAPPING.replace("TOPIC", &scene.topic)).unwrap();
    let flags = ["--mapping", mapping.to_str().unwrap()];
    let database = &scene.database;
    let insert = "insert into letters (key, kind, body) select 'key-' || n, 'Tested', n::text from generate_series(1, 20) n";

    // Rehearse, for which SELECT on the table is enough.
    let role = unique("reader").replace('-', "_");
    let role_sql = |sql: &str| sql.replace("ROLE", &role);
    let grants = "create role ROLE login password 'reader'; grant select on letters to ROLE";
    database.execute(&role_sql(grants)).await;
    let (_, server) = database.url.split_once('@').unwrap();
    let mut rehearsal = scene.flags(&[&["--json"], &flags[..]].concat());
    rehearsal[1] = format!("postgres://{role}:reader@{server}");
    let shadow = Shadow::start(&rehearsal);
    database.execute(insert).await;
    send_letters(&scene, "true").await;
    database.execute("update letters set status = 'SENT'").await;
    let told = shadow.stop().exits(0);
    assert_counts(&told, &[("compared", 20), ("same", 20)]);
    database
        .execute(&role_sql("drop owned by ROLE; drop role ROLE"))
        .await;

    // The old relay dies: five rows are leased, and three of them sent. One it gave up on before.
    database.execute(insert).await;
    database
        .execute("update letters set status = 'SENDING' where id between 21 and 25")
        .await;
    database
        .execute("update letters set status = 'FAILED' where id = 26")
        .await;
    send_letters(&scene, "id between 21 and 23").await;

    run(&scene, &[&["migrate"], &flags[..]].concat());
    database
        .execute("update letters set status = 'NEW' where status = 'SENDING'")
        .await;
    let relay = relay(&scene, &flags).ready().await;
    until("all but one are sent", || async {
        let sent = "select count(*) from letters where status = 'SENT'";
        database.number(sent).await == 39
    })
    .await;
    assert!(relay.stop().await.success());
    let failed = "select id from letters where status <> 'SENT'";
    assert_eq!(database.number(failed).await, 26);
    std::fs::remove_file(mapping).unwrap();

    let deliveries = scene.broker.read(&scene.topic).await;
    let mut ids: Vec<i64> = deliveries
        .iter()
        .map(|delivery| delivery.id.parse().unwrap())
        .collect();
    ids.sort_unstable();
    let twice = 21..=23;
    let mut expected: Vec<i64> = (1..=25).chain(27..=40).chain(twice).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

async fn send_letters(scene: &Scene, which: &str) {
    let sql = format!("select id::text, key, body from letters where {which} order by id");
    let mut connection = scene.database.connect().await;
    let rows = sqlx::query(AssertSqlSafe(sql))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let sender = Sender::to(&scene.broker, "").await;
    for row in rows {
        let headers = [
            ("id", row.get(0)),
            ("type", "Tested".to_owned()),
            ("content-type", "application/json".into()),
        ];
        let letter = Letter {
            topic: scene.topic.clone(),
            key: row.get(1),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            payload: row.get(2),
        };
        sender.send(&letter).await;
    }
    sender.flush();
}
