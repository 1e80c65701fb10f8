//! `outboxd preset`: the mappings that come with outboxd.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failed, exit, output};
use crate::mapping::{PRESETS, Preset};

/// List and show the mappings that come with outboxd
///
/// A preset says what the columns of another system's outbox table mean. Use it as it is (--preset NAME),
/// or as the beginning of a mapping of your own (preset = "NAME" in the file of --mapping).
#[derive(Args)]
#[command(after_help = "Examples:
  outboxd preset list
  outboxd preset show debezium > outbox.toml     (a start: change it, and use it by --mapping outbox.toml)
  outboxd inspect                                (which of them fits the table you have?)")]
pub struct PresetArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the presets, each with what it is of
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a preset: a mapping in TOML, which begins with what one should know
    Show {
        /// The preset: see `outboxd preset list`
        name: String,
    },
}

impl PresetArgs {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failed> {
        match self.action {
            Action::List { json: false } => {
                let mut table = output::table(["PRESET", "WHAT IT IS OF"]);
                for preset in PRESETS {
                    table.add_row([preset.name, preset.summary()]);
                }
                output::text(&table.to_string())
            }
            Action::List { json: true } => {
                let presets = PRESETS.iter();
                let presets = presets.map(|it| json!({ "name": it.name, "summary": it.summary() }));
                output::json(&presets.collect())
            }
            Action::Show { name } => {
                let preset =
                    Preset::named(&name).map_err(|error| Failed::new(exit::CONFIG, error))?;
                output::text(preset.text)
            }
        }
    }
}
