//! The command line: what each command is called, takes and exits with.

mod check;
mod completions;
mod dead;
pub mod environment;
mod inspect;
mod logs;
mod migrate;
mod output;
mod peek;
mod preset;
mod prune;
mod relay_args;
mod run;
mod shadow;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{outbox::DbError, settings::Problems};

/// Exit codes, stable: scripts and supervisors rely on them (`sysexits.h`).
pub mod exit {
    /// All is well.
    pub const OK: u8 = 0;
    /// A command failed; its message says why.
    pub const FAILURE: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 64;
    /// Database or broker cannot be reached (`check`, and commands that do not wait).
    pub const UNAVAILABLE: u8 = 69;
    /// A bug.
    pub const SOFTWARE: u8 = 70;
    /// A privilege is missing.
    pub const NO_PERMISSION: u8 = 77;
    /// A value is wrong, or the tables are not as they must be.
    pub const CONFIG: u8 = 78;
}

/// Relays rows of a transactional outbox table in PostgreSQL to Kafka or RabbitMQ.
#[derive(Parser)]
#[command(
    name = "outboxd",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "First steps:
  export OUTBOXD_DATABASE_URL=postgres://owner@localhost/shop
  outboxd migrate                                  make the tables
  outboxd check --kafka-brokers localhost:9092     what is missing, and how to mend it
  outboxd run --kafka-brokers localhost:9092       relay
An outbox of another system's, or of your own:
  outboxd inspect                                  whose it is, and what it takes to relay it
`outboxd COMMAND --help` says more about each."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Relay events until told to stop
    Run(Box<relay_args::RelayArgs>),
    /// Relay events until nothing but dead letters, and what they hold, is left
    Drain(Box<relay_args::RelayArgs>),
    Migrate(migrate::MigrateArgs),
    Check(Box<check::CheckArgs>),
    Inspect(Box<inspect::InspectArgs>),
    Preset(preset::PresetArgs),
    Status(status::StatusArgs),
    Peek(Box<peek::PeekArgs>),
    Shadow(Box<shadow::ShadowArgs>),
    Dead(Box<dead::DeadArgs>),
    Prune(prune::PruneArgs),
    Completions(completions::CompletionsArgs),
}

impl Cli {
    /// Runs the command; gives the exit code.
    pub async fn run(self) -> ExitCode {
        let ended = match self.command {
            Command::Run(args) => return run::run(*args).await,
            Command::Drain(args) => return run::drain(*args).await,
            Command::Migrate(args) => args.run().await,
            Command::Check(args) => args.run().await,
            Command::Inspect(args) => Box::pin(args.run()).await,
            Command::Preset(args) => args.run(),
            Command::Status(args) => args.run().await,
            Command::Peek(args) => args.run().await,
            Command::Shadow(args) => Box::pin(args.run()).await,
            Command::Dead(args) => args.run().await,
            Command::Prune(args) => args.run().await,
            Command::Completions(args) => args.run(),
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(failed) => failed.report(),
        }
    }
}

/// Why a command failed, for people, and its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    message: String,
    code: u8,
}

impl Failed {
    /// A failure with that exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message, code }
    }

    /// Says why, each line of it on its own, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        for line in self.message.lines() {
            eprintln!("outboxd: {line}");
        }
        ExitCode::from(self.code)
    }
}

impl From<DbError> for Failed {
    fn from(error: DbError) -> Self {
        let code = if error.is_schema() || error.is_settings() {
            exit::CONFIG
        } else if error.is_privilege() {
            exit::NO_PERMISSION
        } else if error.is_unreachable() {
            exit::UNAVAILABLE
        } else {
            exit::FAILURE
        };
        let remedy = error.remedy().map(|remedy| format!("\n{remedy}"));
        Self::new(code, format!("{error}{}", remedy.unwrap_or_default()))
    }
}

/// Validates settings; all that is wrong with them is the failure.
fn settings<T>(validate: impl FnOnce(&mut Problems) -> Option<T>) -> Result<T, Failed> {
    let mut problems = Problems::default();
    match validate(&mut problems) {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(Failed::new(exit::CONFIG, problems.list().join("\n"))),
    }
}

/// Prints every problem, each on its line, and gives the exit code.
pub fn report(problems: &Problems) -> ExitCode {
    for problem in problems.list() {
        eprintln!("outboxd: {problem}");
    }
    ExitCode::from(exit::CONFIG)
}
