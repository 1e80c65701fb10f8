//! A storm: writers, replicas, a consumer that reads along, and faults at random, from a seed.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fastrand::Rng;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    aftermath::Aftermath,
    common::{
        PrivateServices,
        broker::Broker,
        database::Database,
        proxy::Proxy,
        relay::{Relay, until},
    },
    consumer::Reader,
    history::{Charge, History, Injected, RECOVERY, Stop},
    ledger,
    plan::Plan,
    watch::Watch,
    writers::{Journal, Load, Poison},
};

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
    /// A destination that is yet to be made.
    late_topic: Option<String>,
    defect: Option<String>,
    relays: Vec<Relay>,
    services: Option<Arc<PrivateServices>>,
    journal: Arc<Journal>,
    readers: Vec<Reader>,
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
        let mut writers = storm.journal.write(&storm.database.url, self.seed);
        if self.backlog {
            storm.journal.allow(self.events);
            join(&mut writers).await;
        }
        for _ in 0..self.replicas {
            storm.start_relay();
        }
        let strikes = u32::try_from(self.strikes.len()).unwrap();
        let watch = self
            .lasts
            .map(|_| Watch::start(&storm.database, storm.pids()));
        if strikes > 0 {
            // Else the first may strike before there is anything to break.
            let first = self.events / u64::from(strikes);
            storm.journal.allow(first.min(1000));
            let started = Instant::now();
            while storm.arrived() == 0 && started.elapsed() < RECOVERY {
                sleep(Duration::from_millis(20)).await;
            }
        }
        for (number, strike) in (1..).zip(&self.strikes) {
            if let Some(lasts) = self.lasts {
                storm.flow(&self, lasts * number / strikes).await;
            } else {
                storm
                    .journal
                    .allow(self.events * u64::from(number) / u64::from(strikes + 1));
                sleep(Duration::from_millis(storm.rng.u64(50..600))).await;
            }
            storm.wake_frozen().await;
            storm.strike(*strike).await;
            storm.recover(self.standstill).await;
            println!(
                "{:>7.1} s  {number}/{strikes}  {}, {} written, {} arrived",
                storm.now().as_secs_f64(),
                storm.faults.last().map_or("", |fault| &fault.what),
                storm.journal.begun(),
                storm.arrived(),
            );
        }
        storm.journal.allow(self.events);
        join(&mut writers).await;
        if let Some(watch) = watch {
            watch.assert_flat().await;
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
        ledger::prepare(&database).await;
        let topic = plan.destination(&broker).await;
        let late_topic = plan.late.then(|| format!("{topic}-late"));
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
            late_topic: late_topic.clone(),
        });
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let readers = vec![Reader::start(&broker, &topic, &journal)];
        Self {
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
            late_topic,
            defect: plan.defect.clone(),
            relays: Vec::new(),
            services,
            journal,
            readers,
            stops: Vec::new(),
            logs: String::new(),
            epoch: epoch.as_secs_f64(),
        }
    }

    /// Since the beginning.
    pub fn now(&self) -> Duration {
        self.journal.started.elapsed()
    }

    fn pids(&self) -> Vec<u32> {
        self.relays.iter().map(Relay::pid).collect()
    }

    pub fn start_relay(&mut self) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let defect = self.defect.as_deref();
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

    /// How often relays could not settle.
    pub async fn settle_errors(&self) -> f64 {
        let mut errors = 0.0;
        for relay in &self.relays {
            let name = r#"outboxd_database_errors_total{operation="settle"}"#;
            errors += relay.metric(name).await;
        }
        errors
    }

    pub fn keep_log(&mut self, relay: &Relay) {
        let at = self.now();
        let _ = writeln!(self.logs, "=== a relay until {at:?}\n{}", relay.log());
    }

    /// SIGTERM: it must end in order, and soon.
    pub async fn stop_relay(&mut self) -> String {
        let relay = self.take_relay().await;
        relay.signal("-TERM");
        self.replace_relay(relay).await
    }

    /// Another relay in the place of one that was told to stop.
    pub async fn replace_relay(&mut self, relay: Relay) -> String {
        let took = self.end_of(relay).await;
        self.start_relay();
        format!(" took {took:?}")
    }

    /// Lets the writers write a few events besides those that the plan has allowed by now; false when all
    /// are written.
    pub fn write_more(&self) -> bool {
        let begun = self.journal.begun();
        self.journal.allow(begun + 20);
        begun < self.journal.load().events
    }

    /// Waits for the end of a relay that has been told to stop.
    async fn end_of(&mut self, mut relay: Relay) -> Duration {
        let at = self.now();
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
            relay.signal("-TERM");
            self.end_of(relay).await;
            self.faults.push(Injected {
                what: "a frozen relay woke".into(),
                from,
                until: self.now(),
                echo: RECOVERY,
                may_repeat: self.in_flight,
            });
        }
    }

    /// Lets events be written evenly, until then.
    async fn flow(&self, plan: &Plan, until: Duration) {
        let lasts = plan.lasts.unwrap_or_default().as_secs_f64();
        while self.now() < until {
            let share = self.now().as_secs_f64() / lasts;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share"
            )]
            self.journal.allow((plan.events as f64 * share) as u64);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until something arrives, or nothing is left to.
    async fn recover(&self, standstill: Duration) {
        let (before, started) = (self.arrived(), Instant::now());
        while self.arrived() == before && started.elapsed() < RECOVERY.min(standstill) {
            if self.pending().await == 0 {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn arrived(&self) -> usize {
        self.readers.iter().map(Reader::count).sum()
    }

    /// Makes the destination that some events have waited for.
    pub async fn create_late(&mut self) {
        if let Some(topic) = self.late_topic.take() {
            self.broker.create(&topic).await;
            let reader = Reader::start(&self.broker, &topic, &self.journal);
            self.readers.push(reader);
        }
    }

    /// Events that can be delivered now.
    async fn pending(&self) -> i64 {
        let late = self.late_topic.as_deref().unwrap_or_default();
        let sql = format!(
            "select count(*) from outbox o where published_at is null and aggregate_type <> '{late}'
                and not exists (select from outbox_failures f where f.state <> 'retrying'
                    and (f.id = o.id or f.holds and f.id < o.id and f.key = o.aggregate_id))"
        );
        let mut connection = self.database.connect().await;
        // Asked often, of a table that the planner may know nothing of.
        let guard = sqlx::raw_sql("set enable_seqscan = off");
        guard.execute(&mut connection).await.unwrap();
        let query = sqlx::query_scalar(AssertSqlSafe(sql));
        query.fetch_one(&mut connection).await.unwrap()
    }

    async fn finish(mut self, plan: &Plan) -> Aftermath {
        while let Some(latest) = self.frozen.iter().map(|(wakes, _)| *wakes).max() {
            sleep(latest.saturating_sub(self.now())).await;
            self.wake_frozen().await;
        }
        self.create_late().await;
        self.await_the_backlog(plan.standstill).await;
        while plan.hold && self.held().await {
            self.change_dead("discard");
            self.await_the_backlog(plan.standstill).await;
        }
        for relay in &self.relays {
            until("every relay is ready again", || async {
                let ready = relay.get("/readyz").await;
                self.defect.is_some() || ready.is_some_and(|(status, _)| status == 200)
            })
            .await;
        }
        while !self.relays.is_empty() {
            let relay = self.take_relay().await;
            relay.signal("-TERM");
            self.end_of(relay).await;
        }
        let mut arrivals = Vec::new();
        for reader in std::mem::take(&mut self.readers) {
            arrivals.extend(reader.finish().await);
        }
        let charges = ledger::charges(&self.database, self.epoch).await;
        if plan.poison != Poison::Unsendable {
            self.faults
                .extend(charges.iter().map(|charge| refusal(charge, self.in_flight)));
        }
        let history = History {
            arrivals,
            written: self.journal.written(),
            rows: ledger::committed(&self.database).await,
            charges,
            stops: self.stops,
            left: ledger::left(&self.database, &self.journal, plan.delete).await,
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

    /// Whether dead events hold back their keys.
    async fn held(&self) -> bool {
        let sql = "select count(*) from outbox_failures where holds and state = 'dead'";
        self.database.number(sql).await > 0
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

async fn join(writers: &mut Vec<JoinHandle<()>>) {
    for writer in writers.drain(..) {
        writer.await.unwrap();
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
