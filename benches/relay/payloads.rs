//! Large payloads: bytes instead of events.

use async_trait::async_trait;

use crate::{
    Bench,
    cells::Cell,
    common::Failure,
    raw,
    report::{Results, Target},
    shipped,
    sink::Kind,
    stage::{Mode, Rows},
};

const BYTES: usize = 100 * 1024;

/// Payloads of 100 KiB, a hundredth of the rows.
pub struct Large(pub Kind);

#[async_trait(?Send)]
impl Cell for Large {
    fn name(&self) -> String {
        format!("payloads 100KiB {}", self.0.name())
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let rows = Rows {
            payload_bytes: BYTES,
            ..Rows::pending(bench.rows / 100)
        };
        let stage = bench.stage(self.0, Mode::Mark, &[rows]).await?;
        for _ in bench.rounds(&self.name()) {
            let read = results.add("R", stage.on_a_scene(raw::read).await?);
            let published = results.add("P", stage.on_a_scene(raw::publish).await?);
            let relay = results.add("relay", stage.on_a_scene(shipped::drain).await?);
            for (what, figures) in [("R", read), ("P", published), ("relay", relay)] {
                let megabytes = figures.events_per_second * BYTES as f64 / 1e6;
                results.value(&format!("{what}, MB/s"), megabytes, None);
            }
            let ratio = relay.events_per_second / published.events_per_second;
            results.value("relay/P", ratio, Some(Target::AtLeast(0.9)));
            let ratio = relay.events_per_second / read.events_per_second;
            results.value("relay/R", ratio, None);
            results.value("memory, MiB", relay.peak_mib, None);
        }
        stage.strike().await
    }
}
