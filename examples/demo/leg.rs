//! One leg of the demo: a database with its writers, a relay, a broker and its consumer.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};
use tokio::time::sleep;
use url::Url;

use crate::{
    Failure,
    common::{
        broker::Broker,
        database,
        relay::{self, Relay},
    },
    consumer::{Consumer, consume},
    metrics::Metrics,
    shop::{self, Counts, Traffic},
    verdict::Verdict,
};

/// How long to wait for events when none arrive any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// The gauges are sampled once a second or so.
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);
/// Whatever a relay sent last has arrived by then.
const QUIET: Duration = Duration::from_secs(1);

const PUBLISHED_TOTAL: &str = "outboxd_published_total";
const PENDING_EVENTS: &str = "outboxd_pending_events";
const DEAD_LETTERS: &str = "outboxd_dead_letters";

/// Names and addresses; nothing exists before [`Leg::start`].
pub struct Leg {
    pub broker: Broker,
    server_url: Url,
    database: String,
    /// Topic or queue.
    destination: String,
    log: PathBuf,
    counts: Arc<Counts>,
}

impl Leg {
    /// A leg with names of its own.
    pub fn new(broker: Broker, server_url: &Url, suffix: &str) -> Self {
        let name = format!("outboxd-demo-{suffix}-{}", broker.sink());
        Self {
            server_url: server_url.clone(),
            database: name.replace('-', "_"),
            destination: name.clone(),
            log: std::env::temp_dir().join(name + ".log"),
            counts: Arc::default(),
            broker,
        }
    }

    /// For [`crate::progress::show`].
    pub fn progress(&self) -> (&'static str, Arc<Counts>) {
        (self.broker.title(), Arc::clone(&self.counts))
    }

    fn database_url(&self) -> String {
        database::url(&self.server_url, &self.database)
    }

    /// Makes database and topic, starts the consumer and the relay.
    pub async fn start(&self, outboxd: &Path) -> Result<Running<'_>, Failure> {
        let started = self.set_up(outboxd).await;
        started.map_err(|error| self.failed(&error))
    }

    async fn set_up(&self, outboxd: &Path) -> Result<Running<'_>, Failure> {
        database::create(&self.server_url, &self.database).await?;
        self.broker.create(&self.destination).await?;
        let url = self.database_url();
        relay::migrate(outboxd, &url, &[])?;
        shop::open(&url).await?;
        let counts = Arc::clone(&self.counts);
        let consumer = consume(&self.broker, &self.destination, counts).await?;
        let [flag, address] = self.broker.flag();
        let topic = &self.destination;
        let settings = ["--database-url", &url, "--topic", topic, flag, address];
        let relay = Relay::start(outboxd, &settings, &File::create(&self.log)?).await?;
        Ok(Running {
            leg: self,
            consumer,
            relay,
        })
    }

    fn failed(&self, error: &Failure) -> Failure {
        format!("{}: {error}", self.broker.title()).into()
    }

    /// Removes database and topic.
    pub async fn clean_up(&self) -> Result<(), Failure> {
        let dropped = database::remove(&self.server_url, &self.database).await;
        let deleted = self.broker.delete(&self.destination).await;
        dropped.and(deleted)
    }

    /// Removes the relay's log, or says where it is.
    pub fn close_log(&self, keep: bool) {
        if !self.log.exists() {
            return;
        }
        if keep {
            eprintln!(
                "The log of the relay to {}: {}",
                self.broker.title(),
                self.log.display()
            );
        } else if let Err(error) = fs::remove_file(&self.log) {
            eprintln!("{}: {error}", self.log.display());
        }
    }
}

/// A leg with its relay and its consumer at work.
pub struct Running<'a> {
    leg: &'a Leg,
    relay: Relay,
    consumer: Consumer,
}

impl Running<'_> {
    /// Lets the writers write, waits for the last event, stops the relay, and compares.
    pub async fn run(self, traffic: &Traffic) -> Result<Results, Failure> {
        let leg = self.leg;
        let compared = self.compare(traffic).await;
        compared.map_err(|error| leg.failed(&error))
    }

    async fn compare(mut self, traffic: &Traffic) -> Result<Results, Failure> {
        let url = self.leg.database_url();
        let journal = shop::trade(&url, traffic, &self.leg.counts).await?;
        self.await_arrivals().await?;
        let metrics = self.settled_metrics(journal.committed.len()).await?;
        let exit = self.relay.stop().await?;
        sleep(QUIET).await;
        let arrivals = self.consumer.finish().await?;
        Ok(Results {
            title: self.leg.broker.title(),
            verdict: Verdict::new(&journal, &arrivals),
            marked: marked(&url).await?,
            metrics,
            exit,
        })
    }

    /// Until everything is there, or nothing comes any more.
    async fn await_arrivals(&mut self) -> Result<(), Failure> {
        let counts = &self.leg.counts;
        let committed = counts.events.load(Ordering::Relaxed);
        let (mut received, mut since) = (0, Instant::now());
        while received < committed && since.elapsed() < PATIENCE {
            self.relay.still_runs()?;
            let now = counts.received.load(Ordering::Relaxed);
            if now > received {
                (received, since) = (now, Instant::now());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The metrics, once the relay has settled what it published and has looked at its backlog.
    async fn settled_metrics(&self, committed: usize) -> Result<Metrics, Failure> {
        let began = Instant::now();
        loop {
            let metrics = Metrics::of(&self.relay).await?;
            let settled = metrics.count(PUBLISHED_TOTAL) == Some(committed)
                && metrics.count(PENDING_EVENTS) == Some(0);
            if settled || began.elapsed() > METRICS_TIMEOUT {
                return Ok(metrics);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// How many rows of the outbox are marked published.
async fn marked(database_url: &str) -> Result<usize, Failure> {
    let mut connection = PgConnection::connect(database_url).await?;
    let marked: i64 = sqlx::query_scalar("select count(published_at) from outbox")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(marked.try_into()?)
}

/// What became of a leg.
pub struct Results {
    pub title: &'static str,
    pub verdict: Verdict,
    /// Rows of the outbox that are marked published.
    pub marked: usize,
    pub metrics: Metrics,
    exit: ExitStatus,
}

impl Results {
    /// What is not as promised.
    pub fn failures(&self) -> Vec<String> {
        let committed = self.verdict.committed;
        let mut failures = self.verdict.broken();
        if self.marked != committed {
            let marked = self.marked;
            failures.push(format!(
                "{marked} marked published, of {committed} committed"
            ));
        }
        for (name, expected) in [
            (PUBLISHED_TOTAL, committed),
            (PENDING_EVENTS, 0),
            (DEAD_LETTERS, 0),
        ] {
            if self.metrics.count(name) != Some(expected) {
                let lines: Vec<&str> = self.metrics.lines(name).collect();
                failures.push(format!("/metrics says {lines:?}, not {expected}"));
            }
        }
        if !self.exit.success() {
            failures.push(format!("the relay ended with {} after SIGTERM", self.exit));
        }
        failures
            .iter()
            .map(|failure| format!("{}: {failure}", self.title))
            .collect()
    }
}
