//! Whether the sink and its destinations can be used: breakers, and the probes that close them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Relay;
use crate::breaker::{Outage, Pauses};
use crate::lock::lock;

/// An idle relay asks this often whether its sink is still there.
const IDLE_PROBE: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(200);

pub(super) struct Health {
    /// Why the sink cannot be used; `None` while it can.
    down: watch::Sender<Option<String>>,
    pauses: Mutex<Pauses>,
    /// When the broker answered last.
    heard_at: Mutex<Instant>,
    published: AtomicBool,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            down: watch::Sender::new(Some("not asked yet".into())),
            pauses: Mutex::default(),
            heard_at: Mutex::new(Instant::now()),
            published: AtomicBool::new(false),
        }
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        lock(&self.pauses)
    }

    pub(super) fn sink_down(&self) -> Option<String> {
        self.down.borrow().clone()
    }

    /// Waits until the sink can be used; false when that takes longer than a moment.
    pub(super) async fn sink_usable(&self, moment: Duration) -> bool {
        let mut down = self.down.subscribe();
        let usable = async { down.wait_for(Option::is_none).await.is_ok() };
        tokio::time::timeout(moment, usable).await.unwrap_or(false)
    }

    /// The broker confirmed something: no need to ask.
    pub(super) fn succeeded(&self) {
        self.published.store(true, Relaxed);
        self.heard();
    }

    /// Whether anything was published since this was asked last.
    fn take_published(&self) -> bool {
        self.published.swap(false, Relaxed)
    }

    fn heard(&self) {
        let mut at = lock(&self.heard_at);
        *at = Instant::now();
    }

    fn is_quiet(&self) -> bool {
        lock(&self.heard_at).elapsed() > IDLE_PROBE
    }

    /// Names of paused destinations.
    pub(super) fn paused(&self) -> Vec<String> {
        self.pauses()
            .paused()
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Paused destinations and why.
    pub(super) fn paused_with_reasons(&self) -> Vec<(String, String)> {
        self.pauses()
            .paused()
            .map(|(name, why)| (name.to_owned(), why.to_owned()))
            .collect()
    }
}

impl Relay {
    /// Opens the sink's breaker.
    pub(super) fn sink_failed(&self, detail: String) {
        self.metrics.sink_up.set(0);
        self.health.down.send_modify(|down| {
            // Once per trouble, the one at the start included.
            if down.as_ref() != Some(&detail) {
                tracing::warn!(sink = self.sink.name(), %detail, "the sink cannot be used: not claiming until it can");
            }
            *down = Some(detail);
        });
    }

    /// Opens a destination's breaker.
    pub(super) fn pause(&self, destination: &str, detail: &str) {
        let mut pauses = self.health.pauses();
        if pauses.pause(destination, detail, Instant::now()) {
            tracing::warn!(destination, %detail, "destination paused: its events wait, nobody is charged");
        }
        self.metrics
            .paused_destinations
            .set(gauge(pauses.paused().count()));
    }

    /// Probes a sink that is down or silent, and paused destinations.
    pub(super) async fn watch_health(self: Arc<Self>, done: CancellationToken) {
        let mut outage = Outage::default();
        loop {
            let down = self.health.sink_down().is_some();
            let wait = if down { outage.wait() } else { TICK };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = done.cancelled() => return,
            }
            if self.health.take_published() {
                outage.ended();
            }
            if self.health.sink_down().is_some() != down {
                continue; // it has just failed: wait as is due
            }
            let blocked = self.sink.blocked();
            self.metrics.sink_blocked.set(blocked.into());
            if down || blocked || self.health.is_quiet() {
                let usable = self.probe().await;
                if down || !usable {
                    outage.probed();
                }
            }
            if self.health.sink_down().is_none() {
                self.probe_destinations().await;
            }
        }
    }

    async fn probe(&self) -> bool {
        match tokio::time::timeout(PROBE_TIMEOUT, self.sink.probe()).await {
            Ok(Ok(())) => {
                self.health.heard();
                self.metrics.sink_up.set(1);
                let was_down = self.health.down.send_replace(None).is_some();
                if was_down {
                    tracing::info!(sink = self.sink.name(), "the sink can be used");
                    self.wake();
                }
                true
            }
            Ok(Err(unavailable)) => {
                self.sink_failed(unavailable.detail);
                false
            }
            Err(_) => {
                self.sink_failed(format!(
                    "no answer within {}",
                    humantime::format_duration(PROBE_TIMEOUT)
                ));
                false
            }
        }
    }

    /// Resumes destinations that can be used again.
    async fn probe_destinations(&self) {
        let due = self.health.pauses().due(Instant::now());
        for destination in due {
            let answer =
                tokio::time::timeout(PROBE_TIMEOUT, self.sink.probe_destination(&destination))
                    .await;
            match answer {
                Ok(Ok(())) => {
                    let mut pauses = self.health.pauses();
                    pauses.resume(&destination, Instant::now());
                    self.metrics
                        .paused_destinations
                        .set(gauge(pauses.paused().count()));
                    drop(pauses);
                    tracing::info!(destination, "destination resumed");
                    // Its rows may lie below the floors.
                    self.outbox.fall();
                    self.wake();
                }
                Ok(Err(unavailable)) => self.pause(&destination, &unavailable.detail),
                Err(_) => self.pause(&destination, "no answer to the probe"),
            }
        }
    }
}

pub(super) fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
