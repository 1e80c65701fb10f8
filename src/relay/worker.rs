//! A worker: claim, publish, settle, over and over.
//!
//! # Design notes
//! * Several workers, because one waits for the commit's flush half of its time. Workers beyond the
//!   first join while there is enough for them in a claim (`worth`), and let go of their connection
//!   when there is not: an idle replica holds one connection for this and one for upkeep.
//! * A settlement that fails after publishing is a *debt*: the confirmed ids are kept, and nobody in
//!   this process publishes until they are settled. Otherwise a full disk or a trigger would have the
//!   same batch published for ever.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{
    Relay,
    batch::Turn,
    pace::{Backoff, Poll},
};
use crate::outbox::{Confirmed, DbError, Link};

/// A worker beyond the first retires after this long without enough to do.
const RETIRE_AFTER: Duration = Duration::from_secs(2);
/// A turn that lasts longer does not keep other workers from joining.
const LONG: Duration = Duration::from_millis(500);
/// A claim as full as this is one of many.
const BACKLOG: f64 = 0.5;
/// How long to wait for the sink, for debts or for another worker before looking around again.
pub(super) const MOMENT: Duration = Duration::from_secs(1);

impl Relay {
    /// Runs a worker, and another in its place if it panics.
    pub(super) async fn supervise(self: Arc<Self>, number: usize, stop: CancellationToken) {
        loop {
            let working = Arc::clone(&self).work(number, stop.clone());
            if AssertUnwindSafe(working).catch_unwind().await.is_ok() {
                return;
            }
            tracing::error!(
                worker = number,
                "a worker panicked: this is a bug; its batch is rolled back"
            );
            self.careful.after_panic();
        }
    }

    async fn work(self: Arc<Self>, number: usize, stop: CancellationToken) {
        let mut link = None;
        let mut poll = Poll::new(self.settings.poll_interval);
        let mut backoff = Backoff::default();
        let mut worked_at = None;
        let mut joined = (number == 0).then(|| Joined::new(&self));
        while !stop.is_cancelled() {
            if number == 0 {
                self.progressed();
            } else if worked_at.is_none_or(|at: Instant| at.elapsed() > RETIRE_AFTER)
                || self.careful.is_on()
            {
                joined.take();
                self.retire(number, link.take(), &stop).await;
                joined = Some(Joined::new(&self));
                worked_at = Some(Instant::now());
                continue;
            }
            if !self.health.sink_usable(MOMENT).await || !self.without_debts().await {
                continue;
            }
            let turn = defect!(DropAtShutdown:
                stop.run_until_cancelled(Box::pin(self.turn(&mut link))).await.unwrap_or(Ok(Turn::Idle)),
                else self.turn_in_company(&mut link).await);
            let found = !matches!(turn, Ok(Turn::Idle));
            self.finds_work.store(found, Relaxed);
            match turn {
                Ok(Turn::Worked { fill }) => {
                    backoff = Backoff::default();
                    poll.found_work();
                    // Less than calls it, or it would come and go.
                    if fill >= worth(number) / 4.0 {
                        worked_at = Some(Instant::now());
                    }
                    self.backlog.store(fill >= BACKLOG, Relaxed);
                    self.call(fill);
                }
                Ok(Turn::Idle) => {
                    backoff = Backoff::default();
                    poll.wait(&self.wake, &self.called[number], &stop).await;
                }
                Ok(Turn::Underway) => {
                    backoff.wait(&stop).await;
                }
                Ok(Turn::Owing(confirmed, error, debt)) => {
                    link = None;
                    self.failed(&error);
                    if !defect!(ForgetDebt) {
                        self.pay(&confirmed, debt, &stop).await;
                    }
                }
                Err(error) => {
                    link = None;
                    self.failed(&error);
                    backoff.wait(&stop).await;
                }
            }
        }
        if let Some(Link { session, .. }) = link {
            session.close().await;
        }
    }

    /// A turn; if it lasts, on a slow broker, others are called to see to the lanes it does not hold.
    async fn turn_in_company(&self, link: &mut Option<Link>) -> Result<Turn<'_>, DbError> {
        let mut turn = Box::pin(self.turn(link));
        if let Ok(ended) = tokio::time::timeout(LONG, turn.as_mut()).await {
            return ended;
        }
        self.call(1.0);
        turn.await
    }

    /// Calls the workers that claims of this fill are enough for, from retirement or from waiting.
    fn call(&self, fill: f64) {
        for (number, called) in self.called.iter().enumerate() {
            if fill >= worth(number) {
                // Who misses it hears the next.
                called.notify_waiters();
            }
        }
    }

    /// Waits until there is enough for this worker too, without holding a connection.
    async fn retire(&self, number: usize, link: Option<Link>, stop: &CancellationToken) {
        if let Some(Link { session, .. }) = link {
            session.close().await;
        }
        tokio::select! {
            () = self.called[number].notified() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn without_debts(&self) -> bool {
        let mut debts = self.debts.subscribe();
        let none = async { debts.wait_for(|debts| *debts == 0).await.is_ok() };
        tokio::time::timeout(MOMENT, none).await.unwrap_or(false)
    }

    /// Settles what was confirmed, however long it takes.
    async fn pay(&self, confirmed: &[Confirmed], debt: Debt<'_>, stop: &CancellationToken) {
        tracing::warn!(
            events = confirmed.len(),
            "published events could not be marked: publishing nothing until they are"
        );
        let mut backoff = Backoff::default();
        loop {
            self.progressed();
            let paying = async {
                let mut link = self.outbox.link().await?;
                self.outbox.settle_confirmed(&mut link, confirmed).await?;
                link.session.close().await;
                Ok::<_, DbError>(())
            };
            match paying.await {
                Ok(()) => break,
                Err(error) => self.failed(&error),
            }
            if backoff.wait(stop).await {
                // Told to stop: no wait between attempts would hurry a broken database.
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        self.metrics.published(confirmed.len());
        self.health.succeeded();
        drop(debt);
        tracing::info!(events = confirmed.len(), "published events are marked now");
    }
}

/// How full claims must be for a worker to join; it stays for a quarter of that. The second lets one
/// publish while the other claims, and is worth it as soon as events come in numbers; more of them share
/// a backlog. Under a light load they would only claim each other's scraps: at 5,000 events a second,
/// four workers took twice the CPU of two, and events were twice as long under way.
fn worth(number: usize) -> f64 {
    match number {
        0 => 0.0,
        1 => 1.0 / 512.0,
        _ => 1.0 / 8.0,
    }
}

/// Counts the workers that have joined, in a turn or not: each takes its share of the lanes. (Were it
/// those in a turn at the moment, the first would be alone at first, take all lanes, and leave the others
/// none until they retire.)
struct Joined<'a>(&'a Relay);

impl<'a> Joined<'a> {
    fn new(relay: &'a Relay) -> Self {
        relay.joined.fetch_add(1, Relaxed);
        Self(relay)
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.0.joined.fetch_sub(1, Relaxed);
    }
}

/// Counts those who owe a settlement; after a panic too, when what it owed is sent again.
pub(super) struct Debt<'a>(&'a Relay);

impl<'a> Debt<'a> {
    pub(super) fn new(relay: &'a Relay) -> Self {
        relay.debts.send_modify(|debts| *debts += 1);
        Self(relay)
    }
}

impl Drop for Debt<'_> {
    fn drop(&mut self) {
        self.0.debts.send_modify(|debts| *debts -= 1);
    }
}
