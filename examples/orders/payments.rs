//! Takes the payment of each order, exactly once: a broker delivers each event at least once, and may
//! do so again after any failure.
//!
//! A message is acknowledged after the commit of its effect, never before: whoever dies in between gets
//! it again, and `inbox_accept` then tells that its effect has been there. What cannot be paid now is
//! tried again until it can, and holds up what is behind it; so does a message that cannot be read,
//! until somebody has seen to it. Nothing is skipped here. RabbitMQ 4 itself drops what it delivered
//! too often from a quorum queue that was not declared here and has no limit of its own: see README.md.

mod inbox;
mod kafka;
mod rabbitmq;
mod redis;

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use serde::Deserialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{Failure, database, stop};

/// No unique constraint on the order: a second payment must show in the count, not be refused.
const TABLE: &str = "
    create table if not exists payments (
        id bigint generated always as identity primary key,
        order_id bigint not null,
        cents bigint not null,
        paid_at timestamptz not null default now()
    );
";

const INSERT: &str = "insert into payments (order_id, cents) values ($1, $2)";

const CONNECTIONS: u32 = 2;
const LONGEST_TRANSACTION: Duration = Duration::from_secs(30);

/// The events that are payments' business.
const EVENT_TYPE: &str = "OrderPlaced";

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Take the payments of orders
#[derive(Args)]
#[group(skip)]
#[command(group = ArgGroup::new("broker").required(true))]
pub struct PaymentsArgs {
    /// A database with the tables of `outboxd migrate --with effects`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,

    /// As HOST:PORT,…
    #[arg(long, env = "KAFKA_BROKERS", group = "broker")]
    kafka_brokers: Option<String>,

    /// As amqp://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, env = "RABBITMQ_URL", hide_env_values = true, group = "broker")]
    rabbitmq_url: Option<String>,

    /// The Kafka topic or RabbitMQ queue
    #[arg(long, default_value = "orders")]
    topic: String,

    /// The name of this effect, in the inbox and as Kafka consumer group: the same for all replicas
    #[arg(long, default_value = "payments")]
    consumer: String,

    /// Which replica this is, the same after a restart: Kafka then gives it its partitions back at once
    #[arg(long)]
    instance: Option<String>,

    /// What tells that a message has been there
    #[arg(long, value_enum, default_value_t = Dedupe::Inbox)]
    dedupe: Dedupe,

    /// For --dedupe redis
    #[arg(
        long,
        env = "REDIS_URL",
        hide_env_values = true,
        required_if_eq("dedupe", "redis")
    )]
    redis_url: Option<String>,

    /// How long a message is remembered: for longer than the broker may deliver it again
    #[arg(long, default_value = "8days", value_parser = database::interval)]
    keep_for: Duration,

    /// For --dedupe redis: how long one message may take
    #[arg(long, default_value = "30s", value_parser = database::interval)]
    lock_for: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dedupe {
    /// The inbox in PostgreSQL: exactly once
    Inbox,
    /// Marks in Redis: once, unless something goes wrong at a bad moment
    Redis,
}

impl PaymentsArgs {
    /// Consumes until told to stop.
    pub async fn run(self) -> Result<(), Failure> {
        let stop = stop::on_signal()?;
        let pool = database::open(&self.database_url, CONNECTIONS, LONGEST_TRANSACTION).await?;
        database::require(&pool, "inbox_accept").await?;
        database::create_table(&pool, TABLE).await?;
        let payments = Payments {
            guard: self.guard(pool, &stop)?,
            stop,
        };
        say(&json!({ "event": "started", "consumer": self.consumer }));
        match (self.kafka_brokers, self.rabbitmq_url) {
            (Some(brokers), _) => {
                let subscription = kafka::Subscription {
                    brokers,
                    topic: self.topic,
                    group: self.consumer,
                    instance: self.instance,
                };
                kafka::consume(subscription, payments).await
            }
            (None, Some(url)) => rabbitmq::consume(&url, &self.topic, &payments).await,
            (None, None) => Err("no broker is set".into()),
        }
    }

    fn guard(&self, pool: PgPool, stop: &CancellationToken) -> Result<Guard, Failure> {
        Ok(match (self.dedupe, &self.redis_url) {
            (Dedupe::Redis, Some(url)) => Guard::Redis(redis::Marks::new(
                pool,
                url,
                &self.consumer,
                self.lock_for,
                self.keep_for,
                stop.clone(),
            )?),
            (Dedupe::Redis, None) => return Err("--dedupe redis needs --redis-url".into()),
            (Dedupe::Inbox, _) => Guard::Inbox(inbox::Inbox {
                pool,
                consumer: self.consumer.clone(),
                keep_for: self.keep_for,
            }),
        })
    }
}

/// What keeps a message from having its effect twice.
enum Guard {
    Inbox(inbox::Inbox),
    Redis(redis::Marks),
}

/// What a broker delivers.
struct Delivery<'a> {
    id: Option<&'a str>,
    event_type: Option<&'a str>,
    payload: &'a [u8],
}

/// What became of a message.
#[derive(Debug, PartialEq)]
enum Effect {
    Paid,
    /// Its payment had been there before.
    Duplicate,
    /// It tells of something else than a placed order.
    NotOurs,
}

/// An order that is to be paid.
#[derive(Deserialize)]
struct Placed {
    order: i64,
    cents: i64,
}

/// The effect, with what it takes.
struct Payments {
    guard: Guard,
    stop: CancellationToken,
}

impl Payments {
    /// Tries until the message has had its effect: then it may be acknowledged. False when told to stop
    /// before that: it must not be.
    async fn pay_until_done(&self, delivery: Delivery<'_>) -> bool {
        let id = delivery.id;
        let mut pause = FIRST_PAUSE;
        while !self.stop.is_cancelled() {
            match self.pay(&delivery).await {
                Ok(Effect::Paid | Effect::NotOurs) => return true,
                Ok(Effect::Duplicate) => {
                    say(&json!({ "event": "duplicate skipped", "message": id }));
                    return true;
                }
                Err(error) => tracing::warn!(%error, id, "not paid yet, will try again"),
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.stop.cancelled() => {}
            }
        }
        false
    }

    async fn pay(&self, delivery: &Delivery<'_>) -> Result<Effect, Failure> {
        if delivery.event_type != Some(EVENT_TYPE) {
            return Ok(Effect::NotOurs);
        }
        let id = delivery.id.ok_or("the message has no id")?;
        let placed: Placed = serde_json::from_slice(delivery.payload)?;
        match &self.guard {
            Guard::Inbox(inbox) => Ok(inbox.pay(id, &placed).await?),
            Guard::Redis(marks) => marks.pay(id, &placed).await,
        }
    }
}

/// The effect, in its transaction.
async fn insert(transaction: &mut PgConnection, placed: &Placed) -> Result<(), sqlx::Error> {
    sqlx::query(INSERT)
        .bind(placed.order)
        .bind(placed.cents)
        .execute(transaction)
        .await?;
    Ok(())
}

/// One line for each noteworthy thing.
fn say(what: &serde_json::Value) {
    println!("{what}");
}
