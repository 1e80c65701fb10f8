//! The same rows, as a table that somebody else made: what a mapping costs.

use std::process::Command;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Executor};

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

/// By uuids, ordered by what is named.
pub struct Mapped(pub &'static str);

#[async_trait(?Send)]
impl Cell for Mapped {
    fn name(&self) -> String {
        format!("mapped kafka by {}", self.0)
    }

    async fn measure(&self, bench: &Bench, results: &mut Results) -> Result<(), Failure> {
        let rows = [Rows::pending(bench.rows)];
        let stage = bench.stage(Kind::Kafka, Mode::Mark, &rows).await?;
        for _ in bench.rounds(&self.name()) {
            let plain = results.add("plain", stage.on_a_scene(shipped::drain).await?);
            let mapped = stage.on_a_scene(async |scene| self.drain(scene).await);
            let mapped = results.add("mapped", mapped.await?);
            let ratio = mapped.events_per_second / plain.events_per_second;
            results.value("mapped/plain", ratio, Some(Target::AtLeast(0.9)));
        }
        stage.strike().await
    }
}

impl Mapped {
    async fn drain(&self, scene: &Scene<'_>) -> Result<Figures, Failure> {
        let file = std::env::temp_dir().join(format!("{}.toml", scene.name));
        let mapping = format!(
            "id = \"event_id\"\norder = \"{}\"\nkey = \"aggregate_id\"\ndestination = \"topic\"\ntype = \"event_type\"\n\
             payload = \"payload\"\nheaders_json = \"headers\"\ntime = \"created_at\"\npending = \"published_at is null\"\n\
             done = {{ published_at = \"now()\" }}\n",
            self.0
        );
        std::fs::write(&file, mapping)?;
        let path = file
            .to_str()
            .ok_or("the folder for temporary files has an odd name")?;
        prepare(scene, path).await?;
        let figures = shipped::drain_with(scene, 1, &["--mapping", path]).await;
        std::fs::remove_file(&file)?;
        figures
    }
}

/// What outboxd made for its own table goes, and what it makes for another's comes.
async fn prepare(scene: &Scene<'_>, mapping: &str) -> Result<(), Failure> {
    let mut connection = scene.connect().await?;
    let anew = "drop table outbox_failures, outbox_instances, outboxd_migrations; drop index outbox_pending; \
                create unique index on outbox (event_id); alter table outbox add unique (id)";
    connection.execute(sqlx::raw_sql(anew)).await?;
    let printed = Command::new(shipped::binary())
        .args(["migrate", "--print", "--mapping", mapping])
        .args(["--database-url", &scene.database_url])
        .output()?;
    let script = String::from_utf8(printed.stdout)?.replace(" concurrently", "");
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(script)))
        .await?;
    connection.execute("vacuum analyze outbox").await?;
    Ok(())
}
