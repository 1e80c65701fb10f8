//! Several relays on one table.

use async_trait::async_trait;

use crate::{
    Bench,
    cells::Cell,
    common::Failure,
    report::{Results, Target},
    shipped,
    sink::Kind,
    stage::{Mode, Rows},
};

/// 1, 2 and 4 of them, begun at once; together they drain it.
pub struct Replicas(pub Kind);

#[async_trait(?Send)]
impl Cell for Replicas {
    fn name(&self) -> String {
        format!("replicas {}", self.0.name())
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let rows = [Rows::pending(bench.rows)];
        let stage = bench.stage(self.0, Mode::Mark, &rows).await?;
        for _ in bench.rounds(&self.name()) {
            let alone = results.add("1", stage.on_a_scene(shipped::drain).await?);
            for (count, target) in [(2, None), (4, Some(Target::AtLeast(0.95)))] {
                let drain =
                    stage.on_a_scene(async |scene| shipped::drain_with(scene, count, &[]).await);
                let together = results.add(&count.to_string(), drain.await?);
                let ratio = together.events_per_second / alone.events_per_second;
                results.value(&format!("{count}/1"), ratio, target);
            }
        }
        stage.strike().await
    }
}
