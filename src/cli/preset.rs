//! `outboxd preset`: the mappings that come with outboxd.

use clap::{Args, Subcommand};

use super::{Failed, exit, output};
use crate::mapping::{PRESETS, Preset};

/// Show the mappings that come with outboxd, for outbox tables of other systems
#[derive(Args)]
pub struct PresetArgs {
    #[command(subcommand)]
    command: PresetCommand,
}

#[derive(Subcommand)]
enum PresetCommand {
    /// Show their names, and whose tables they are for
    List,
    /// Print one, and what to know about it: the beginning of a mapping of your own
    #[command(after_help = "Examples:
  outboxd preset show debezium
  outboxd preset show debezium > outbox.toml && outboxd peek --mapping outbox.toml")]
    Show {
        /// Its name
        name: String,
    },
}

impl PresetArgs {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failed> {
        match &self.command {
            PresetCommand::List => {
                let mut table = output::table(["NAME", "FOR"]);
                for preset in PRESETS {
                    table.add_row([preset.name, preset.summary()]);
                }
                output::text(&table.to_string())
            }
            PresetCommand::Show { name } => {
                let preset =
                    Preset::named(name).map_err(|error| Failed::new(exit::CONFIG, error))?;
                output::text(preset.text)
            }
        }
    }
}
