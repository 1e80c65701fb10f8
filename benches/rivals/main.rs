//! `make bench-rivals`: outboxd beside what else could empty the same outbox into Kafka, in one run: same
//! servers, rows, topic layout and durability.
//!
//! * **outboxd drain**, with its defaults.
//! * **Debezium Server** with its outbox event router: it reads the WAL. See [`debezium`].
//! * A **poller** of the common kind: lease by UPDATE, publish, UPDATE. See [`poller`].
//!
//! All of them are measured on a PostgreSQL with `wal_level = logical`, which Debezium needs: the given
//! one, or one made for this run. When each message was there is told by the broker (`LogAppendTime`),
//! not by the one who sent it; afterwards the topic is read, and every event must be in it.

#[path = "../relay/arrivals.rs"]
#[expect(dead_code, reason = "of it a part is used here")]
mod arrivals;
#[path = "../../examples/common/mod.rs"]
#[expect(dead_code, reason = "of it a part is used here")]
mod common;
mod debezium;
mod java;
#[path = "../relay/meter.rs"]
#[expect(dead_code, reason = "of it a part is used here")]
mod meter;
mod poller;
mod program;
mod report;
mod rival;
mod server;
#[path = "../relay/shipped.rs"]
#[expect(dead_code, reason = "of it a part is used here")]
mod shipped;
#[path = "../relay/sink.rs"]
#[expect(dead_code, reason = "of it a part is used here")]
mod sink;
#[path = "../relay/stage.rs"]
#[expect(dead_code, reason = "of it a part is used here")]
mod stage;
mod topic;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    common::{Failure, suffix, unless_interrupted},
    poller::Poll,
    report::Results,
    rival::Rival,
    server::Server,
    sink::Kind,
    stage::{Mode, Rows, Stage},
};

/// Measures outboxd beside others.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Bench {
    /// Whom to measure, by a part of their names [default: all]
    rivals: Vec<String>,

    /// Rows of 1 KiB in each measurement
    #[arg(long, default_value_t = 500_000)]
    rows: usize,

    /// Measurements of each, of which the median counts
    #[arg(long, default_value_t = 3)]
    repeat: usize,

    /// A superuser's URL; `make bench-rivals` sets it
    #[arg(long, env = "TEST_POSTGRES_URL", hide_env_values = true)]
    postgres_url: Option<url::Url>,

    /// As HOST:PORT; `make bench-rivals` sets it
    #[arg(long, env = "TEST_KAFKA_BROKERS")]
    kafka_brokers: Option<String>,

    /// Cargo adds this
    #[arg(long = "bench", hide = true)]
    by_cargo: bool,

    #[command(subcommand)]
    role: Option<Role>,
}

/// The poller is measured in a process of its own, as the others are: this program again.
#[derive(clap::Subcommand)]
enum Role {
    #[command(hide = true)]
    Poll(Poll),
}

#[tokio::main]
async fn main() -> ExitCode {
    let bench = Bench::parse();
    let ended = match &bench.role {
        Some(Role::Poll(poll)) => poll.drain().await,
        None => unless_interrupted(bench.run()).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-rivals: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Bench {
    async fn run(&self) -> Result<(), Failure> {
        let postgres = self.postgres_url.as_ref();
        let postgres = postgres.ok_or("TEST_POSTGRES_URL is not set: see `make bench-rivals`")?;
        let broker = self.kafka_brokers.as_ref();
        let broker = broker.ok_or("TEST_KAFKA_BROKERS is not set: see `make bench-rivals`")?;
        let rivals = Rival::wanted(&self.rivals)?;
        let server = Server::logical(postgres).await?;
        let stage = Stage {
            postgres: server.url(),
            broker,
            kind: Kind::Kafka,
            mode: Mode::Mark,
            rows: self.rows,
            payload_bytes: 1024,
            template: format!("rivals_{}", suffix()),
        };
        stage.fill(&[Rows::pending(self.rows)]).await?;
        let measured = self.measure(&stage, &rivals).await;
        stage.strike().await?;
        let all = measured?;
        report::table(&all, self.rows);
        report::write(&all, self.rows)
    }

    async fn measure(&self, stage: &Stage<'_>, rivals: &[Rival]) -> Result<Vec<Results>, Failure> {
        let mut all: Vec<Results> = rivals.iter().map(Results::of).collect();
        for round in 1..=self.repeat {
            for (rival, results) in rivals.iter().zip(&mut all) {
                eprint!("{} ({round} of {}) ", rival.name(), self.repeat);
                let outcome = rival.measure(stage).await.inspect_err(|_| eprintln!())?;
                eprintln!("{:.0} events/s", outcome.figures.events_per_second);
                results.outcomes.push(outcome);
            }
        }
        Ok(all)
    }
}
