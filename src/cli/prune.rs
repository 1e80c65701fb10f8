//! `outboxd prune`: delete published rows past retention, and what has expired, once.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failed, exit, settings};
use crate::outbox::{
    Cleaned, DbError, EffectsTable, Link, Outbox, PruneCursor, Step, config::ServerArgs,
};

/// Delete published rows past retention
///
/// `outboxd run` does this continuously; this is for relays that run with --retention 0, and for
/// catching up. Pending rows and dead letters are never deleted, nor are rows of a table with a mapping. With the tables of `outboxd migrate
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
        let bar = spinner();
        let published = prune_published(&outbox, &mut link, retention, &bar).await?;
        let table = config.names.display();
        let Some(Step {
            events, failures, ..
        }) = published
        else {
            bar.finish_and_clear();
            return Err(Failed::new(
                exit::FAILURE,
                format!("another outboxd prunes {table} at this moment: try again"),
            ));
        };
        let rows = if config.mapping.is_own() {
            format!("{events} published rows of {table}")
        } else {
            format!("no rows of {table}, which are its owner's to delete,")
        };
        bar.suspend(|| {
            eprintln!("outboxd: deleted {rows} and {failures} failures without an event");
        });
        for table in EffectsTable::ALL {
            clean(&outbox, &mut link, table, &bar).await?;
        }
        bar.finish_and_clear();
        link.session.close().await;
        Ok(())
    }
}

/// Says what it did, and nothing where there is no such table.
async fn clean(
    outbox: &Outbox,
    link: &mut Link,
    table: EffectsTable,
    bar: &ProgressBar,
) -> Result<(), DbError> {
    let name = table.as_str();
    let mut all = 0;
    let done = loop {
        match outbox.clean(link, table).await? {
            Cleaned::Deleted { rows, more } => {
                all += rows;
                bar.inc(rows);
                if !more {
                    break format!("deleted {all} expired rows of {name}");
                }
            }
            Cleaned::NotThere => return Ok(()),
            Cleaned::NotGranted(grant) => {
                break format!(
                    "warning: what has expired in {name} stays until you {grant} to this role"
                );
            }
            Cleaned::InUse => {
                break format!(
                    "deleted {all} expired rows of {name}: somebody else holds the table now"
                );
            }
        }
    };
    bar.suspend(|| eprintln!("outboxd: {done}"));
    Ok(())
}

/// `None` while somebody else does it.
async fn prune_published(
    outbox: &Outbox,
    link: &mut Link,
    retention: Duration,
    bar: &ProgressBar,
) -> Result<Option<Step>, DbError> {
    let mut cursor = PruneCursor::default();
    let mut all = Step::default();
    loop {
        let step = outbox.prune_step(link, &mut cursor, retention).await?;
        if step.elsewhere {
            return Ok(None);
        }
        all.events += step.events;
        all.failures += step.failures;
        bar.inc(step.events);
        if !step.more {
            return Ok(Some(all));
        }
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
