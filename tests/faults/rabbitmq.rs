//! Faults of RabbitMQ, under load. Those of the way there are in `network`.

use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions},
    types::FieldTable,
};

use crate::{
    common::{
        broker::{Broker, Kind},
        database::Database,
        rabbitmq,
        relay::until,
    },
    scene::Scene,
};

const EXCHANGE: &str = "events";

/// One broker of its own, and one relay that sees all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_alarm_closed_connections_and_a_deleted_exchange_pass() {
    let (broker, database) = (Broker::private(Kind::Rabbitmq).await, Database::new().await);
    let (queue, url) = (broker.destination().await, database.url.clone());
    declare(&broker, &queue).await;
    let flags = ["--rabbitmq-exchange", EXCHANGE];
    let mut scene = Scene::to(queue.clone(), database, &url, broker, &flags).await;

    scene.survives_the_brokers_death().await;

    scene.load().await;
    scene.begin();
    give_memory(&scene, "1");
    scene.write(200).await;
    scene.misses("sink_up").await;
    until("it is said to be blocked", || async {
        scene.relay.metric("outboxd_sink_blocked").await == 1.0
    })
    .await;
    give_memory(&scene, "2GB");
    scene.write(200).await;
    scene.recovers("a memory alarm").await;

    scene.load().await;
    scene.begin();
    scene
        .broker
        .run(&["rabbitmqctl", "close_all_connections", "a test"]);
    scene.write(200).await;
    scene.recovers("closed connections").await;

    scene.load().await;
    scene.begin();
    delete(&scene.broker).await;
    scene.write(200).await;
    scene.pauses().await;
    declare(&scene.broker, &queue).await;
    scene.recovers("a deleted exchange").await;
    scene.ends().await;
}

/// Lets the broker have that much memory.
fn give_memory(scene: &Scene, limit: &str) {
    let what = "set_vm_memory_high_watermark";
    let command = ["rabbitmqctl", what, "absolute", limit];
    scene.broker.run(&command);
}

/// Makes the exchange, which leads to the queue by its name.
async fn declare(broker: &Broker, queue: &str) {
    let connection = rabbitmq::connect(&broker.address).await;
    let channel = connection.create_channel().await.unwrap();
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let (none, direct) = (FieldTable::default(), ExchangeKind::Direct);
    let declaring = channel.exchange_declare(EXCHANGE.into(), direct, options, none.clone());
    declaring.await.unwrap();
    let binding = channel.queue_bind(
        queue.into(),
        EXCHANGE.into(),
        queue.into(),
        QueueBindOptions::default(),
        none,
    );
    binding.await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

async fn delete(broker: &Broker) {
    let connection = rabbitmq::connect(&broker.address).await;
    let channel = connection.create_channel().await.unwrap();
    let deleting = channel.exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default());
    deleting.await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}
