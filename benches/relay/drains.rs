//! A backlog, published as fast as it can be.

use async_trait::async_trait;

use crate::{
    Bench,
    cells::Cell,
    common::Failure,
    kernel,
    meter::Figures,
    raw,
    report::{Results, Target},
    shipped,
    sink::Kind,
    stage::{Mode, Rows},
};

/// The relay against the limit.
pub struct Drain(pub Kind, pub Mode);

#[async_trait(?Send)]
impl Cell for Drain {
    fn name(&self) -> String {
        format!("drain {} {}", self.0.name(), self.1.name())
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let rows = [Rows::pending(bench.rows)];
        let stage = bench.stage(self.0, self.1, &rows).await?;
        for _ in bench.rounds(&self.name()) {
            let parts = stage.on_a_scene(async |scene| {
                Ok([
                    results.add("R", raw::read(scene).await?),
                    results.add("P", raw::publish(scene).await?),
                    results.add("A", raw::settle(scene).await?),
                ])
            });
            let bound = bound(parts.await?);
            let kernel = stage.on_a_scene(kernel::drain).await?;
            let kernel = results.add("K", kernel).events_per_second;
            let relay = stage.on_a_scene(shipped::drain).await?;
            let relay = results.add("relay", relay);
            let speed = relay.events_per_second;
            results.value("T*, events/s", bound, None);
            results.value("relay/K", speed / kernel, Some(Target::AtLeast(0.9)));
            results.value("relay/T*", speed / bound, None);
            results.value("memory, MiB", relay.peak_mib, Some(Target::AtMost(64.0)));
        }
        stage.strike().await
    }
}

/// What nothing can exceed that reads, publishes and settles on these cores.
fn bound(parts: [Figures; 3]) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let together = cores as f64 / parts.iter().map(Figures::cpu).sum::<f64>();
    let [read, publish, _] = parts.map(|part| part.events_per_second);
    read.min(publish).min(together)
}
