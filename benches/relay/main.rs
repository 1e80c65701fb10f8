//! `make bench`: how fast the relay is, and how fast it could be, in one run on the same servers.
//!
//! A cell measures one workload, in rounds: all that is compared is measured in each round, every time on
//! a fresh copy of the same rows and on a destination of its own. For drains that is
//! * **R**: the rows read by key and thrown away. **P**: messages published from memory, all confirmed.
//!   **A**: the rows settled by the cheapest durable statement, without being read.
//! * **T\*** = min(R, P, cores / CPU seconds of R + P + A per event): nothing can be faster that does
//!   all three on these cores.
//! * **K**, the kernel: the least code that claims, publishes and settles as the relay does, without
//!   retries, failures, metrics or settings.
//! * **relay**: the shipped binary, `outboxd drain`, with its defaults.
//!
//! Other cells compare the relay with itself under better circumstances, or with raw publishing.

mod arrivals;
mod cells;
#[path = "../../examples/common/mod.rs"]
#[expect(dead_code, reason = "of it a part is used here")]
mod common;
mod drains;
mod idle;
mod kernel;
mod keys;
mod mapped;
mod meter;
mod payloads;
mod raw;
mod replicas;
mod report;
mod shipped;
mod sink;
mod stage;
mod steady;
mod tables;
mod trips;

use std::process::ExitCode;

use clap::Parser;
use sqlx::{Connection, PgConnection};

use crate::{
    cells::Cell,
    common::{Failure, database, servers::Servers, suffix, unless_interrupted},
    report::Results,
    sink::Kind,
    stage::{Mode, Rows, Stage},
};

/// Measures the relay against the limit.
///
/// A cell takes minutes: at a million rows and three rounds, a drain to Kafka about 6 and one to RabbitMQ 10
/// to 20, other cells 2 to 10, a table of 10 million rows about 15. All of them take hours.
#[derive(Parser)]
struct Bench {
    /// Parts of the names of the cells to run: those that have all of them in their names [default: all cells]
    parts: Vec<String>,

    /// Only list the cells
    #[arg(long)]
    list: bool,

    /// Rows to publish in each measurement; slow workloads take a part of them
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,

    /// Rows of the large tables
    #[arg(long, default_value_t = 10_000_000)]
    many: usize,

    /// Rounds: each figure is the median of so many measurements
    #[arg(long, default_value_t = 3)]
    repeat: usize,

    /// How long the steady load lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    steady: u64,

    /// How long the relay is idle
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle: u64,

    #[command(flatten)]
    servers: Servers,

    /// Cargo adds this
    #[arg(long = "bench", hide = true)]
    by_cargo: bool,

    /// What the names of all databases, topics and queues begin with.
    #[arg(skip = format!("bench_{}", suffix()))]
    prefix: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let bench = Bench::parse();
    let mut cells = cells::all();
    cells.retain(|cell| bench.is_wanted(&cell.name()));
    if bench.list {
        for cell in cells {
            println!("{}", cell.name());
        }
        return ExitCode::SUCCESS;
    }
    let mut all = Vec::new();
    let measured = unless_interrupted(bench.measure(&cells, &mut all)).await;
    report::tables(&all);
    let ended = measured.and(report::write(&all)).and(bench.tidy().await);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Bench {
    fn is_wanted(&self, name: &str) -> bool {
        self.parts.iter().all(|part| name.contains(part))
    }

    async fn measure(
        &self,
        cells: &[Box<dyn Cell>],
        all: &mut Vec<Results>,
    ) -> Result<(), Failure> {
        for cell in cells {
            let mut results = Results::new(cell.name());
            let measured = cell.measure(self, &mut results).await;
            all.push(results);
            measured?;
        }
        Ok(())
    }

    /// The numbers of the rounds, told as they begin.
    fn rounds(&self, cell: &str) -> impl Iterator<Item = usize> {
        (1..=self.repeat).inspect(move |round| eprintln!("{cell} ({round} of {})", self.repeat))
    }

    /// A database to be copied, with these rows; the last of them are what will be published.
    async fn stage(&self, kind: Kind, mode: Mode, contents: &[Rows]) -> Result<Stage<'_>, Failure> {
        let last = contents.last().copied().unwrap_or(Rows::pending(0));
        let stage = Stage {
            postgres: &self.servers.postgres_url,
            broker: match kind {
                Kind::Kafka => &self.servers.kafka_brokers,
                Kind::Quorum | Kind::Classic => &self.servers.rabbitmq_url,
            },
            kind,
            mode,
            rows: last.count,
            payload_bytes: last.payload_bytes,
            template: format!("{}_{:x}", self.prefix, fastrand::u32(..)),
        };
        stage.fill(contents).await?;
        Ok(stage)
    }

    /// Removes what an interrupted measurement has left on PostgreSQL.
    async fn tidy(&self) -> Result<(), Failure> {
        let sql = "select datname::text from pg_database where starts_with(datname, $1)";
        let mut server = PgConnection::connect(self.servers.postgres_url.as_str()).await?;
        let left: Vec<String> = sqlx::query_scalar(sql)
            .bind(&self.prefix)
            .fetch_all(&mut server)
            .await?;
        for name in left {
            database::remove(&self.servers.postgres_url, &name).await?;
        }
        Ok(())
    }
}
