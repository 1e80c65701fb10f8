//! `make bench`: how fast the relay is, and how fast it could be, in one run on the same servers.
//!
//! For each cell (a sink, and what happens to published rows):
//! * **R**: the rows read by key and thrown away. **P**: messages published from memory, all confirmed.
//!   **A**: the rows settled by the cheapest durable statement, without being read.
//! * **T\*** = min(R, P, cores / CPU seconds of R + P + A per event): nothing can be faster that does
//!   all three on these cores.
//! * **K**, the kernel: the least code that claims, publishes and settles as the relay does, without
//!   retries, failures, metrics or settings.
//! * the shipped binary, `outboxd drain`, with its defaults.

#[path = "../../examples/common/mod.rs"]
#[expect(dead_code, reason = "of it a part is used here")]
mod common;
mod kernel;
mod meter;
mod raw;
mod report;
mod shipped;
mod sink;
mod stage;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    common::Failure,
    meter::Figures,
    report::Results,
    sink::Kind,
    stage::{Mode, Stage},
};

/// Measures the relay against the limit.
#[derive(Parser)]
struct Bench {
    /// Cells to run, by a part of their names [default: all]
    cells: Vec<String>,

    /// Rows of 1 KiB in each measurement
    #[arg(long, default_value_t = 200_000)]
    rows: usize,

    /// Measurements of each figure, of which the median counts
    #[arg(long, default_value_t = 3)]
    repeat: usize,

    /// A superuser's URL; `make bench` sets it
    #[arg(long, env = "TEST_POSTGRES_URL", hide_env_values = true)]
    postgres_url: url::Url,

    /// As HOST:PORT; `make bench` sets it
    #[arg(long, env = "TEST_KAFKA_BROKERS")]
    kafka_brokers: String,

    /// As amqp://USER:PASSWORD@HOST:PORT/VHOST; `make bench` sets it
    #[arg(long, env = "TEST_RABBITMQ_URL", hide_env_values = true)]
    rabbitmq_url: String,

    /// Cargo adds this
    #[arg(long = "bench", hide = true)]
    by_cargo: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let bench = Bench::parse();
    match bench.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Bench {
    async fn run(&self) -> Result<(), Failure> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            for mode in Mode::ALL {
                let name = format!("drain {} {}", kind.name(), mode.name());
                if self.is_wanted(&name) {
                    all.push(self.cell(name, kind, mode).await?);
                }
            }
        }
        report::table(&all, self.rows);
        report::write(&all, self.rows)
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.cells.is_empty() || self.cells.iter().any(|part| name.contains(part))
    }

    async fn cell(&self, name: String, kind: Kind, mode: Mode) -> Result<Results, Failure> {
        let stage = Stage {
            postgres: &self.postgres_url,
            broker: match kind {
                Kind::Kafka => &self.kafka_brokers,
                Kind::Quorum | Kind::Classic => &self.rabbitmq_url,
            },
            kind,
            mode,
            rows: self.rows,
        };
        let mut results = Results::new(name);
        for round in 1..=self.repeat {
            eprintln!("{} ({round} of {})", results.name, self.repeat);
            let scene = stage.set().await?;
            let read = raw::read(&scene).await?;
            let settled = raw::settle(&scene).await?;
            scene.strike().await?;
            results.add("R", read);
            results.add("A", settled);
            results.add("P", self.on_a_scene(&stage, Measured::Publish).await?);
            results.add("K", self.on_a_scene(&stage, Measured::Kernel).await?);
            results.add("relay", self.on_a_scene(&stage, Measured::Relay).await?);
        }
        Ok(results)
    }

    async fn on_a_scene(&self, stage: &Stage<'_>, what: Measured) -> Result<Figures, Failure> {
        let scene = stage.set().await?;
        let figures = match what {
            Measured::Publish => raw::publish(&scene).await,
            Measured::Kernel => kernel::drain(&scene).await,
            Measured::Relay => shipped::drain(&scene).await,
        };
        scene.strike().await?;
        figures
    }
}

#[derive(Clone, Copy)]
enum Measured {
    Publish,
    Kernel,
    Relay,
}
