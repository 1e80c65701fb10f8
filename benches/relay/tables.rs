//! Tables that have grown, and dead rows that cannot be vacuumed: what an event costs there.

use async_trait::async_trait;
use sqlx::{Connection, Executor};

use crate::{
    Bench,
    cells::Cell,
    common::Failure,
    meter::Figures,
    report::{Results, Target},
    shipped,
    sink::Kind,
    stage::{Mode, Rows, Scene},
};

fn small(count: usize) -> Rows {
    Rows {
        payload_bytes: 100,
        ..Rows::pending(count)
    }
}

/// What an event costs, against what it costs in a small table: time, and CPU of relay and PostgreSQL.
fn compare(results: &mut Results, large: Figures, small: Figures) {
    let target = Some(Target::AtMost(1.1));
    let cpu = |figures: Figures| figures.client_us + figures.postgres_us;
    let time = small.events_per_second / large.events_per_second;
    results.value("CPU of an event, ratio", cpu(large) / cpu(small), target);
    results.value("time of an event, ratio", time, target);
    results.value("memory, MiB", large.peak_mib, Some(Target::AtMost(64.0)));
}

/// Published rows that are kept, and pending ones after them.
pub struct Retained;

#[async_trait(?Send)]
impl Cell for Retained {
    fn name(&self) -> String {
        "tables retained kafka".to_owned()
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let pending = Rows::pending(bench.rows);
        let retained = Rows {
            published: true,
            ..small(bench.many)
        };
        let least = bench.stage(Kind::Kafka, Mode::Mark, &[pending]).await?;
        let most = [retained, pending];
        let most = bench.stage(Kind::Kafka, Mode::Mark, &most).await?;
        for _ in bench.rounds(&self.name()) {
            let alone = results.add("none retained", least.on_a_scene(shipped::drain).await?);
            let after = results.add("many retained", most.on_a_scene(shipped::drain).await?);
            compare(results, after, alone);
        }
        least.strike().await?;
        most.strike().await
    }
}

/// Very many pending rows.
pub struct Backlog;

#[async_trait(?Send)]
impl Cell for Backlog {
    fn name(&self) -> String {
        "tables backlog kafka".to_owned()
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let few = [small(bench.rows)];
        let many = [small(bench.many)];
        let few = bench.stage(Kind::Kafka, Mode::Mark, &few).await?;
        let many = bench.stage(Kind::Kafka, Mode::Mark, &many).await?;
        for _ in bench.rounds(&self.name()) {
            let few = results.add("few", few.on_a_scene(shipped::drain).await?);
            let many = results.add("many", many.on_a_scene(shipped::drain).await?);
            compare(results, many, few);
        }
        few.strike().await?;
        many.strike().await
    }
}

/// A transaction elsewhere has begun before the drain and outlasts it.
pub struct LongTransaction(pub Mode);

#[async_trait(?Send)]
impl Cell for LongTransaction {
    fn name(&self) -> String {
        format!("tables long-transaction kafka {}", self.0.name())
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let rows = [Rows::pending(bench.rows)];
        let stage = bench.stage(Kind::Kafka, self.0, &rows).await?;
        for _ in bench.rounds(&self.name()) {
            let without = results.add("without", stage.on_a_scene(shipped::drain).await?);
            let with = stage.on_a_scene(drain_beside_a_transaction).await?;
            let with = results.add("with", with);
            compare(results, with, without);
        }
        stage.strike().await
    }
}

async fn drain_beside_a_transaction(scene: &Scene<'_>) -> Result<Figures, Failure> {
    let mut connection = scene.connect().await?;
    let mut transaction = connection.begin().await?;
    // An xid of its own and a snapshot that it keeps.
    let begin = "set transaction isolation level repeatable read; select pg_current_xact_id()";
    transaction.execute(sqlx::raw_sql(begin)).await?;
    let figures = shipped::drain(scene).await?;
    transaction.rollback().await?;
    Ok(figures)
}
