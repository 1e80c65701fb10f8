//! `outboxd prune`: delete published rows past retention, and what has expired, once.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failed, exit, settings};
use crate::outbox::{DbError, Expired, Link, Outbox, PruneCursor, Step, config::ServerArgs};

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
        bar.suspend(|| {
            eprintln!(
                "outboxd: deleted {events} published rows of {table} and {failures} failures without an event"
            );
        });
        let expired = prune_expired(&outbox, &mut link, &bar).await?;
        bar.finish_and_clear();
        say_expired(&expired);
        link.session.close().await;
        Ok(())
    }
}

/// Nothing where there is nothing to say: most have no such tables.
fn say_expired(expired: &Expired) {
    let Expired { keys, inbox, .. } = expired;
    if keys + inbox > 0 {
        eprintln!(
            "outboxd: deleted {keys} expired idempotency keys and {inbox} expired inbox entries"
        );
    }
    for grant in &expired.grants {
        eprintln!("outboxd: warning: what has expired stays until you {grant} to this role");
    }
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

async fn prune_expired(
    outbox: &Outbox,
    link: &mut Link,
    bar: &ProgressBar,
) -> Result<Expired, DbError> {
    let mut all = Expired::default();
    loop {
        let step = outbox.prune_effects(link).await?;
        all.keys += step.keys;
        all.inbox += step.inbox;
        all.grants = step.grants;
        bar.inc(step.keys + step.inbox);
        if !step.more {
            return Ok(all);
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
