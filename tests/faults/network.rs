//! Faults of the network, on each connection of a relay.

use tokio::task::JoinSet;

use crate::{
    common::{
        broker::{Broker, Kind},
        database::Database,
        proxy::{Fault, Proxy},
        relay::{Relay, outboxd, until},
    },
    database::TERMINATE,
    scene::Scene,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn every_fault_on_the_way_to_the_database_passes() {
    each_alone(on_the_way_to_the_database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn every_fault_on_the_way_to_rabbitmq_passes() {
    each_alone(on_the_way_to_rabbitmq).await;
}

async fn on_the_way_to_the_database(fault: Fault) {
    let (broker, database) = (Broker::shared(Kind::Kafka), Database::new().await);
    let (proxy, url) = database.through_proxy().await;
    let mut scene = Scene::new(database, &url, broker, &[]).await;
    endure(&mut scene, &proxy, fault, "database_up").await;
    scene.ends().await;
}

async fn on_the_way_to_rabbitmq(fault: Fault) {
    let (mut broker, database) = (Broker::shared(Kind::Rabbitmq), Database::new().await);
    let proxy = broker.behind_proxy().await;
    let url = database.url.clone();
    let mut scene = Scene::new(database, &url, broker, &[]).await;
    endure(&mut scene, &proxy, fault, "sink_up").await;
    scene.ends().await;
}

/// Each fault on a scene of its own, all at once: most of it is waiting.
async fn each_alone<F: Future<Output = ()> + Send + 'static>(survive: impl Fn(Fault) -> F) {
    let scenes: JoinSet<()> = Fault::ALL.into_iter().map(survive).collect();
    scenes.join_all().await;
}

/// One after the other, as there can be only one proxy before a broker that says where it is; and at
/// last the broker dies, with what it was told on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_on_the_way_to_kafka_and_its_death_pass() {
    let (mut broker, database) = (Broker::private(Kind::Kafka).await, Database::new().await);
    let proxy = broker.behind_proxy().await;
    let url = database.url.clone();
    let mut scene = Scene::new(database, &url, broker, &[]).await;
    for fault in Fault::ALL {
        endure(&mut scene, &proxy, fault, "sink_up").await;
    }
    scene.survives_the_brokers_death().await;
    scene.ends().await;
}

/// Load, the fault, load while it lasts, and its end.
async fn endure(scene: &mut Scene, proxy: &Proxy, fault: Fault, what: &str) {
    scene.load().await;
    proxy.set(fault);
    scene.write(200).await;
    scene.begin();
    match fault {
        // Nothing is lost on the way: it must work as it is.
        Fault::Slow | Fault::Slice => scene.recovers(&format!("{fault:?}, under way")).await,
        _ => scene.misses(what).await,
    }
    proxy.heal();
    scene.write(200).await;
    scene.recovers(&format!("{fault:?}")).await;
}

/// Nothing else wakes the relay, and a listener that only reads would never learn that nobody speaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_come_again_after_the_connection_for_them_was_half_open() {
    let (broker, database) = (Broker::shared(Kind::Rabbitmq), Database::new().await);
    let with_trigger = [
        "migrate",
        "--with",
        "notify",
        "--database-url",
        &database.url,
    ];
    assert_eq!(outboxd(&with_trigger).0, 0);
    let topic = broker.destination().await;
    let (proxy, listening) = database.through_proxy().await;
    let flags = [
        &["--database-url", &database.url][..],
        &["--notify-database-url", &listening],
        &["--poll-interval", "1h"],
        &broker.flags(),
    ]
    .concat();
    let relay = Relay::run(&flags).ready().await;
    let listens = |times: usize| {
        let log = relay.log();
        log.matches("listening for notifications").count() >= times
    };
    until("it listens", || async { listens(1) }).await;
    database.insert(&topic, 10, 2).await;
    until("it is woken", || async { database.pending().await == 0 }).await;

    proxy.set(Fault::HalfOpen);
    database.insert(&topic, 10, 2).await;
    proxy.heal();
    until("it listens anew", || async { listens(2) }).await;
    until("what it missed is delivered", || async {
        database.pending().await == 0
    })
    .await;
    database.insert(&topic, 10, 2).await;
    until("it is woken again", || async {
        database.pending().await == 0
    })
    .await;
    assert!(relay.stop().await.success());
}

/// Their rows are free then, for the other workers too, while their confirms are still on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_under_way_are_not_sent_again_when_their_locks_are_lost() {
    let (mut broker, database) = (Broker::shared(Kind::Rabbitmq), Database::new().await);
    let proxy = broker.behind_proxy().await;
    let topic = broker.destination().await;
    let flags = [
        &["--database-url", &database.url][..],
        &["--publish-timeout", "60s", "--shutdown-timeout", "90s"],
        &broker.flags(),
    ]
    .concat();
    let relay = Relay::run(&flags).ready().await;
    proxy.set(Fault::Stall);
    database.insert(&topic, 10, 2).await;
    let written = database.pending().await;
    until("all are under way", || async {
        relay.metric("outboxd_in_flight_events").await == written as f64
    })
    .await;
    database.execute(TERMINATE).await;
    let locks = "select count(*) from pg_locks l join pg_database d on d.oid = l.database \
         where l.locktype = 'advisory' and l.objsubid = 2 and l.objid < 64 and datname = current_database()";
    until("another worker has claimed them", || async {
        database.number(locks).await > 0
    })
    .await;
    proxy.heal();
    until("they are marked", || async {
        database.pending().await == 0
    })
    .await;
    assert!(relay.stop().await.success());
    let deliveries = broker.read(&topic).await;
    assert_eq!(i64::try_from(deliveries.len()), Ok(written));
}
