//! `outboxd prune`: delete published rows past retention, and what has expired, once.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failed, exit, settings};
use crate::outbox::{Expired, PruneCursor, config::ServerArgs};

/// Delete published rows past retention
///
/// `outboxd run` does this continuously; this is for relays that run with --retention 0, and for
/// catching up. Pending rows and dead letters are never deleted. With the tables of `outboxd migrate
/// --with effects`, expired idempotency keys and inbox entries are deleted as well.
#[derive(Args)]
#[command(after_help = "Examples:
  outboxd prune
  outboxd prune --retention 1h")]
pub struct PruneArgs {
    /// How long published rows are kept
    #[arg(
        long,
        env = "OUTBOXD_RETENTION",
        value_name = "DURATION",
        default_value = "24h"
    )]
    retention: String,

    #[command(flatten)]
    server: ServerArgs,
}

impl PruneArgs {
    /// Runs the command.
    pub async fn run(self) -> Result<(), Failed> {
        let (config, retention) = settings(|problems| {
            let config = self.server.validate(problems);
            // `0` means never, to `run`; to delete everything published needs a word of its own.
            let retention = problems.positive_duration("retention", &self.retention);
            config.map(|config| (config, retention))
        })?;
        let outbox = config.outbox_for_command("prune");
        let mut link = outbox.link().await?;
        let mut cursor = PruneCursor::default();
        let bar = spinner();
        let (mut rows, mut failures) = (0, 0);
        loop {
            let step = outbox.prune_step(&mut link, &mut cursor, retention).await?;
            if step.elsewhere {
                bar.finish_and_clear();
                let table = config.names.display();
                return Err(Failed::new(
                    exit::FAILURE,
                    format!("another outboxd prunes {table} at this moment: try again"),
                ));
            }
            rows += step.events;
            failures += step.failures;
            bar.set_position(rows);
            if !step.more {
                break;
            }
        }
        let mut expired = Expired::default();
        loop {
            let step = outbox.prune_effects(&mut link).await?;
            expired.keys += step.keys;
            expired.inbox += step.inbox;
            bar.set_position(rows + expired.keys + expired.inbox);
            if !step.more {
                break;
            }
        }
        bar.finish_and_clear();
        if expired != Expired::default() {
            eprintln!(
                "outboxd: deleted {} expired idempotency keys and {} expired inbox entries",
                expired.keys, expired.inbox
            );
        }
        eprintln!(
            "outboxd: deleted {rows} published rows of {} and {failures} failures without an event",
            config.names.display()
        );
        link.session.close().await;
        Ok(())
    }
}

/// On a terminal only; indicatif stays silent elsewhere.
fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {pos} rows deleted, {per_sec}, {elapsed}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
