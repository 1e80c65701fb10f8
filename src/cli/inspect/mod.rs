//! `outboxd inspect`: which tables of a database are an outbox, and what to do with them.

mod next;
mod report;

use std::{fs::OpenOptions, io::Write, path::Path};

use clap::Args;

use super::{Failed, exit, output, settings};
use crate::{
    mapping::propose::Source,
    outbox::{
        config::ServerArgs,
        survey::{Survey, Surveyed, Wanted, survey},
    },
};

/// Look for outbox tables in a database, and propose how to relay them
///
/// For each table that looks like an outbox: a preset that fits it, or else a mapping guessed from its columns,
/// with what is doubtful about it; what is missing, as SQL; the command to go on with; and the first
/// messages as they would go out. SELECT on the table is enough. Nothing is changed or locked, and
/// large tables are not read through.
///
/// How sure it is: `certain` (outboxd's own table, or a preset's columns and name), `likely`, `maybe`
/// (guessed from the columns' names: read the proposal before you use it).
#[derive(Args)]
#[command(after_help = "Exit codes:
   0  there is such a table
   1  there is none
  69  the database cannot be reached
  78  values are wrong, or there is no such table

Examples:
  outboxd inspect
  outboxd inspect --table sales.events           (one table, whatever it looks like)
  outboxd inspect --samples 0 --json | jq -r '.[].run'
  outboxd inspect --table sales.events --write outbox.toml && outboxd run --migrate --mapping outbox.toml …")]
pub struct InspectArgs {
    /// Messages to show of each table; 0 for none
    #[arg(long, value_name = "COUNT", default_value = "10", value_parser = clap::value_parser!(u32).range(..=1000))]
    samples: u32,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Write the proposed mapping to a file, which must not be there yet
    ///
    /// For one table: name it with --table if there are several.
    #[arg(long, value_name = "FILE")]
    write: Option<std::path::PathBuf>,

    #[command(flatten)]
    server: ServerArgs,
}

impl InspectArgs {
    /// Runs the command.
    pub async fn run(self) -> Result<(), Failed> {
        let config = settings(|problems| {
            if self.server.preset.is_some() || self.server.mapping.is_some() {
                problems.add(
                    "inspect proposes a mapping itself: leave out --preset and --mapping (OUTBOXD_PRESET, OUTBOXD_MAPPING), \
                     or try them with `outboxd check` and `outboxd peek`",
                );
            }
            self.server.validate(problems)
        })?;
        let wanted = Wanted {
            table: self.server.table.is_some().then(|| config.names.clone()),
            samples: self.samples,
        };
        let database = config.database(&format!("inspect@{}", std::process::id()));
        let timeouts = config.timeouts(std::time::Duration::ZERO);
        let found = survey(&database, timeouts, &wanted).await?;
        if let Some(names) = wanted.table.filter(|_| found.is_nothing()) {
            return Err(Failed::new(
                exit::CONFIG,
                format!("there is no table {}", output::printable(&names.display())),
            ));
        }
        for (table, why) in &found.passed_over {
            let (table, why) = (output::printable(table), output::printable(why));
            eprintln!("outboxd: {table} is passed over: {why}");
        }
        if self.json {
            output::json(&report::json(&found))?;
        } else if !found.tables.is_empty() {
            output::text(&report::text(&found))?;
        }
        if found.tables.is_empty() {
            return Err(nothing(found.in_all));
        }
        match &self.write {
            Some(file) => write(file, &found),
            None => Ok(()),
        }
    }
}

fn nothing(in_all: i64) -> Failed {
    let said = format!(
        "none of {in_all} tables looks like an outbox: name one with --table, to look at it whatever it looks like, and write a \
         mapping (see `outboxd preset show debezium` for one); or make an outbox with `outboxd migrate`"
    );
    Failed::new(exit::FAILURE, said)
}

/// Writes the one proposal to a new file.
fn write(file: &Path, found: &Survey) -> Result<(), Failed> {
    let refused = |why: String| {
        let file = file.display();
        Failed::new(exit::FAILURE, format!("--write {file}: {why}"))
    };
    let [table] = &found.tables[..] else {
        let names: Vec<_> = found.tables.iter().map(Surveyed::display).collect();
        return Err(refused(format!(
            "name one of {} with --table",
            names.join(", ")
        )));
    };
    if let Source::Own = table.proposal.source {
        return Err(refused(format!(
            "{} is outboxd's own table, which needs no mapping",
            table.display()
        )));
    }
    let opened = OpenOptions::new().write(true).create_new(true).open(file);
    opened
        .and_then(|mut file| file.write_all(table.proposal.text.as_bytes()))
        .map_err(|error| refused(error.to_string()))?;
    eprintln!("outboxd: wrote the mapping to {}", file.display());
    Ok(())
}

impl Survey {
    fn is_nothing(&self) -> bool {
        self.tables.is_empty() && self.passed_over.is_empty()
    }
}

impl Surveyed {
    /// The table's name, for people.
    fn display(&self) -> String {
        output::printable(&self.names.display())
    }
}
