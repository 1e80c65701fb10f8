//! Upkeep: lag and counts for the metrics, the instance's sign of life, pruning, a look around for the
//! status page. One connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{Relay, pace::Backoff};
use crate::outbox::{Cleaned, DbError, EffectsTable, Link, Outbox, PruneCursor};

const TICK: Duration = Duration::from_secs(1);
/// How often to look at lag while there is none.
const QUIET: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Pruning, and the cleaning of each table, may go on for this long before lag is looked at again.
const PRUNING: Duration = Duration::from_millis(500);
/// How often to look for rows to prune when there were none.
const PRUNE_EVERY: Duration = Duration::from_secs(10);
/// How long to leave pruning alone after an error that is not the connection's.
const PRUNE_AGAIN: Duration = Duration::from_mins(10);
/// A table that is not there may be made one day.
const NOT_THERE_FOR: Duration = Duration::from_mins(1);
/// As [`PRUNE_AGAIN`], for looking around.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What upkeep remembers between rounds.
#[derive(Default)]
struct Round {
    heartbeat_at: Option<Instant>,
    /// What the last heartbeat said is paused.
    paused: Vec<String>,
    sample: Look,
    scene: Look,
    pruned_at: Option<Instant>,
    /// When nothing more was found to be cleaned in [`EffectsTable::ALL`].
    cleaned_at: [Option<Instant>; 2],
    cursor: PruneCursor,
}

/// Something that upkeep asks now and then; it may cost a fiftieth of the time at most.
#[derive(Default)]
struct Look {
    at: Option<Instant>,
    took: Duration,
}

impl Look {
    fn is_due(&self, every: Duration) -> bool {
        is_due(self.at, every.max(self.took * 50))
    }

    /// It was begun then, and is over.
    fn ended(&mut self, began: Instant) {
        *self = Self {
            at: Some(began),
            took: began.elapsed(),
        };
    }
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= every)
}

impl Relay {
    pub(super) async fn keep_up(self: Arc<Self>, done: CancellationToken) {
        let mut link = None;
        let mut round = Round::default();
        let mut backoff = Backoff::default();
        while !done.is_cancelled() {
            match self.round(&mut link, &mut round).await {
                Ok(()) => {
                    backoff = Backoff::default();
                    tokio::select! {
                        () = tokio::time::sleep(TICK) => {}
                        () = self.watch.began.notified() => {}
                        () = done.cancelled() => {}
                    }
                }
                Err(error) if error.operation == "prune" && !error.is_unreachable() => {
                    // Delivery goes on without: this is no reason to call the database unusable.
                    link = None;
                    round.pruned_at = Some(Instant::now() + PRUNE_AGAIN);
                    self.metrics.database_error(error.operation);
                    let remedy = if error.is_privilege() {
                        Some("grant DELETE on the outbox, or set --retention 0")
                    } else {
                        error.remedy()
                    };
                    tracing::warn!(%error, remedy, "not pruning for the next minutes");
                }
                Err(error) if error.operation == "scene" && !error.is_unreachable() => {
                    link = None;
                    round.scene.at = Some(Instant::now() + LOOK_AGAIN);
                    self.metrics.database_error(error.operation);
                    self.watch.saw_nothing(error.to_string());
                }
                Err(error) => {
                    link = None;
                    self.metrics.sampled_lag(None);
                    self.failed(&error);
                    backoff.wait(&done).await;
                }
            }
        }
        if let Some(Link { session, .. }) = link {
            session.close().await;
        }
    }

    async fn round(&self, link: &mut Option<Link>, round: &mut Round) -> Result<(), DbError> {
        let link = match link {
            Some(link) => link,
            None => link.insert(self.outbox.link().await?),
        };
        let every = if self.is_quiet() { QUIET } else { TICK };
        if round.sample.is_due(every) {
            let began = Instant::now();
            self.sample(link).await?;
            round.sample.ended(began);
        }
        self.beat(link, round).await?;
        if self.watch.is_watched() && round.scene.is_due(TICK) {
            let began = Instant::now();
            self.watch.saw(self.outbox.scene(link).await?);
            round.scene.ended(began);
        }
        if let Some(retention) = self.settings.retention
            && is_due(round.pruned_at, PRUNE_EVERY)
            && !self.prune(link, &mut round.cursor, retention).await?
        {
            round.pruned_at = Some(Instant::now());
        }
        for (table, cleaned_at) in EffectsTable::ALL.into_iter().zip(&mut round.cleaned_at) {
            if is_due(*cleaned_at, PRUNE_EVERY) {
                *cleaned_at = self.clean(link, table).await?;
            }
        }
        Ok(())
    }

