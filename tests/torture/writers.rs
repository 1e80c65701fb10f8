//! Services that write events, and note of each what became of it.
//!
//! Most keys belong to one writer; some are shared, and whoever writes to one locks its aggregate
//! first: so writers of a key take turns, as the promise wants it. Some transactions are rolled back,
//! some commit late. Every event has a row in `ledger` that was written along with it: whether an
//! event was committed is what that table says, also when COMMIT got no answer.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use sqlx::{Connection as _, PgConnection};

use crate::history::{Fate, Written};

/// Writers at once.
const WRITERS: u32 = 4;
/// Keys that all writers write to, in turns; the others belong to one writer each.
pub const SHARED_KEYS: u32 = 8;
/// Events in a transaction, at most.
const MOST: u32 = 8;

/// How to write.
#[derive(Debug, Clone)]
pub struct Load {
    pub events: u64,
    pub keys: u32,
    /// One of so many events cannot be delivered; 0 for none.
    pub poison_every: u32,
    pub topic: String,
    /// Where the events of one key in ten go instead.
    pub late_topic: Option<String>,
    pub poison: Poison,
    /// Whether the destination may refuse any event for a while.
    pub refusable: bool,
}

/// What keeps an event from being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// Headers that cannot be sent.
    Unsendable,
    /// So many bytes more than others, which the broker refuses.
    TooLarge(usize),
    /// A header that RabbitMQ takes for its own, and closes the channel over.
    ClosesChannel,
}

impl Poison {
    fn pad_bytes(self) -> usize {
        match self {
            Self::TooLarge(bytes) => bytes,
            Self::Unsendable | Self::ClosesChannel => 0,
        }
    }

