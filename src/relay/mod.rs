//! The relay: tasks that claim, publish and settle, and those that watch over them.
//!
//! * [`worker`]: claims, publishes and settles a [`batch`], over and over. One is always there; the
//!   others join while there is enough for them.
//! * [`in_flight`]: lanes that a worker publishes, and no other meanwhile, whatever becomes of its locks.
//! * [`health`]: probes the sink while it cannot be used, and paused destinations.
//! * [`upkeep`]: samples lag, says that the instance is alive, prunes.
//! * [`status`]: what the status page is told.

mod batch;
mod careful;
mod health;
mod in_flight;
mod pace;
mod status;
mod upkeep;
mod worker;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cloudevents::CloudEvents,
    lock::lock,
    metrics::Metrics,
    outbox::{DbError, Outbox},
    settlement::{Policy, Rejections},
    sink::Sink,
};
use careful::Careful;
use health::Health;
use in_flight::InFlight;
use status::Watch;

/// How long each of the last steps of a shutdown may take: none of them decides what was published.
const PARTING: Duration = Duration::from_secs(5);

/// How the relay works; see the settings of the same names.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// This relay's name among its replicas; the same after a restart.
    pub instance: String,
    /// Claims at once, at most.
    pub workers: usize,
    /// Events per claim, at most.
    pub batch_size: usize,
    /// Bytes per claim, at most.
    pub batch_bytes: usize,
    /// Longest wait between two looks at an idle table.
    pub poll_interval: Duration,
    /// Longest a batch may take to be confirmed.
    pub publish_timeout: Duration,
    /// Longest to wait, once told to stop, for what is in flight.
    pub shutdown_timeout: Duration,
    /// How long published rows are kept; `None` never prunes.
    pub retention: Option<Duration>,
    /// Whether to make the tables first.
    pub migrates: bool,
    /// What messages become, unless they are plain.
    pub format: Option<CloudEvents>,
    /// What outcomes lead to.
    pub policy: Policy,
}

/// One relay process's state. Its tasks share it.
pub struct Relay {
    outbox: Outbox,
    sink: Arc<dyn Sink>,
    settings: RelaySettings,
    metrics: Metrics,
    health: Health,
    watch: Watch,
    rejections: Mutex<Rejections>,
    careful: Careful,
    in_flight: InFlight,
    /// Workers with confirmed events that they could not settle: until there are none, nobody publishes.
    debts: watch::Sender<usize>,
    wake: Notify,
    /// By worker: that there is enough for it.
    called: Vec<Notify>,
    joined: AtomicUsize,
    /// Whether the last claim was about full.
    backlog: AtomicBool,
    finds_work: AtomicBool,
    last_turn: Mutex<Instant>,
}

/// Why a relay ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The tables are not as they must be, at start.
    #[error(transparent)]
    Table(#[from] DbError),
    /// What was in flight could not be settled in time; PostgreSQL rolls it back, it is sent again.
    #[error("still busy after --shutdown-timeout: what was in flight will be published again")]
    NotDrained,
}