    /// Nothing was pending when last looked at, and claims find nothing.
    fn is_quiet(&self) -> bool {
        let usable = self.health.sink_down().is_none();
        usable && self.metrics.pending_events.get() == 0 && !self.finds_work()
    }

    /// The sign of life; sooner when a destination was paused or resumed, which `status` shows by it.
    async fn beat(&self, link: &mut Link, round: &mut Round) -> Result<(), DbError> {
        let with_reasons = self.health.paused_with_reasons();
        let paused: Vec<String> = with_reasons.iter().map(|(name, _)| name.clone()).collect();
        if !is_due(round.heartbeat_at, HEARTBEAT) && paused == round.paused {
            return Ok(());
        }
        let with_reasons = with_reasons
            .iter()
            .map(|(name, why)| (name.as_str(), why.as_str()));
        self.outbox
            .heartbeat(link, &self.settings.instance, with_reasons)
            .await?;
        round.heartbeat_at = Some(Instant::now());
        round.paused = paused;
        Ok(())
    }

    async fn sample(&self, link: &mut Link) -> Result<(), DbError> {
        let sample = self.outbox.sample(link).await?;
        if self.health.sink_down().is_some() {
            // No worker asks the database meanwhile.
            self.metrics.database_up.set(1);
        }
        self.metrics.sampled_lag(Some(sample.lag));
        self.metrics.pending_events.set(sample.pending_events);
        self.metrics.held_keys.set(sample.held_keys);
        self.metrics.dead_letters.set(sample.dead_letters);
        self.watch.sampled(sample);
        Ok(())
    }

    /// Prunes for a moment; true when there is more to do.
    async fn prune(
        &self,
        link: &mut Link,
        cursor: &mut PruneCursor,
        retention: Duration,
    ) -> Result<bool, DbError> {
        let started = Instant::now();
        let mut overdue = Duration::ZERO;
        while started.elapsed() < PRUNING {
            let step = self.outbox.prune_step(link, cursor, retention).await?;
            overdue = overdue.max(step.overdue);
            self.metrics.prune_lag.set(overdue.as_secs_f64());
            self.metrics.pruned("outbox", step.events);
            self.metrics.pruned("outbox_failures", step.failures);
            if !step.more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes what has expired, for a moment. Gives from when on there may be more, if not now.
    async fn clean(
        &self,
        link: &mut Link,
        table: EffectsTable,
    ) -> Result<Option<Instant>, DbError> {
        let started = Instant::now();
        while started.elapsed() < PRUNING {
            match self.outbox.clean(link, table).await {
                Ok(Cleaned::Deleted { rows, more }) => {
                    self.metrics.pruned(table.as_str(), rows);
                    if !more {
                        return Ok(Some(Instant::now()));
                    }
                }
                Ok(Cleaned::InUse) => return Ok(Some(Instant::now())),
                Ok(Cleaned::NotThere) => return Ok(Some(Instant::now() + NOT_THERE_FOR)),
                Ok(Cleaned::NotGranted(grant)) => {
                    // Looked up beforehand, so that it fails no transaction; to whoever watches it is a refusal.
                    self.metrics.database_error(Outbox::CLEAN);
                    tracing::warn!(remedy = %grant, "not cleaning {}", table.as_str());
                    return Ok(Some(Instant::now() + PRUNE_AGAIN));
                }
                Err(error) if error.is_unreachable() => return Err(error),
                Err(error) => {
                    self.metrics.database_error(error.operation);
                    tracing::warn!(%error, remedy = error.remedy(), "not cleaning {} for the next minutes", table.as_str());
                    return Ok(Some(Instant::now() + PRUNE_AGAIN));
                }
            }
        }
        Ok(None)
    }
}
