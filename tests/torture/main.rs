//! Storms: the promise under faults, on the shipped binary and real servers, judged by a history
//! checker. `make torture` runs long ones; the tests here are short, with fixed seeds.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "../common/mod.rs"]
mod common;

mod consumer;
#[cfg(feature = "defects")]
mod defects;
mod faults;
mod history;
mod scenarios;
mod storm;
mod writers;

use crate::{
    common::broker::Kind,
    faults::{LARGE, SMALL, Strike},
    storm::Plan,
};

/// A setting of `make torture`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_everything_arrives_once_through_kafka() {
    Plan::calm(Kind::Kafka, 1, 20_000)
        .run()
        .await
        .assert_as_promised();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_everything_arrives_once_through_rabbitmq() {
    Plan::calm(Kind::Rabbitmq, 2, 20_000)
        .run()
        .await
        .assert_as_promised();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_storm_breaks_no_promise_through_kafka() {
    small_storm(Kind::Kafka, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_storm_breaks_no_promise_through_rabbitmq() {
    small_storm(Kind::Rabbitmq, 4).await;
}

async fn small_storm(kind: Kind, seed: u64) {
    let calm = Plan {
        poison_every: 2000,
        ..Plan::calm(kind, seed, 20_000)
    };
    let storm = calm.strikes(8, SMALL.len(), SMALL);
    storm.run().await.assert_as_promised();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_stopped_one_after_another_repeat_nothing_through_kafka() {
    rolling_restarts(Kind::Kafka, 5, 10, 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_stopped_one_after_another_repeat_nothing_through_rabbitmq() {
    rolling_restarts(Kind::Rabbitmq, 6, 10, 10_000).await;
}

async fn rolling_restarts(kind: Kind, seed: u64, stops: usize, events: u64) {
    let restarts = Plan::calm(kind, seed, events).strikes(0, stops, &[Strike::Stop]);
    let aftermath = restarts.run().await;
    aftermath.assert_as_promised();
    println!("p99 of {} stops: {:?}", stops, aftermath.stops_p99());
}

/// `make torture`: a storm on servers of its own, through the broker that `TORTURE_SINK` names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn torture() {
    let sink = std::env::var("TORTURE_SINK").unwrap();
    let kind = if sink == "kafka" {
        Kind::Kafka
    } else {
        Kind::Rabbitmq
    };
    let seed = setting("TORTURE_SEED", fastrand::u64(..));
    println!("TORTURE_SINK={sink} TORTURE_SEED={seed}");
    let kills = usize::try_from(setting("TORTURE_KILLS", 200)).unwrap();
    let faults = usize::try_from(setting("TORTURE_FAULTS", 100)).unwrap();
    let calm = Plan {
        keys: 1000,
        poison_every: 5000,
        own_servers: true,
        ..Plan::calm(kind, seed, setting("TORTURE_ROWS", 1_000_000))
    };
    let storm = calm.strikes(kills, faults, &[SMALL, LARGE].concat());
    storm.run().await.assert_as_promised();
}

/// `make torture-stops`: SIGTERM after SIGTERM under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn torture_by_stops() {
    let sink = std::env::var("TORTURE_SINK").unwrap();
    let kind = if sink == "kafka" {
        Kind::Kafka
    } else {
        Kind::Rabbitmq
    };
    let stops = usize::try_from(setting("TORTURE_KILLS", 200)).unwrap();
    let seed = setting("TORTURE_SEED", fastrand::u64(..));
    rolling_restarts(kind, seed, stops, setting("TORTURE_ROWS", 1_000_000)).await;
}
