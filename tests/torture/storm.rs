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
        kafka,
        proxy::Proxy,
        rabbitmq,
        relay::{Relay, until},
        unique,
    },
    consumer::{self, Reader},
    faults::Strike,
    history::{Charge, History, Injected, RECOVERY, Stop, Verdict},
    writers::{self, Journal, Load, Poison},
};

/// What a storm is made of.
pub struct Plan {
    pub kind: Kind,
    pub seed: u64,
    pub events: u64,
    pub keys: u32,
    /// One of so many events cannot be delivered.
    pub poison_every: u32,
    pub poison: Poison,
    /// In this order.
    pub strikes: Vec<Strike>,
    /// Whether published rows are deleted.
    pub delete: bool,
    /// Whether PostgreSQL and the broker are of its own, and may be restarted.
    pub own_servers: bool,
    /// Whether there is a proxy before the broker.
    pub broker_proxied: bool,
    /// RabbitMQ: how many events the queue takes before it refuses more.
    pub room: Option<u32>,
    pub replicas: usize,
    /// Of each relay.
    pub workers: usize,
    pub batch: usize,
    /// Further settings of the relays.
    pub settings: &'static [&'static str],
    /// The relays' deliberate defect, if any: see `src/defects.rs`.
    pub defect: Option<String>,
    /// How long a backlog may stand still at the end.
    pub standstill: Duration,
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
            poison: Poison::Unsendable,
            broker_proxied: false,
            room: None,
            replicas: 3,
            workers: 4,
            batch: 500,
            settings: &[],
            defect: None,
            standstill: Duration::from_mins(1),
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

impl Plan {
    async fn destination(&self, broker: &Broker) -> String {
        let name = unique("storm");
        match (self.poison, self.room) {
            (Poison::TooLarge(bytes), _) => {
                let limit = (bytes * 2 / 3).to_string();
                let settings = [("max.message.bytes", limit.as_str())];
                kafka::create_topic(&broker.address, &name, consumer::PARTITIONS, &settings).await;
            }
            (_, Some(room)) => broker.create_refusing(&name, room).await,
            _ => broker.create(&name).await,
        }
        if self.kind == Kind::Rabbitmq {
            rabbitmq::bind(&broker.address, &name).await;
        }
        name
    }

    fn flags(&self, database_url: &str, broker: &Broker) -> Vec<String> {
        let (batch, workers) = (self.batch.to_string(), self.workers.to_string());
        let mut flags = vec!["--database-url", database_url];
        flags.extend(broker.flags());
        flags.extend(["--batch-size", &batch, "--workers", &workers]);
        if !self.settings.contains(&"--publish-timeout") {
            flags.extend(["--publish-timeout", "5s"]);
        }
        flags.extend(["--shutdown-timeout", "20s"]);
        flags.extend(["--statement-timeout", "5s", "--lock-timeout", "2s"]);
        let on_published = if self.delete { "delete" } else { "mark" };
        flags.extend(["--on-published", on_published]);
        flags.extend(self.settings);
        flags.into_iter().map(Into::into).collect()
    }
}