impl Relay {
    /// Puts the parts together; nothing runs yet.
    ///
    /// # Errors
    /// When metrics cannot be registered: a bug.
    pub fn new(
        outbox: Outbox,
        sink: Arc<dyn Sink>,
        settings: RelaySettings,
    ) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::new(sink.name())?;
        let called = (0..settings.workers).map(|_| Notify::new()).collect();
        Ok(Self {
            outbox,
            sink,
            settings,
            metrics,
            health: Health::new(),
            watch: Watch::new(),
            rejections: Mutex::default(),
            careful: Careful::default(),
            in_flight: InFlight::new(),
            debts: watch::Sender::new(0),
            wake: Notify::new(),
            called,
            joined: AtomicUsize::new(0),
            backlog: AtomicBool::new(true),
            finds_work: AtomicBool::new(true),
            last_turn: Mutex::new(Instant::now()),
        })
    }

    /// Relays until `stop` is cancelled, then settles what is in flight and signs off.
    ///
    /// Waits for a database or broker that is away, at start and later. `&Arc`, since every task
    /// shares the relay.
    ///
    /// # Errors
    /// When the tables are wrong at start, or what was in flight could not be settled in time.
    pub async fn run(self: &Arc<Self>, stop: CancellationToken) -> Result<(), RunError> {
        let Some(registered) = self.register(&stop).await? else {
            return Ok(());
        };
        self.careful.begin(&registered);
        let workers = TaskTracker::new();
        for number in 0..self.settings.workers {
            workers.spawn(Arc::clone(self).supervise(number, stop.clone()));
        }
        workers.close();
        let done = CancellationToken::new();
        let watchers = TaskTracker::new();
        watchers.spawn(Arc::clone(self).watch_health(done.clone()));
        watchers.spawn(Arc::clone(self).keep_up(done.clone()));
        watchers.spawn(Arc::clone(self).keep_history(done.clone()));
        watchers.close();

        stop.cancelled().await;
        tracing::info!("stopping: no more claims, waiting for what is in flight");
        let drained = tokio::time::timeout(self.settings.shutdown_timeout, workers.wait()).await;
        done.cancel();
        // They end between two calls to a server, which may have long deadlines.
        let ended = tokio::time::timeout(PARTING, watchers.wait()).await;
        if ended.is_err() {
            tracing::debug!("a server has not answered yet");
        }
        self.sign_off().await;
        if tokio::time::timeout(PARTING, self.sink.close())
            .await
            .is_err()
        {
            tracing::warn!("the sink did not close in time");
        }
        drained.map_err(|_| RunError::NotDrained)
    }

    /// Makes the tables if it is to, looks at them, and writes this instance's row, waiting for the database as long as it
    /// takes. `None` when stopped meanwhile.
    async fn register(
        &self,
        stop: &CancellationToken,
    ) -> Result<Option<crate::outbox::Registered>, RunError> {
        let mut pace = pace::Backoff::default();
        loop {
            self.progressed();
            let attempt = async {
                if self.settings.migrates {
                    self.outbox.migrate(&[], &[]).await?;
                }
                let mut link = self.outbox.link().await?;
                self.outbox.verify(&mut link).await?;
                self.outbox
                    .register(&mut link, &self.settings.instance)
                    .await
            };
            let attempted = tokio::select! {
                attempted = attempt => attempted,
                () = stop.cancelled() => return Ok(None),
            };
            match attempted {
                Ok(registered) => return Ok(Some(registered)),
                Err(error) if error.is_schema() || error.is_privilege() => return Err(error.into()),
                Err(error) => {
                    self.failed(&error);
                    if pace.wait(stop).await {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn sign_off(&self) {
        let signing_off = async {
            let mut link = self.outbox.link().await?;
            self.outbox
                .sign_off(&mut link, &self.settings.instance)
                .await
        };
        match tokio::time::timeout(PARTING, signing_off).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not mark this instance as cleanly stopped");
            }
            Err(_) => tracing::warn!("no time to mark this instance as cleanly stopped"),
        }
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The outbox.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Looks at the table now instead of at the next poll.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether the loop makes progress. Never false because a broker or database is away: every call
    /// to either has a deadline, and the loop turns after it.
    pub fn is_alive(&self) -> bool {
        let last = *lock(&self.last_turn);
        let longest = self.settings.poll_interval
            + self.settings.publish_timeout
            + self.outbox.longest_settlement()
            + Duration::from_secs(30);
        last.elapsed() < longest
    }

    /// Why the relay cannot publish at the moment, if it cannot.
    pub fn unready(&self) -> Option<String> {
        let mut reasons = Vec::new();
        if self.metrics.database_up.get() == 0 {
            reasons.push("the database cannot be used".to_owned());
        }
        if let Some(detail) = self.health.sink_down() {
            reasons.push(format!("the sink cannot be used: {detail}"));
        }
        if *self.debts.borrow() > 0 {
            reasons.push("published events could not be marked yet".to_owned());
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Whether the last claim found something, and the sink can be used.
    pub fn finds_work(&self) -> bool {
        self.finds_work.load(Relaxed) && self.health.sink_down().is_none()
    }

    fn progressed(&self) {
        *lock(&self.last_turn) = Instant::now();
    }

    /// A database operation failed: say so, once, and forget what was believed about the table.
    fn failed(&self, error: &DbError) {
        self.metrics.database_error(error.operation);
        self.metrics.database_up.set(0);
        self.metrics.sampled_lag(None);
        self.watch.database_failed(error.to_string());
        self.outbox.fall();
        tracing::error!(%error, remedy = error.remedy(), operation = error.operation, "the database said no");
    }

    /// Lanes that one claim may take: its share among the workers that have joined. In a backlog, among
    /// all workers: a few lanes fill a batch then, and who takes more keeps other replicas idle.
    fn share_of_lanes(&self) -> usize {
        let joined = self.joined.load(Relaxed).max(1);
        let sharing = if self.backlog.load(Relaxed) {
            joined.max(self.settings.workers)
        } else {
            joined
        };
        crate::outbox::LANES.div_ceil(sharing)
    }
}
