//! `docs/cut-over.md`, step by step, under load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use sqlx::Connection as _;
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{
    common::{
        broker::{Broker, Kind, assert_complete_and_in_order},
        relay::{Relay, outboxd, until},
    },
    poller::faithfully,
    scene::Scene,
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

fn relay(scene: &Scene) -> Relay {
    let mut flags = vec!["--database-url", scene.database.url.as_str()];
    flags.extend(scene.broker.flags());
    if scene.broker.kind == Kind::Rabbitmq {
        flags.extend(["--rabbitmq-exchange", "amq.direct"]);
    }
    Relay::run(&flags)
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

        // Rehearse. (On RabbitMQ the queue is the consumers': it is not followed here.)
        if kind == Kind::Kafka {
            let told = scene.shadow(&["--json", "--events", "300"]).end().exits(0);
            assert!(told["same"].as_u64().unwrap() >= 300, "{told:#}");
        } else {
            sleep(Duration::from_secs(1)).await;
        }
        let (code, stdout, stderr) = outboxd(&["peek", "--database-url", &scene.database.url]);
        assert_eq!(code, 0, "{stdout}{stderr}");

        // Stop the old relay, and wait until it is gone.
        stopping.send(true).unwrap();
        poller.await.unwrap();
        until("there is a backlog", || async {
            scene.database.pending().await > 20
        })
        .await;

        // Start outboxd.
        let relay = relay(&scene).ready().await;
        sleep(Duration::from_secs(1)).await;
        let written = writers.stop().await;
        until_drained(&scene).await;
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
        let relay = relay(&scene).ready().await;
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
    let relay = relay(&scene).ready().await;
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
