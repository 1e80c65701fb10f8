//! `outboxd dead`: look at events that were given up on, try them again, or let them go.

mod change;
mod list;

use std::time::UNIX_EPOCH;

use clap::{Args, Subcommand, ValueEnum};

use super::{Failed, settings};
use crate::{
    outbox::{
        Before, Change, Filter, State,
        config::{DatabaseConfig, ServerArgs},
    },
    settings::Problems,
};

/// List dead letters, publish them again, or let them go
#[derive(Args)]
pub struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Subcommand)]
enum DeadCommand {
    /// List dead letters, oldest first
    #[command(after_help = "Examples:
  outboxd dead list
  outboxd dead list --topic orders --reason too_large
  outboxd dead list --state all --json | jq -r '.[].event_id'")]
    List(ChoiceArgs),
    /// Publish dead letters again, at once and with all their attempts
    ///
    /// Give event ids, a filter, or --all. Each holds its key until it is published; what its key
    /// published while it was dead is not taken back, so it arrives late.
    #[command(after_help = "Examples:
  outboxd dead retry 5f0c1c1e-7a3c-4c5a-9d0e-0a7c1b6f3d11
  outboxd dead retry --topic orders --before 2h
  outboxd dead retry --state discarded --key order-42
  outboxd dead retry --all")]
    Retry(ChoiceArgs),
    /// Let dead letters go: they are never published, and their keys go on
    ///
    /// Give event ids, a filter, or --all. Their rows stay; `dead retry --state discarded` brings them back.
    #[command(after_help = "Examples:
  outboxd dead discard 5f0c1c1e-7a3c-4c5a-9d0e-0a7c1b6f3d11
  outboxd dead discard --state retrying --key order-42     (frees a key whose event keeps failing)
  outboxd dead discard --all --before 30d")]
    Discard(ChoiceArgs),
}

/// Which events.
#[derive(Args)]
struct ChoiceArgs {
    /// Only these events
    #[arg(value_name = "EVENT_ID")]
    event_ids: Vec<String>,

    /// Only events of this destination (Kafka topic, RabbitMQ routing key)
    #[arg(long, value_name = "DESTINATION")]
    topic: Option<String>,

    /// Only events of this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Only events with this kind of reason, or with this text in it
    ///
    /// The kinds: `too_large`, `invalid`, `unroutable`, `refused`, `crashed`.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,

    /// Only events that failed before: a time such as 2026-01-31T12:00:00Z, or longer ago than 2h
    #[arg(long, value_name = "TIME")]
    before: Option<String>,

    /// Only events in this state
    #[arg(long, value_enum, default_value = "dead")]
    state: StateChoice,

    /// The oldest so many [default: 1000 for list, else no limit]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    /// All of them, however many
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum StateChoice {
    Dead,
    Retrying,
    Discarded,
    All,
}

impl DeadArgs {
    /// Runs the command.
    pub async fn run(self) -> Result<(), Failed> {
        match self.command {
            DeadCommand::List(choice) => list::list(&choice).await,
            DeadCommand::Retry(choice) => change::change(&choice, Change::Retry).await,
            DeadCommand::Discard(choice) => change::change(&choice, Change::Discard).await,
        }
    }
}

impl ChoiceArgs {
    fn validate(&self) -> Result<(DatabaseConfig, Filter), Failed> {
        settings(|problems| {
            let config = self.server.validate(problems);
            let before = self
                .before
                .as_deref()
                .and_then(|text| before(problems, text));
            let filter = Filter {
                states: match self.state {
                    StateChoice::Dead => vec![State::Dead],
                    StateChoice::Retrying => vec![State::Retrying],
                    StateChoice::Discarded => vec![State::Discarded],
                    StateChoice::All => vec![State::Dead, State::Retrying, State::Discarded],
                },
                event_ids: self.event_ids.clone(),
                destination: self.topic.clone(),
                key: self.key.clone(),
                reason: self.reason.clone(),
                before,
            };
            config.map(|config| (config, filter))
        })
    }

    fn chooses(&self) -> bool {
        let filters = [&self.topic, &self.key, &self.reason, &self.before];
        self.all || !self.event_ids.is_empty() || filters.iter().any(|filter| filter.is_some())
    }
}

fn before(problems: &mut Problems, text: &str) -> Option<Before> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Some(Before::Ago(ago.as_secs_f64()));
    }
    let Ok(time) = humantime::parse_rfc3339_weak(text) else {
        problems.add(format!(
            "--before {text:?} is neither a time (2026-01-31T12:00:00Z) nor a duration (2h)"
        ));
        return None;
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(Before::At(since.as_secs_f64()))
}
