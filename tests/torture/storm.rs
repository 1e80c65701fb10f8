//! A storm: writers, replicas, a consumer that reads along, and faults at random, from a seed.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fastrand::Rng;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::time::sleep;

use crate::{
    common::{
        PrivateServices,
        broker::{Broker, Kind},
        database::Database,
        proxy::Proxy,
        relay::{Relay, until},
    },
    consumer::Reader,
    faults::Strike,
    history::{History, Injected, RECOVERY, Verdict},
    writers::{self, Journal, Load},
};

pub const REPLICAS: usize = 3;
const BATCH: usize = 500;
/// What one relay may have published and not settled: its workers' batches.
pub const IN_FLIGHT: usize = 4 * BATCH;
/// How long a backlog may stand still at the end.
const STANDSTILL: Duration = Duration::from_mins(1);

/// What a storm is made of.
pub struct Plan {
    pub kind: Kind,
    pub seed: u64,
    pub events: u64,
    pub keys: u32,
    /// One of so many events cannot be delivered.
    pub poison_every: u32,
    /// In this order.
    pub strikes: Vec<Strike>,
    /// Whether published rows are deleted.
    pub delete: bool,
    /// Whether PostgreSQL and the broker are of its own, and may be restarted.
    pub own_servers: bool,
}

impl Plan {
    /// A calm: so many events, and nothing happens to them.
    pub fn calm(kind: Kind, seed: u64, events: u64) -> Self {
        Self {
            kind,
            seed,
            events,
            keys: 400,
            poison_every: 0,
            strikes: Vec::new(),
            delete: seed.is_multiple_of(2),
            own_servers: false,
        }
    }

    /// So many SIGKILLs with so many of those other strikes between them, shuffled.
    pub fn strikes(mut self, kills: usize, others: usize, menu: &[Strike]) -> Self {
        let mut rng = Rng::with_seed(self.seed);
        self.strikes = vec![Strike::Kill; kills];
        let others = (0..others).map(|i| menu[i % menu.len()]);
        self.strikes.extend(others);
        rng.shuffle(&mut self.strikes);
        self
    }
}

/// What a storm came to.
pub struct Aftermath {
    pub history: History,
    pub verdict: Verdict,
    /// How long relays took to end after SIGTERM, ascending.
    pub stops: Vec<Duration>,
    seed: u64,
    logs: String,
}

impl Aftermath {
    /// Says what it came to.
    ///
    /// # Panics
    /// When the promise was broken, with the first bad event's story.
    pub fn assert_as_promised(&self) {
        let report = self.history.report(&self.verdict);
        if !self.verdict.broken().is_empty() {
            let path = std::env::temp_dir().join(format!("outboxd-storm-{:x}.log", self.seed));
            std::fs::write(&path, &self.logs).unwrap();
            panic!(
                "seed {}\n{report}the relays' logs: {}",
                self.seed,
                path.display()
            );
        }
        println!("seed {}: {report}", self.seed);
    }

    /// The longest stop but for the slowest hundredth.
    pub fn stops_p99(&self) -> Duration {
        let rank = (self.stops.len() * 99).div_ceil(100);
        self.stops[rank.max(1) - 1]
    }
}

/// A storm under way.
pub struct Storm {
    pub rng: Rng,
    pub database: Database,
    pub database_proxy: Proxy,
    pub broker: Broker,
    pub broker_proxy: Option<Proxy>,
    pub faults: Vec<Injected>,
    /// Relays that stand still, and when they are to wake.
    pub frozen: Vec<(Duration, Relay)>,
    relays: Vec<Relay>,
    services: Option<Arc<PrivateServices>>,
    journal: Arc<Journal>,
    reader: Reader,
    flags: Vec<String>,
    stops: Vec<Duration>,
    logs: String,
    /// By the database's clock.
    epoch: f64,
}

impl Plan {
    /// Runs it to the end, and judges.
    pub async fn run(self) -> Aftermath {
        let mut storm = Storm::begin(&self).await;
        let writers = storm.journal.write(&storm.database.url, self.seed);
        for (number, strike) in (1..).zip(&self.strikes) {
            let strikes = self.strikes.len() as u64;
            storm.journal.allow(self.events * number / strikes);
            sleep(Duration::from_millis(storm.rng.u64(50..600))).await;
            storm.wake_frozen().await;
            storm.strike(*strike).await;
            storm.recover().await;
            println!(
                "{:>7.1} s  {number}/{strikes}  {}, {} written, {} arrived",
                storm.now().as_secs_f64(),
                storm.faults.last().map_or("", |fault| &fault.what),
                storm.journal.begun(),
                storm.reader.count(),
            );
        }
        storm.journal.allow(self.events);
        for writer in writers {
            writer.await.unwrap();
        }
        storm.finish(&self).await
    }
}

impl Storm {
    async fn begin(plan: &Plan) -> Self {
        let services = plan.own_servers.then(|| {
            let servers = ["postgres", plan.kind.server()];
            Arc::new(tokio::task::block_in_place(|| {
                PrivateServices::up(&servers)
            }))
        });
        let (database, mut broker) = match &services {
            Some(services) => (
                Database::on(&services.env("TEST_POSTGRES_URL")).await,
                Broker::of(Arc::clone(services), plan.kind),
            ),
            None => (Database::new().await, Broker::shared(plan.kind)),
        };
        writers::prepare(&database).await;
        let topic = broker.destination().await;
        let (database_proxy, url) = database.through_proxy().await;
        let broker_proxy = match services {
            Some(_) => Some(broker.behind_proxy().await),
            None => None,
        };
        let journal = Journal::new(Load {
            events: plan.events,
            keys: plan.keys,
            poison_every: plan.poison_every,
            poison_bytes: 0,
            topic: topic.clone(),
        });
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let reader = Reader::start(&broker, &topic, &journal);
        let mut storm = Self {
            rng: Rng::with_seed(plan.seed),
            flags: flags(&url, &broker, plan.delete),
            database,
            database_proxy,
            broker,
            broker_proxy,
            faults: Vec::new(),
            frozen: Vec::new(),
            relays: Vec::new(),
            services,
            journal,
            reader,
            stops: Vec::new(),
            logs: String::new(),
            epoch: epoch.as_secs_f64(),
        };
        for _ in 0..REPLICAS {
            storm.start_relay();
        }
        storm
    }

