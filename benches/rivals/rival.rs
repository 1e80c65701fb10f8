//! Who is measured, and how.

use std::{process::Command, time::SystemTime};

use crate::{
    common::Failure,
    debezium::{self, Debezium},
    poller,
    program::{self, Ends},
    report::Outcome,
    shipped,
    stage::{Scene, Stage},
    topic::{self, Arrivals},
};

pub enum Rival {
    Outboxd,
    Debezium(Debezium),
    Poller { workers: usize, batch: i64 },
}

impl Rival {
    /// Those whose names have one of the parts in them, or all.
    pub fn wanted(parts: &[String]) -> Result<Vec<Self>, Failure> {
        let is_wanted =
            |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part));
        let mut rivals = Vec::new();
        if is_wanted(&Self::Outboxd.name()) {
            rivals.push(Self::Outboxd);
        }
        if is_wanted(debezium::NAME) {
            rivals.push(Self::Debezium(Debezium::find()?));
        }
        // Several workers are the usual way to make one faster; only a single one keeps the order of keys.
        for (workers, batch) in [(4, 100), (4, 1_000), (1, 1_000)] {
            let poller = Self::Poller { workers, batch };
            if is_wanted(&poller.name()) {
                rivals.push(poller);
            }
        }
        Ok(rivals)
    }

    pub fn name(&self) -> String {
        match self {
            Self::Outboxd => "outboxd".into(),
            Self::Debezium(_) => debezium::NAME.into(),
            Self::Poller { workers, batch } => format!("poller {workers}x{batch}"),
        }
    }

    /// Events of one key in the order of their ids.
    pub fn promises_order(&self) -> bool {
        match self {
            Self::Outboxd | Self::Debezium(_) => true,
            // Of two batches with the same key the later one may be published first.
            Self::Poller { workers, .. } => *workers == 1,
        }
    }

    /// From a full outbox to a topic in which everything is.
    pub async fn measure(&self, stage: &Stage<'_>) -> Result<Outcome, Failure> {
        stage
            .on_a_scene(async |scene| self.measure_on(scene).await)
            .await
    }

    async fn measure_on(&self, scene: &Scene<'_>) -> Result<Outcome, Failure> {
        topic::stamp_by_broker(scene).await?;
        let (began, figures) = match self {
            Self::Outboxd => (SystemTime::now(), shipped::drain(scene).await?),
            Self::Debezium(debezium) => {
                debezium::refill(scene).await?;
                let command = debezium.command(scene)?;
                let measured = program::run(scene, command, Ends::WhenAllArrived).await;
                debezium::drop_slot(scene).await?;
                measured.map_err(|error| format!("{error}; see {}", debezium::LOG))?
            }
            Self::Poller { workers, batch } => {
                poller::prepare(scene).await?;
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .args(["poll", &scene.database_url, scene.stage.broker, &scene.name])
                    .args([workers.to_string(), batch.to_string()]);
                program::run(scene, command, Ends::ByItself).await?
            }
        };
        let arrivals = Arrivals::read(scene)?;
        Outcome::new(figures, began, arrivals)
    }
}
