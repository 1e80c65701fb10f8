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

/// What tells rows apart, and what orders them.
#[derive(Clone, Copy)]
pub enum Mapped {
    /// A number that is drawn does both.
    Number,
    /// A random uuid, and a time.
    UuidAndTime,
}

#[async_trait(?Send)]
impl Cell for Mapped {
    fn name(&self) -> String {
        let by = match self {
            Self::Number => "number",
            Self::UuidAndTime => "uuid and time",
        };
        format!("mapped kafka by {by}")
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
        let (id, order, primary) = match self {
            Self::Number => ("id", "id", "id"),
            Self::UuidAndTime => ("event_id", "created_at", "event_id"),
        };
        let mapping = format!(
            "id = \"{id}\"\norder = \"{order}\"\nevent_id = \"event_id\"\nkey = \"aggregate_id\"\ndestination = \"topic\"\ntype = \"event_type\"\n\
             payload = \"payload\"\nheaders_json = \"headers\"\ntime = \"created_at\"\npending = \"published_at is null\"\n\
             done = {{ published_at = \"now()\" }}\n"
        );
        std::fs::write(&file, mapping)?;
        let path = file
            .to_str()
            .ok_or("the folder for temporary files has an odd name")?;
        prepare(scene, primary, path).await?;
        let figures = shipped::drain_with(scene, 1, &["--mapping", path]).await;
        std::fs::remove_file(&file)?;
        figures
    }
}

/// What outboxd made for its own table goes, and what it makes for another's comes.
async fn prepare(scene: &Scene<'_>, primary: &str, mapping: &str) -> Result<(), Failure> {
    let mut connection = scene.connect().await?;
    let anew = format!(
        "drop table outbox_failures, outbox_instances, outboxd_migrations; drop index outbox_pending; \
         alter table outbox drop constraint outbox_pkey, add primary key ({primary})"
    );
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(anew)))
        .await?;
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