    /// Since the beginning.
    pub fn now(&self) -> Duration {
        self.journal.started.elapsed()
    }

    pub fn start_relay(&mut self) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.relays.push(Relay::run(&flags));
    }

    /// Any relay, once it works.
    pub async fn take_relay(&mut self) -> Relay {
        let victim = self.rng.usize(0..self.relays.len());
        let relay = self.relays.swap_remove(victim);
        until("a relay listens", || async {
            relay.get("/livez").await.is_some()
        })
        .await;
        relay
    }

    pub fn keep_log(&mut self, relay: &Relay) {
        let at = self.now();
        let _ = writeln!(self.logs, "=== a relay until {at:?}\n{}", relay.log());
    }

    /// SIGTERM: it must end in order, and soon.
    pub async fn stop_relay(&mut self) -> String {
        let mut relay = self.take_relay().await;
        let started = Instant::now();
        relay.signal("-TERM");
        let status = relay.ended().await;
        self.stops.push(started.elapsed());
        self.keep_log(&relay);
        assert!(status.success(), "{status}\n{}", relay.log());
        self.start_relay();
        format!(" took {:?}", started.elapsed())
    }

    /// Runs statements that may fail for what else is going on.
    pub async fn try_in_database(&self, sql: &str) {
        let mut connection = self.database.connect().await;
        let tried = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        if let Err(error) = tried.execute(&mut connection).await {
            println!("          {error}");
        }
        connection.close().await.unwrap();
    }

    /// Ends a server, and starts it again a little later.
    pub async fn control_server(&mut self, server: &str, how: &str) {
        let services = self.services.as_ref().expect("servers of its own");
        let pause = Duration::from_millis(self.rng.u64(0..3000));
        tokio::task::block_in_place(|| services.run(&[how, server]));
        sleep(pause).await;
        tokio::task::block_in_place(|| services.run(&["start", server]));
    }

    /// Relays whose time has come go on; they end in order, as there is another in their place.
    async fn wake_frozen(&mut self) {
        let now = self.now();
        let (due, frozen) = std::mem::take(&mut self.frozen)
            .into_iter()
            .partition(|(wakes, _)| *wakes <= now);
        self.frozen = frozen;
        let due: Vec<(Duration, Relay)> = due;
        for (_, mut relay) in due {
            let from = self.now();
            relay.signal("-CONT");
            relay.signal("-TERM");
            let status = relay.ended().await;
            assert!(status.success(), "{status}\n{}", relay.log());
            self.keep_log(&relay);
            self.faults.push(Injected {
                what: "a frozen relay woke".into(),
                from,
                until: self.now(),
                echo: RECOVERY,
                may_repeat: IN_FLIGHT,
            });
        }
    }

    /// Waits until something arrives, or nothing is left to.
    async fn recover(&self) {
        let (before, started) = (self.reader.count(), Instant::now());
        while self.reader.count() == before && started.elapsed() < RECOVERY {
            if self.reader.count() as u64 >= self.journal.begun() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn finish(mut self, plan: &Plan) -> Aftermath {
        while let Some(latest) = self.frozen.iter().map(|(wakes, _)| *wakes).max() {
            sleep(latest.saturating_sub(self.now())).await;
            self.wake_frozen().await;
        }
        self.await_the_backlog().await;
        while !self.relays.is_empty() {
            self.stop_relay().await;
            self.relays.pop(); // the one in its place
        }
        let history = History {
            arrivals: self.reader.finish().await,
            written: self.journal.written(),
            rows: writers::ledger(&self.database).await,
            charges: writers::charges(&self.database, self.epoch).await,
            left: writers::left(&self.database, &self.journal, plan.delete).await,
            faults: self.faults,
        };
        let verdict = history.check();
        self.stops.sort_unstable();
        Aftermath {
            history,
            verdict,
            stops: self.stops,
            seed: plan.seed,
            logs: self.logs,
        }
    }

    /// Waits until nothing is pending but what is dead, as long as it becomes less.
    async fn await_the_backlog(&self) {
        let pending = "select count(*) from outbox o where published_at is null
             and not exists (select from outbox_failures f where f.id = o.id and f.state = 'dead')";
        let (mut least, mut since) = (i64::MAX, Instant::now());
        loop {
            let left = self.database.number(pending).await;
            if left < least {
                (least, since) = (left, Instant::now());
            }
            // What stays is what the checker will find.
            if left == 0 || since.elapsed() > STANDSTILL {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn flags(database_url: &str, broker: &Broker, delete: bool) -> Vec<String> {
    let mut flags = vec!["--database-url", database_url];
    flags.extend(broker.flags());
    let batch = BATCH.to_string();
    flags.extend(["--batch-size", &batch]);
    flags.extend(["--publish-timeout", "5s", "--shutdown-timeout", "20s"]);
    flags.extend(["--statement-timeout", "5s", "--lock-timeout", "2s"]);
    flags.extend(["--on-published", if delete { "delete" } else { "mark" }]);
    flags.into_iter().map(Into::into).collect()
}
