//! Keys: one for everything, very many, and one that is held back.

use async_trait::async_trait;

use crate::{
    Bench,
    cells::Cell,
    common::Failure,
    meter::Figures,
    report::{Results, Target},
    shipped,
    sink::Kind,
    stage::{Mode, Rows, Scene, Stage},
};

/// All events have one key. On RabbitMQ with an order: `strict` waits for each confirm.
pub struct Hot(pub Kind, pub Option<&'static str>);

#[async_trait(?Send)]
impl Cell for Hot {
    fn name(&self) -> String {
        let order = self.1.map(|order| format!(" {order}"));
        format!("keys hot {}{}", self.0.name(), order.unwrap_or_default())
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let strict = self.1 == Some("strict");
        let order = self.1.map(|order| ["--rabbitmq-order", order]);
        let order = order.as_ref().map_or(&[][..], |order| order);
        // A round trip for each event: a part of them tells as much.
        let count = if strict { bench.rows / 50 } else { bench.rows };
        let hot = Rows {
            keys: 1,
            ..Rows::pending(count)
        };
        let plain = bench
            .stage(self.0, Mode::Mark, &[Rows::pending(bench.rows)])
            .await?;
        let hot = bench.stage(self.0, Mode::Mark, &[hot]).await?;
        let target = (!strict).then_some(Target::AtLeast(0.5));
        for _ in bench.rounds(&self.name()) {
            let best = results.add("1,000 keys", drain(&plain, order).await?);
            let hot = results.add("1 key", drain(&hot, order).await?);
            let ratio = hot.events_per_second / best.events_per_second;
            results.value("1 key/1,000 keys", ratio, target);
        }
        plain.strike().await?;
        hot.strike().await
    }
}

async fn drain(stage: &Stage<'_>, order: &[&str]) -> Result<Figures, Failure> {
    stage
        .on_a_scene(async |scene| shipped::drain_with(scene, 1, order).await)
        .await
}

/// Each key has but a few events.
pub struct ManyKeys(pub Kind);

#[async_trait(?Send)]
impl Cell for ManyKeys {
    fn name(&self) -> String {
        format!("keys 100,000 {}", self.0.name())
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let plain = Rows::pending(bench.rows);
        let many = Rows {
            keys: 100_000,
            ..plain
        };
        let plain = bench.stage(self.0, Mode::Mark, &[plain]).await?;
        let many = bench.stage(self.0, Mode::Mark, &[many]).await?;
        for _ in bench.rounds(&self.name()) {
            let best = results.add("1,000 keys", plain.on_a_scene(shipped::drain).await?);
            let many = results.add("100,000 keys", many.on_a_scene(shipped::drain).await?);
            let ratio = many.events_per_second / best.events_per_second;
            let target = Some(Target::AtLeast(0.95));
            results.value("100,000 keys/1,000 keys", ratio, target);
        }
        plain.strike().await?;
        many.strike().await
    }
}

/// A key's first event has failed and is tried again much later; its others wait, and lie before the rest.
pub struct Held(pub Kind);

/// As the relay writes it: all of one key, of which the first failed.
const HOLD: &str = "
    insert into outbox_failures (id, event_id, lane, key, destination, state, holds, attempts,
                                 next_attempt_at, reason, failed_at)
    select id, event_id::text, hashtextextended(aggregate_id, 0) & 63, aggregate_id, $1, 'retrying', true, 1,
           now() + interval '1 day', 'refused: for the benchmark', now()
      from outbox order by id limit 1";

#[async_trait(?Send)]
impl Cell for Held {
    fn name(&self) -> String {
        format!("keys held {}", self.0.name())
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let plain = Rows::pending(bench.rows);
        let held = Rows {
            count: bench.rows / 100,
            keys: 1,
            key: "held-",
            ..plain
        };
        let stage = bench.stage(self.0, Mode::Mark, &[plain]).await?;
        let behind = bench.stage(self.0, Mode::Mark, &[held, plain]).await?;
        for _ in bench.rounds(&self.name()) {
            let best = results.add("no key held", stage.on_a_scene(shipped::run).await?);
            let held = results.add("a key held", behind.on_a_scene(run_with_a_held_key).await?);
            let ratio = held.events_per_second / best.events_per_second;
            results.value("held/not held", ratio, Some(Target::AtLeast(0.9)));
        }
        stage.strike().await?;
        behind.strike().await
    }
}

async fn run_with_a_held_key(scene: &Scene<'_>) -> Result<Figures, Failure> {
    let mut connection = scene.connect().await?;
    sqlx::query(HOLD)
        .bind(&scene.name)
        .execute(&mut connection)
        .await?;
    shipped::run(scene).await
}
