//! Storms: the promise under faults, on the shipped binary and real servers, judged by a history
//! checker. `make torture` runs long ones; the tests here are short, with fixed seeds.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::struct_excessive_bools,
    reason = "tests"
)]

#[path = "../common/mod.rs"]
mod common;

mod aftermath;
mod checker;
mod consumer;
#[cfg(feature = "defects")]
mod defects;
mod faults;
mod history;
mod ledger;
mod plan;
mod report;
mod scenarios;
mod storm;
mod verdicts;
mod watch;
mod writers;

use crate::{
    common::broker::Kind,
    faults::{LARGE, SMALL, Strike},
    plan::Plan,
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
        poison_every: 500,
        hold: seed.is_multiple_of(3),
        late: true,
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

/// How long all but the slowest hundredth took to stop.
async fn rolling_restarts(kind: Kind, seed: u64, stops: usize, events: u64) -> std::time::Duration {
    let restarts = Plan::calm(kind, seed, events).strikes(0, stops, &[Strike::Stop]);
    let aftermath = restarts.run().await;
    aftermath.assert_as_promised();
    println!("p99 of {stops} stops: {:?}", aftermath.stops_p99());
    aftermath.stops_p99()
}

/// The broker that `TORTURE_SINK` names.
fn sink() -> Kind {
    match std::env::var("TORTURE_SINK").as_deref() {
        Ok("kafka") => Kind::Kafka,
        Ok("rabbitmq") => Kind::Rabbitmq,
        other => panic!("TORTURE_SINK is kafka or rabbitmq, not {other:?}"),
    }
}

fn seed() -> u64 {
    let seed = setting("TORTURE_SEED", fastrand::u64(..));
    println!("TORTURE_SINK={} TORTURE_SEED={seed}", sink().server());
    seed
}

fn number(name: &str, default: u64) -> usize {
    usize::try_from(setting(name, default)).unwrap()
}

/// `make torture`: a storm on servers of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn torture() {
    let seed = seed();
    let calm = Plan {
        keys: 1000,
        poison_every: 5000,
        hold: !seed.is_multiple_of(3),
        late: true,
        own_servers: true,
        ..Plan::calm(sink(), seed, setting("TORTURE_ROWS", 1_000_000))
    };
    let (kills, faults) = (number("TORTURE_KILLS", 200), number("TORTURE_FAULTS", 60));
    let storm = calm.strikes(kills, faults, &[SMALL, LARGE].concat());
    storm.run().await.assert_as_promised();
}

/// `make torture STORM=torture_by_stops`: one SIGTERM after another under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn torture_by_stops() {
    let (stops, rows) = (
        number("TORTURE_KILLS", 200),
        setting("TORTURE_ROWS", 1_000_000),
    );
    let p99 = rolling_restarts(sink(), seed(), stops, rows).await;
    assert!(p99 < std::time::Duration::from_secs(5), "{p99:?}");
}

/// `make torture STORM=torture_by_nothing`: as many events, and no fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make torture"]
async fn torture_by_nothing() {
    let calm = Plan::calm(sink(), seed(), setting("TORTURE_ROWS", 1_000_000));
    calm.run().await.assert_as_promised();
}

/// `make torture STORM=soak`: relays that live through an hour of faults, 1,000 events a second; what
/// they take must not grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an hour: make torture"]
async fn soak() {
    let minutes = setting("TORTURE_MINUTES", 60);
    let calm = Plan {
        keys: 1000,
        poison_every: 50_000,
        own_servers: true,
        lasts: Some(std::time::Duration::from_mins(minutes)),
        ..Plan::calm(sink(), seed(), minutes * 60_000)
    };
    let ends = [Strike::Stop, Strike::Freeze];
    let menu: Vec<Strike> = [SMALL, LARGE].concat();
    let menu: Vec<Strike> = menu.into_iter().filter(|s| !ends.contains(s)).collect();
    let storm = calm.strikes(0, usize::try_from(minutes * 2).unwrap(), &menu);
    storm.run().await.assert_as_promised();
}