    fn headers(self, number: u64) -> String {
        match self {
            Self::Unsendable => format!(r#"{{"": "{number}"}}"#),
            Self::TooLarge(_) => headers(number),
            Self::ClosesChannel => format!(r#"{{"n": "{number}", "CC": "no list"}}"#),
        }
    }
}

fn headers(number: u64) -> String {
    format!(r#"{{"n": "{number}"}}"#)
}

impl Load {
    fn topic(&self, key: u32) -> &str {
        let late = self.late_topic.as_ref().filter(|_| key % 10 == 9);
        late.unwrap_or(&self.topic)
    }

    fn payload(&self, number: u64, poison: bool) -> String {
        payload(number, if poison { self.poison.pad_bytes() } else { 0 })
    }
}

/// The journal of all writers, and how far they may go.
pub struct Journal {
    pub started: Instant,
    load: Load,
    events: Mutex<Vec<Option<Written>>>,
    next: AtomicU64,
    /// Writers wait when they have written that many.
    allowed: AtomicU64,
}

/// What an event's payload is, as PostgreSQL writes jsonb.
pub fn payload(number: u64, pad_bytes: usize) -> String {
    let mut rng = Rng::with_seed(number);
    let pad: String = (0..80 + pad_bytes).map(|_| rng.alphanumeric()).collect();
    format!(r#"{{"n": {number}, "pad": "{pad}"}}"#)
}

/// An event's id, from its number.
pub fn event_id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// An event's number, from its id.
pub fn number(event_id: &str) -> Option<u64> {
    let digits = event_id.strip_prefix("00000000-0000-4000-8000-")?;
    u64::from_str_radix(digits, 16).ok()
}

impl Journal {
    pub fn new(load: Load) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            events: Mutex::new(vec![None; usize::try_from(load.events).unwrap()]),
            load,
            next: AtomicU64::new(0),
            allowed: AtomicU64::new(0),
        })
    }

    /// Lets the writers go on up to so many events.
    pub fn allow(&self, events: u64) {
        self.allowed.fetch_max(events, Relaxed);
    }

    /// What is to be written.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// How many events are begun.
    pub fn begun(&self) -> u64 {
        self.next.load(Relaxed).min(self.load.events)
    }

    /// The journal at its end.
    pub fn written(&self) -> Vec<Written> {
        let events = self.events.lock().unwrap();
        events.iter().map(|event| event.clone().unwrap()).collect()
    }

    /// Where the event with that number should go.
    pub fn destination(&self, number: u64) -> Option<&str> {
        let events = self.events.lock().unwrap();
        let event = events.get(usize::try_from(number).ok()?)?.as_ref()?;
        Some(self.load.topic(event.key))
    }

    /// What a message with that id should be made of: key and payload.
    pub fn expected(&self, number: u64) -> Option<(String, String)> {
        let events = self.events.lock().unwrap();
        let event = events.get(usize::try_from(number).ok()?)?.as_ref()?;
        Some((key_name(event.key), self.load.payload(number, event.poison)))
    }

    /// Starts the writers; they end when everything is written.
    pub fn write(self: &Arc<Self>, url: &str, seed: u64) -> Vec<tokio::task::JoinHandle<()>> {
        let writers = (0..WRITERS).map(|writer| {
            let (journal, url) = (Arc::clone(self), url.to_owned());
            let rng = Rng::with_seed(seed ^ u64::from(writer + 1));
            tokio::spawn(async move {
                Writer {
                    journal,
                    url,
                    rng,
                    number: writer,
                    connection: None,
                }
                .run()
                .await;
            })
        });
        writers.collect()
    }
}

fn key_name(key: u32) -> String {
    format!("key-{key}")
}

struct Writer {
    journal: Arc<Journal>,
    url: String,
    rng: Rng,
    number: u32,
    connection: Option<PgConnection>,
}

/// A transaction that failed: whether it may have been committed all the same.
struct Failed {
    at_commit: bool,
}

impl From<sqlx::Error> for Failed {
    fn from(_: sqlx::Error) -> Self {
        Self { at_commit: false }
    }
}

impl Writer {
    async fn run(mut self) {
        let all = self.journal.load.events;
        loop {
            let wanted = u64::from(self.rng.u32(1..=MOST));
            let first = self.journal.next.fetch_add(wanted, Relaxed);
            if first >= all {
                return;
            }
            let numbers: Vec<u64> = (first..(first + wanted).min(all)).collect();
            while self.journal.allowed.load(Relaxed) < first {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.write(&numbers).await;
        }
    }

    async fn write(&mut self, numbers: &[u64]) {
        let keys: Vec<u32> = numbers.iter().map(|_| self.key()).collect();
        let every = self.journal.load.poison_every;
        let poison: Vec<bool> = (numbers.iter())
            .map(|_| every > 0 && self.rng.u32(0..every) == 0)
            .collect();
        // Known before the relay can send them: the consumer looks them up.
        self.note(numbers, &keys, &poison, Fate::Unknown);
        let fate = match self.transact(numbers, &keys, &poison).await {
            Ok(fate) => fate,
            Err(failed) => {
                self.connection = None;
                tokio::time::sleep(Duration::from_millis(50)).await;
                if failed.at_commit {
                    Fate::Unknown
                } else {
                    Fate::RolledBack
                }
            }
        };
        self.note(numbers, &keys, &poison, fate);
    }

    /// A shared key now and then, else one of its own.
    fn key(&mut self) -> u32 {
        if self.rng.u32(0..16) == 0 {
            return self.rng.u32(0..SHARED_KEYS);
        }
        let own = (self.journal.load.keys / WRITERS).max(1);
        SHARED_KEYS + self.rng.u32(0..own) * WRITERS + self.number
    }

    fn note(&self, numbers: &[u64], keys: &[u32], poison: &[bool], fate: Fate) {
        let at = self.journal.started.elapsed();
        let mut events = self.journal.events.lock().unwrap();
        for ((&number, &key), &poison) in numbers.iter().zip(keys).zip(poison) {
            events[usize::try_from(number).unwrap()] = Some(Written {
                key,
                fate,
                poison,
                refusable: self.journal.load.refusable,
                at,
            });
        }
    }

    async fn transact(
        &mut self,
        numbers: &[u64],
        keys: &[u32],
        poison: &[bool],
    ) -> Result<Fate, Failed> {
        if self.connection.is_none() {
            self.connection = Some(PgConnection::connect(&self.url).await?);
        }
        let connection = self.connection.as_mut().unwrap();
        let mut transaction = connection.begin().await?;
        let shared: Vec<i32> = (keys.iter())
            .filter(|key| **key < SHARED_KEYS)
            .map(|key| i32::try_from(*key).unwrap())
            .collect();
        if !shared.is_empty() {
            sqlx::query("select from aggregates where key = any($1) order by key for update")
                .bind(shared)
                .execute(&mut *transaction)
                .await?;
        }
        insert(&mut transaction, &self.journal.load, numbers, keys, poison).await?;
        if self.rng.u32(0..400) == 0 {
            // Others draw higher ids meanwhile, and commit them first.
            let pause = self.rng.u64(0..1500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        if self.rng.u32(0..20) == 0 {
            transaction.rollback().await?;
            return Ok(Fate::RolledBack);
        }
        match transaction.commit().await {
            Ok(()) => Ok(Fate::Committed),
            Err(_) => Err(Failed { at_commit: true }),
        }
    }
}

async fn insert(
    connection: &mut PgConnection,
    load: &Load,
    numbers: &[u64],
    keys: &[u32],
    poison: &[bool],
) -> Result<(), sqlx::Error> {
    let payloads =
        (numbers.iter().zip(poison)).map(|(&number, &poison)| load.payload(number, poison));
    let headers = (numbers.iter().zip(poison)).map(|(&number, &poison)| {
        if poison {
            load.poison.headers(number)
        } else {
            headers(number)
        }
    });
    sqlx::query(
        "with events as (
            insert into outbox (event_id, aggregate_type, aggregate_id, event_type, payload, headers)
            select event_id::uuid, topic, key, 'Tested', payload::jsonb, headers::jsonb
              from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) with ordinality
                   u(topic, event_id, key, payload, headers, place) order by place
            returning id, event_id)
         insert into ledger select id, event_id from events",
    )
    .bind(keys.iter().map(|&key| load.topic(key)).collect::<Vec<_>>())
    .bind(numbers.iter().map(|&n| event_id(n)).collect::<Vec<_>>())
    .bind(keys.iter().map(|&key| key_name(key)).collect::<Vec<_>>())
    .bind(payloads.collect::<Vec<_>>())
    .bind(headers.collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}
