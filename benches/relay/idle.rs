//! A relay with nothing to do.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::sleep;

use crate::{
    Bench,
    cells::Cell,
    common::Failure,
    meter,
    report::{Results, Target},
    shipped::Relay,
    sink::Kind,
    stage::{Mode, Rows, Scene},
};

/// It starts, finds nothing and calms down.
const SETTLE: Duration = Duration::from_secs(10);

/// `outboxd run` on an empty table.
pub struct Idle(pub Kind);

#[async_trait(?Send)]
impl Cell for Idle {
    fn name(&self) -> String {
        format!("idle {}", self.0.name())
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let stage = bench.stage(self.0, Mode::Mark, &[Rows::pending(0)]).await?;
        let time = Duration::from_secs(bench.idle);
        for _ in bench.rounds(&self.name()) {
            let without = stage.on_a_scene(async |scene| spent(scene, None, time).await);
            let [transactions, wal, ..] = without.await?;
            results.value("transactions/s without a relay", transactions, None);
            results.value("WAL bytes/s without a relay", wal, None);
            let with = stage.on_a_scene(async |scene| {
                let mut relay = Relay::start(scene, "run", &[])?;
                let spent = spent(scene, Some(relay.pid()), time).await?;
                relay.stop().await?;
                Ok(spent)
            });
            let [transactions, wal, cpu, postgres] = with.await?;
            results.value("transactions/s", transactions, Some(Target::AtMost(2.0)));
            results.value("WAL bytes/s", wal, Some(Target::AtMost(0.0)));
            results.value("CPU, % of a core", cpu * 100.0, Some(Target::AtMost(0.1)));
            results.value("PostgreSQL's CPU, % of a core", postgres * 100.0, None);
        }
        stage.strike().await
    }
}

/// A second: transactions, bytes of WAL, CPU seconds of the relay and of PostgreSQL.
async fn spent(scene: &Scene<'_>, relay: Option<u32>, time: Duration) -> Result<[f64; 4], Failure> {
    sleep(SETTLE).await;
    let (began, before) = (Instant::now(), so_far(scene, relay).await?);
    sleep(time).await;
    let after = so_far(scene, relay).await?;
    let took = began.elapsed().as_secs_f64();
    Ok([0, 1, 2, 3].map(|of| (after[of] - before[of]) / took))
}

async fn so_far(scene: &Scene<'_>, relay: Option<u32>) -> Result<[f64; 4], Failure> {
    let (transactions, wal) = meter::transactions_and_wal(scene).await?;
    let cpu = relay.map_or(Some(0.0), meter::cpu_seconds);
    let cpu = cpu.ok_or("the relay has gone")?;
    Ok([transactions, wal, cpu, meter::postgres_cpu_seconds()?])
}
