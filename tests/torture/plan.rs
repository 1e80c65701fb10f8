//! What a storm is made of.

use std::time::Duration;

use fastrand::Rng;

use crate::{
    common::{
        broker::{Broker, Kind},
        kafka, rabbitmq, unique,
    },
    consumer,
    faults::Strike,
    writers::Poison,
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
    /// Whether dead events hold back their keys, until they are discarded.
    pub hold: bool,
    /// Whether some keys go to a destination that is made in the midst of it.
    pub late: bool,
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
    /// How long a backlog may stand still.
    pub standstill: Duration,
    /// Whether everything is written before the relays start.
    pub backlog: bool,
    /// How long the events and strikes are to take; as they come, if not given.
    pub lasts: Option<Duration>,
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
            hold: false,
            late: false,
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
            backlog: false,
            lasts: None,
        }
    }

    /// So many SIGKILLs with so many of those other strikes between them, shuffled.
    pub fn strikes(mut self, kills: usize, others: usize, menu: &[Strike]) -> Self {
        let mut rng = Rng::with_seed(self.seed);
        self.strikes = vec![Strike::Kill; kills];
        let others = (0..others).map(|i| menu[i % menu.len()]);
        self.strikes.extend(others);
        self.strikes.extend(self.late.then_some(Strike::CreateLate));
        rng.shuffle(&mut self.strikes);
        self
    }

    /// Makes a destination, such as the plan wants it.
    pub async fn destination(&self, broker: &Broker) -> String {
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

    /// The relays' settings.
    pub fn flags(&self, database_url: &str, broker: &Broker) -> Vec<String> {
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
        flags.extend(["--on-dead", if self.hold { "hold" } else { "continue" }]);
        flags.extend(self.settings);
        flags.into_iter().map(Into::into).collect()
    }
}