/// What a storm came to.
pub struct Aftermath {
    pub history: History,
    pub verdict: Verdict,
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
        let stops = &self.history.stops;
        let mut took: Vec<Duration> = stops.iter().map(|stop| stop.took).collect();
        took.sort_unstable();
        took[(took.len() * 99).div_ceil(100).max(1) - 1]
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
    /// Relays that stand still for good.
    pub lost: Vec<Relay>,
    pub replicas: usize,
    /// What one relay may have published and not settled: its workers' batches.
    pub in_flight: usize,
    pub topic: String,
    environment: Option<String>,
    relays: Vec<Relay>,
    services: Option<Arc<PrivateServices>>,
    journal: Arc<Journal>,
    reader: Reader,
    flags: Vec<String>,
    stops: Vec<Stop>,
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
        let topic = plan.destination(&broker).await;
        let (database_proxy, url) = database.through_proxy().await;
        let broker_proxy = if plan.broker_proxied || plan.own_servers {
            Some(broker.behind_proxy().await)
        } else {
            None
        };
        let journal = Journal::new(Load {
            events: plan.events,
            keys: plan.keys,
            poison_every: plan.poison_every,
            poison: plan.poison,
            refusable: plan.room.is_some(),
            topic: topic.clone(),
        });
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let reader = Reader::start(&broker, &topic, &journal);
        let mut storm = Self {
            rng: Rng::with_seed(plan.seed),
            flags: plan.flags(&url, &broker),
            database,
            database_proxy,
            broker,
            broker_proxy,
            faults: Vec::new(),
            frozen: Vec::new(),
            lost: Vec::new(),
            replicas: plan.replicas,
            in_flight: plan.workers * plan.batch,
            topic,
            environment: plan.defect.clone(),
            relays: Vec::new(),
            services,
            journal,
            reader,
            stops: Vec::new(),
            logs: String::new(),
            epoch: epoch.as_secs_f64(),
        };
        for _ in 0..plan.replicas {
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
        let defect = self.environment.as_deref();
        let environment = defect.map(|defect| ("OUTBOXD_DEFECT", defect));
        let relay = Relay::run_in(environment.as_slice(), &flags);
        self.relays.push(relay);
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
        let relay = self.take_relay().await;
        let took = self.end_relay(relay).await;
        self.start_relay();
        format!(" took {took:?}")
    }

    async fn end_relay(&mut self, mut relay: Relay) -> Duration {
        let at = self.now();
        relay.signal("-TERM");
        let orderly = relay.ended().await.success();
        let took = self.now().saturating_sub(at);
        self.stops.push(Stop { at, took, orderly });
        self.keep_log(&relay);
        took
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
        for (_, relay) in due {
            let from = self.now();
            relay.signal("-CONT");
            self.end_relay(relay).await;
            self.faults.push(Injected {
                what: "a frozen relay woke".into(),
                from,
                until: self.now(),
                echo: RECOVERY,
                may_repeat: self.in_flight,
            });
        }
    }

    /// Waits until something arrives, or nothing is left to.
    async fn recover(&self) {
        let (before, started) = (self.reader.count(), Instant::now());
        while self.reader.count() == before && started.elapsed() < RECOVERY {
            if self.pending().await == 0 {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Events that are neither published nor dead.
    async fn pending(&self) -> i64 {
        let sql = "select count(*) from outbox o where published_at is null
             and not exists (select from outbox_failures f where f.id = o.id and f.state = 'dead')";
        self.database.number(sql).await
    }

    async fn finish(mut self, plan: &Plan) -> Aftermath {
        while let Some(latest) = self.frozen.iter().map(|(wakes, _)| *wakes).max() {
            sleep(latest.saturating_sub(self.now())).await;
            self.wake_frozen().await;
        }
        self.await_the_backlog(plan.standstill).await;
        while !self.relays.is_empty() {
            let relay = self.take_relay().await;
            self.end_relay(relay).await;
        }
        let charges = writers::charges(&self.database, self.epoch).await;
        if plan.poison != Poison::Unsendable {
            self.faults
                .extend(charges.iter().map(|charge| refusal(charge, self.in_flight)));
        }
        let history = History {
            arrivals: self.reader.finish().await,
            written: self.journal.written(),
            rows: writers::ledger(&self.database).await,
            charges,
            stops: self.stops,
            left: writers::left(&self.database, &self.journal, plan.delete).await,
            faults: self.faults,
        };
        let verdict = history.check();
        Aftermath {
            history,
            verdict,
            seed: plan.seed,
            logs: self.logs,
        }
    }

    /// Waits until nothing is pending but what is dead, as long as it becomes less.
    async fn await_the_backlog(&self, standstill: Duration) {
        let (mut least, mut since) = (i64::MAX, Instant::now());
        loop {
            let left = self.pending().await;
            if left < least {
                (least, since) = (left, Instant::now());
            }
            // What stays is what the checker will find.
            if left == 0 || since.elapsed() > standstill {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A message that the broker refuses takes its connection's or producer's others with it, which are
/// sent again.
fn refusal(charge: &Charge, in_flight: usize) -> Injected {
    Injected {
        what: format!("the broker refused event {}", charge.number),
        from: charge.at.saturating_sub(Duration::from_secs(2)),
        until: charge.at,
        echo: Duration::from_secs(2),
        may_repeat: in_flight,
    }
}
