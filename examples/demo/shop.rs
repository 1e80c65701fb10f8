//! The application: a shop whose writers commit an order and its events in one transaction, and keep
//! a journal of what they committed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};
use tokio::{task::JoinSet, time::interval};

use crate::Failure;

/// The shop's own tables; the outbox is made by `outboxd migrate`.
const TABLES: &str = "
    create table customers (id text primary key, events bigint not null default 0);
    create table orders (
        id bigint generated always as identity primary key,
        customer text not null references customers,
        cents integer not null
    );
";

const INSERT_CUSTOMERS: &str =
    "insert into customers (id) select 'customer-' || n from generate_series(1, $1) n";

/// Locks the aggregate, so that the writers of one key take turns; gives the number of its earlier
/// events.
const LOCK_CUSTOMER: &str =
    "update customers set events = events + $2 where id = $1 returning events - $2";

/// The order and what others must hear of it. (In one statement only to spare a small machine the
/// round trips: it runs everything else as well.)
const INSERT_ORDER: &str = "
    with placed as (insert into orders (customer, cents) values ($1, $2) returning id)
    insert into outbox (aggregate_type, aggregate_id, event_type, payload)
    select 'customer', $1, event_type,
        jsonb_build_object('order', placed.id, 'sequence', $3 + number)
    from placed, unnest($4::text[]) with ordinality as happened (event_type, number)
    order by number
    returning event_id::text, (payload ->> 'sequence')::bigint
";

const EVENT_TYPES: [&str; 3] = ["OrderPlaced", "OrderPaid", "OrderShipped"];

/// Keys.
pub const CUSTOMERS: u32 = 1_000;
/// Connections that write at the same time.
pub const WRITERS: u32 = 8;
/// How many of a hundred transactions are rolled back on purpose.
pub const ROLLED_BACK_PERCENT: u32 = 5;

/// How much is written.
pub struct Traffic {
    /// Transactions to commit, over all writers.
    pub orders: u32,
    /// Transactions a second, over all writers.
    pub rate: u32,
}

/// How far things are, for all to see.
#[derive(Default)]
pub struct Counts {
    /// Orders committed.
    pub orders: AtomicU64,
    /// Their events.
    pub events: AtomicU64,
    /// Events that have reached the consumer, each counted once.
    pub received: AtomicU64,
}

/// An event that was committed.
pub struct Committed {
    pub event_id: String,
    pub key: String,
    /// The place among its key's events.
    pub sequence: i64,
    /// When its writer sent COMMIT.
    pub at: Instant,
}

/// What the writers did.
#[derive(Default)]
pub struct Journal {
    pub committed: Vec<Committed>,
    /// Events of transactions that were rolled back.
    pub rolled_back: usize,
}

/// Makes the shop's tables.
pub async fn open(database_url: &str) -> Result<(), Failure> {
    let mut connection = PgConnection::connect(database_url).await?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await?;
    sqlx::query(INSERT_CUSTOMERS)
        .bind(i32::try_from(CUSTOMERS)?)
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// Lets all writers do their share.
pub async fn trade(
    database_url: &str,
    traffic: &Traffic,
    counts: &Arc<Counts>,
) -> Result<Journal, Failure> {
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let share = traffic.orders / WRITERS + u32::from(number < traffic.orders % WRITERS);
        let writer = Writer {
            connection: PgConnection::connect(database_url).await?,
            journal: Journal::default(),
        };
        let pause = Duration::from_secs(WRITERS.into()) / traffic.rate;
        writers.spawn(writer.write(share, pause, Arc::clone(counts)));
    }
    let mut journal = Journal::default();
    while let Some(written) = writers.join_next().await {
        let written = written??;
        journal.committed.extend(written.committed);
        journal.rolled_back += written.rolled_back;
    }
    Ok(journal)
}

struct Writer {
    connection: PgConnection,
    journal: Journal,
}

impl Writer {
    async fn write(
        mut self,
        orders: u32,
        pause: Duration,
        counts: Arc<Counts>,
    ) -> Result<Journal, Failure> {
        let mut turns = interval(pause);
        let mut committed = 0;
        while committed < orders {
            turns.tick().await;
            let events = self.order().await?;
            if events > 0 {
                committed += 1;
                counts.orders.fetch_add(1, Ordering::Relaxed);
                counts.events.fetch_add(events, Ordering::Relaxed);
            }
        }
        self.connection.close().await?;
        Ok(self.journal)
    }

    /// One transaction: the order and its events. Gives how many events it committed: none, when it
    /// was one of those to be rolled back.
    async fn order(&mut self) -> Result<u64, Failure> {
        let key = format!("customer-{}", fastrand::u32(1..=CUSTOMERS));
        // Mostly the order is only placed; now and then it is paid, and perhaps sent, at once.
        let events = [1, 1, 1, 1, 1, 1, 1, 1, 2, 3][fastrand::usize(..10)];
        let mut transaction = self.connection.begin().await?;
        let earlier: i64 = sqlx::query_scalar(LOCK_CUSTOMER)
            .bind(&key)
            .bind(i32::try_from(events)?)
            .fetch_one(&mut *transaction)
            .await?;
        let inserted: Vec<(String, i64)> = sqlx::query_as(INSERT_ORDER)
            .bind(&key)
            .bind(fastrand::i32(100..50_000))
            .bind(earlier)
            .bind(&EVENT_TYPES[..events])
            .fetch_all(&mut *transaction)
            .await?;
        if fastrand::u32(..100) < ROLLED_BACK_PERCENT {
            transaction.rollback().await?;
            self.journal.rolled_back += events;
            return Ok(0);
        }
        let at = Instant::now();
        transaction.commit().await?;
        let committed = inserted.into_iter().map(|(event_id, sequence)| Committed {
            event_id,
            key: key.clone(),
            sequence,
            at,
        });
        self.journal.committed.extend(committed);
        Ok(events as u64)
    }
}
