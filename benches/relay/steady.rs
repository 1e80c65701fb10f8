//! A steady load below what the relay could do: how long events are under way, from commit to consumer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sqlx::PgConnection;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    Bench,
    arrivals::Consuming,
    cells::Cell,
    common::Failure,
    meter, raw,
    report::{Results, Target},
    shipped::Relay,
    sink::{Kind, Outgoing},
    stage::{Mode, Rows, Scene, payloads},
    trips::{Latencies, Trips},
};

/// Events a second.
const RATE: usize = 5_000;
/// Seconds that do not count.
const WARM_UP: usize = 5;
/// Connections of writers.
const WRITERS: usize = 8;
/// Events of a transaction. With one in each, PostgreSQL has two cores to itself and writers fall behind.
const TOGETHER: usize = 5;
/// The table is in use already: PostgreSQL knows what its rows look like.
const IN_USE: Rows = Rows {
    count: 100_000,
    keys: 1_000,
    key: "order-",
    payload_bytes: 1024,
    published: true,
};
/// The relay's shortest wait between two looks, in milliseconds.
const WAKE_UP_MS: f64 = 2.0;

/// Events inserted on time, a few in a transaction, and relayed by `outboxd run`.
pub struct Steady(pub Kind);

#[async_trait(?Send)]
impl Cell for Steady {
    fn name(&self) -> String {
        format!("steady {}", self.0.name())
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let stage = bench.stage(self.0, Mode::Mark, &[IN_USE]).await?;
        let count = RATE * (WARM_UP + usize::try_from(bench.steady)?);
        for _ in bench.rounds(&self.name()) {
            let raw = stage.on_a_scene(async |scene| publish(scene, count).await);
            let raw = raw.await?;
            let relayed = stage.on_a_scene(async |scene| relay(scene, count, results).await);
            let relayed = relayed.await?;
            for (part, name, target) in [
                (500, "p50", 5.0),
                (990, "p99", 20.0),
                (999, "p99.9", f64::INFINITY),
            ] {
                let target = target.is_finite().then_some(Target::AtMost(target));
                results.value(&format!("raw {name}, ms"), raw.thousandths(part), None);
                results.value(&format!("{name}, ms"), relayed.thousandths(part), target);
            }
            let beyond = relayed.thousandths(990) - 2.0 * raw.thousandths(990);
            let target = Some(Target::AtMost(WAKE_UP_MS));
            results.value("p99 beyond 2 × raw p99, ms", beyond, target);
        }
        stage.strike().await
    }
}

/// When the event of this number is due.
fn due(began: Instant, number: usize) -> Instant {
    began
        + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX)
            / u32::try_from(RATE).unwrap_or(1)
}

/// From the raw publisher to the consumer.
async fn publish(scene: &Scene<'_>, count: usize) -> Result<Latencies, Failure> {
    let trips = Arc::new(Trips::new(count));
    let _consuming = consume(scene, &trips).await?;
    let publishers = scene
        .stage
        .kind
        .open(scene.stage.broker, &scene.name)
        .await?;
    let pad = payloads(scene.stage.payload_bytes).swap_remove(0);
    let began = Instant::now();
    for number in 0..count {
        sleep_until(due(began, number).into()).await;
        let (key, payload) = (format!("order-{}", number % 1000), payload(&pad, number));
        trips.sets_out(number);
        let sent = publishers.send(Outgoing {
            id: raw::ID,
            key: &key,
            event_type: "OrderPlaced",
            payload: &payload,
        });
        sent.await?;
    }
    trips.over(RATE * WARM_UP).await
}

/// From the writer's commit to the consumer, through the relay.
async fn relay(
    scene: &Scene<'_>,
    count: usize,
    results: &mut Results,
) -> Result<Latencies, Failure> {
    let trips = Arc::new(Trips::new(count));
    let _consuming = consume(scene, &trips).await?;
    let mut relay = Relay::start(scene, "run", &[])?;
    let mut writers = JoinSet::new();
    let began = Instant::now() + Duration::from_secs(1);
    for writer in 0..WRITERS {
        let connection = scene.connect().await?;
        writers.spawn(write(connection, Arc::clone(&trips), began, writer));
    }
    let first = RATE * WARM_UP;
    sleep_until(due(began, first).into()).await;
    let before = cost(scene, &relay).await?;
    let mut late = Vec::new();
    for of_one in writers.join_all().await {
        late.extend(of_one?);
    }
    let took = due(began, first).elapsed().as_secs_f64();
    // What sessions have counted shows after a second.
    sleep(Duration::from_millis(1_100)).await;
    let after = cost(scene, &relay).await?;
    let latencies = trips.over(first).await?;
    relay.stop().await?;
    let [transactions, cpu, postgres] = [0, 1, 2].map(|of| (after[of] - before[of]) / took);
    let writers = ((count - first) / TOGETHER) as f64 / took;
    results.value("relay's transactions/s", transactions - writers, None);
    results.value("relay's CPU, % of a core", cpu * 100.0, None);
    results.value("PostgreSQL's CPU, % of a core", postgres * 100.0, None);
    results.value(
        "writers late p99, ms",
        Latencies::of(late).thousandths(990),
        None,
    );
    Ok(latencies)
}

async fn consume(scene: &Scene<'_>, trips: &Arc<Trips>) -> Result<Consuming, Failure> {
    let trips = Arc::clone(trips);
    Consuming::start(scene, move |payload| trips.arrives(payload)).await
}

/// Transactions, CPU seconds of the relay and of PostgreSQL, so far.
async fn cost(scene: &Scene<'_>, relay: &Relay) -> Result<[f64; 3], Failure> {
    let (transactions, _) = meter::transactions_and_wal(scene).await?;
    let cpu = meter::cpu_seconds(relay.pid()).ok_or("the relay has gone")?;
    Ok([transactions, cpu, meter::postgres_cpu_seconds()?])
}

/// Does one transaction in [`WRITERS`]; gives by how many milliseconds each began too late, without the
/// warm-up.
async fn write(
    mut connection: PgConnection,
    trips: Arc<Trips>,
    began: Instant,
    writer: usize,
) -> Result<Vec<f64>, sqlx::Error> {
    let insert = "insert into outbox (aggregate_type, aggregate_id, event_type, payload)
                  select 'orders', key, 'OrderPlaced', payload::jsonb
                    from unnest($1::text[], $2::text[]) as event (key, payload)";
    let pad = payloads(1024).swap_remove(writer);
    let mut late = Vec::new();
    for first in (writer * TOGETHER..trips.count()).step_by(WRITERS * TOGETHER) {
        let due = due(began, first);
        sleep_until(due.into()).await;
        if first >= RATE * WARM_UP {
            late.push(due.elapsed().as_secs_f64() * 1e3);
        }
        let numbers = first..trips.count().min(first + TOGETHER);
        let keys: Vec<String> = numbers
            .clone()
            .map(|n| format!("order-{}", n % 1000))
            .collect();
        let payloads: Vec<String> = numbers.clone().map(|n| payload(&pad, n)).collect();
        sqlx::query(insert)
            .bind(keys)
            .bind(payloads)
            .execute(&mut connection)
            .await?;
        numbers.for_each(|number| trips.sets_out(number));
    }
    Ok(late)
}

/// Another payload's text with this number.
fn payload(like: &str, number: usize) -> String {
    let (pad, _) = like.rsplit_once(' ').unwrap_or((like, ""));
    format!("{pad} {number}}}")
}
