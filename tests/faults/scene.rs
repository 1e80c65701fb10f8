//! A relay at work between a database and a broker, to be disturbed.

use std::time::{Duration, Instant};

use crate::common::{
    broker::{Broker, Delivery, assert_complete_and_in_order},
    database::Database,
    relay::{PATIENCE, Relay, until},
};

const KEYS: usize = 20;
const WORKERS: usize = 2;
const BATCH: usize = 50;

/// The relay, and what it has to deliver.
pub struct Scene {
    pub database: Database,
    pub broker: Broker,
    pub topic: String,
    pub relay: Relay,
    written: i64,
    faults: usize,
}

impl Scene {
    /// A relay at work, that reaches the database over `url`.
    pub async fn new(database: Database, url: &str, broker: Broker, flags: &[&str]) -> Self {
        let topic = broker.destination().await;
        Self::to(topic, database, url, broker, flags).await
    }

    /// The same for a destination that is there.
    pub async fn to(
        topic: String,
        database: Database,
        url: &str,
        broker: Broker,
        flags: &[&str],
    ) -> Self {
        let (workers, batch) = (WORKERS.to_string(), BATCH.to_string());
        let flags = [
            &["--database-url", url][..],
            &broker.flags(),
            &["--workers", &workers, "--batch-size", &batch],
            // So that what does not answer is noticed soon.
            &["--publish-timeout", "4s", "--shutdown-timeout", "20s"],
            &["--statement-timeout", "1s", "--lock-timeout", "500ms"],
            flags,
        ]
        .concat();
        let relay = Relay::run(&flags).ready().await;
        Self {
            database,
            broker,
            topic,
            relay,
            written: 0,
            faults: 0,
        }
    }

    /// Writes that many events; the payload is the number.
    pub async fn write(&mut self, count: i64) {
        let sql = self.writing(count);
        self.database.execute(&sql).await;
    }

    /// The statement that does so.
    pub fn writing(&mut self, count: i64) -> String {
        let (first, topic) = (self.written + 1, &self.topic);
        self.written += count;
        format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
             select '{topic}', 'key-' || n % {KEYS}, 'Tested', to_jsonb(n) from generate_series({first}, {}) n",
            self.written
        )
    }

    /// Writes one event of a key of its own, with a header of that size that does not compress.
    pub async fn write_large(&mut self, bytes: usize) {
        self.written += 1;
        let (number, topic) = (self.written, &self.topic);
        let sql = format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload, headers) \
             select '{topic}', 'large', 'Tested', to_jsonb({number}), jsonb_build_object('pad', string_agg(md5(i::text), '')) \
               from generate_series(1, {bytes} / 32) i"
        );
        self.database.execute(&sql).await;
    }

    /// Waits until the destination is paused.
    pub async fn pauses(&self) {
        until("the destination is paused and the relay ready", || async {
            self.relay.metric("outboxd_paused_destinations").await == 1.0 && self.is_ready().await
        })
        .await;
    }

    /// Waits until the relay is in the midst of a backlog.
    pub async fn load(&mut self) {
        let before = self.published().await;
        self.write(1000).await;
        until("it flows", || async { self.published().await > before }).await;
    }

    /// Counts a fault, around which what was in flight may be sent again.
    pub fn begin(&mut self) {
        self.faults += 1;
    }

    /// How many answers of the broker there were.
    pub async fn answered(&self) -> f64 {
        let metrics = self.relay.metrics().await;
        let attempts = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("outboxd_publish_attempts_total"));
        attempts.map(|(_, value)| value).sum()
    }

    async fn published(&self) -> f64 {
        let name = format!(
            "outboxd_published_total{{sink=\"{}\"}}",
            self.broker.label()
        );
        self.relay.metric(&name).await
    }

    /// Waits until the relay says that it cannot use something: `database_up`, `sink_up`.
    pub async fn misses(&self, what: &str) {
        let metric = format!("outboxd_{what}");
        until(&format!("{what} is 0 and the relay not ready"), || async {
            self.relay.metric(&metric).await == 0.0 && !self.is_ready().await
        })
        .await;
        assert_eq!(self.relay.get("/livez").await.unwrap().0, 200);
    }

    async fn is_ready(&self) -> bool {
        let (status, body) = self.relay.get("/readyz").await.unwrap();
        assert!([200, 503].contains(&status), "{status}: {body}");
        status == 200
    }

    /// A private broker is killed under load, and comes back.
    pub async fn survives_the_brokers_death(&mut self) {
        self.load().await;
        self.begin();
        self.broker.control("kill");
        self.write(200).await;
        self.misses("sink_up").await;
        self.broker.control("start");
        self.recovers("the death of the broker").await;
    }

    /// Waits until everything is delivered by the same process, and says how long that took.
    pub async fn recovers(&mut self, from: &str) {
        let started = Instant::now();
        loop {
            let (ready, pending) = (
                self.relay.get("/readyz").await,
                self.database.pending().await,
            );
            if ready.as_ref().is_some_and(|(status, _)| *status == 200) && pending == 0 {
                break;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "no recovery from {from}: {pending} pending, readiness {ready:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(self.relay.is_running());
        let failures = "select count(*) from outbox_failures";
        assert_eq!(self.database.number(failures).await, 0, "{from}: charged");
        eprintln!("{from}: recovered in {:?}", started.elapsed());
    }

    /// Stops the relay and looks at what arrived. Gives the number of duplicates: for each fault no
    /// more than what was in flight.
    pub async fn ends(self) -> usize {
        let log = self.relay.log();
        let (deliveries, written, faults) = self.deliveries().await;
        let duplicates = assert_complete_and_in_order(&deliveries, written);
        let most = faults * WORKERS * BATCH;
        assert!(
            duplicates <= most,
            "{duplicates} duplicates of at most {most}; log:\n{log}"
        );
        eprintln!("{written} events, {faults} faults, {duplicates} duplicates");
        duplicates
    }

    /// Stops the relay; what arrived, how much was written, and how many faults there were.
    pub async fn deliveries(self) -> (Vec<Delivery>, i64, usize) {
        assert!(self.relay.stop().await.success());
        let deliveries = self.broker.read(&self.topic).await;
        (deliveries, self.written, self.faults)
    }
}
