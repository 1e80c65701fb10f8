//! A rehearsal: what another relay sends, held against what outboxd would send. Nothing is published, and
//! nothing changes in the table or at the broker.
//!
//! # Design notes
//! * Where reading begins at the broker is fixed before the first look at the table: a row that appears
//!   after that look was sent after that beginning, so its message must come. What was there already may
//!   have been sent before.
//! * A relay reads committed rows, so the row of a message that arrived is there when it is looked up
//!   afterwards, or was deleted.
//! * The table is looked at as often as that costs little: a look, then ten times as long a rest.

mod compare;
mod kafka;
mod ledger;
mod rabbitmq;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

pub use compare::Part;
pub use ledger::{Counts, Example, Group, Kind, Ledger, Rules};
use ledger::{Expected, Ours, Theirs};
use tokio::{sync::mpsc, task::spawn_blocking, time::sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    event::RowId,
    outbox::{DbError, Link, Outbox, Row},
    sink::{
        Sink,
        kafka::{KafkaConfig, KafkaSink},
        rabbitmq::{MAX_MESSAGE_BYTES, RabbitmqConfig},
    },
};

/// Messages read ahead of what is compared.
const CHANNEL: usize = 1000;
/// Messages that wait for their row, at most.
const MOST_WAITING: usize = 10_000;
/// The newest rows that are looked at.
const WINDOW: usize = 5_000;
const LARGEST_WINDOW: usize = 320_000;
/// Bytes of rows in one answer.
const ANSWER_BYTES: usize = 16 << 20;
/// Ids in one question.
const QUESTION_IDS: usize = 1_000;
const SHORTEST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(10);
/// How long nothing must arrive until nothing more is expected, and how long that is waited for.
const QUIET: Duration = Duration::from_millis(1_500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Where reading begins at Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is sent from now on.
    Now,
    /// With the oldest message there is.
    Beginning,
}

/// The broker that the other relay sends to.
pub enum Broker {
    /// Topics of Kafka.
    Kafka(KafkaConfig),
    /// Queues of RabbitMQ.
    Rabbitmq(RabbitmqConfig),
}

/// What is followed, and for how long.
pub struct Plan {
    /// The broker.
    pub broker: Broker,
    /// Its topics or queues.
    pub follow: Vec<String>,
    /// Where reading begins.
    pub start: Start,
    /// How long to follow.
    pub time: Option<Duration>,
    /// How many events to compare.
    pub events: Option<u64>,
    /// How long a row may wait for its message.
    pub grace: Duration,
    /// What matters for comparing.
    pub rules: Rules,
}

/// Why nothing can be followed.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// The database's fault.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The broker's.
    #[error("{0}")]
    Broker(String),
}

/// What came of it.
pub struct Outcome {
    /// What was found.
    pub ledger: Ledger,
    /// Why it ended before its time, if it did.
    pub failure: Option<String>,
    /// Whether rows came faster than they were read.
    pub outrun: bool,
}

/// Messages as they arrive, and why they end.
struct Stream {
    messages: mpsc::Receiver<Theirs>,
    failure: mpsc::Receiver<String>,
}

/// Tells a person what goes on.
pub trait Watcher {
    /// Something worth a line.
    fn note(&self, text: &str);
    /// How far it is.
    fn progress(&self, counts: &Counts);
}

impl Broker {
    async fn follow(&self, topics: &[String], start: Start) -> Result<Stream, ShadowError> {
        let following = match self {
            Self::Kafka(config) => {
                let (reader, topics) = (config.clone(), topics.to_vec());
                let following =
                    spawn_blocking(move || kafka::follow(&reader, &topics, start)).await;
                match following.unwrap_or_else(|error| Err(error.to_string())) {
                    Ok(stream) => Ok(stream),
                    // A sink hears more of why.
                    Err(error) => Err(trouble(config).await.unwrap_or(error)),
                }
            }
            Self::Rabbitmq(config) => rabbitmq::follow(config, topics).await,
        };
        following.map_err(ShadowError::Broker)
    }

    /// Bytes above which outboxd sends nothing.
    fn most(&self) -> usize {
        match self {
            Self::Kafka(config) => config.max_message_bytes(),
            Self::Rabbitmq(_) => MAX_MESSAGE_BYTES,
        }
    }

    fn ours(&self, row: &Row) -> Result<compare::Sent, String> {
        if let Some(reason) = &row.event.invalid {
            return Err(reason.to_string());
        }
        match self {
            Self::Kafka(_) => kafka::ours(&row.event.message),
            Self::Rabbitmq(config) => rabbitmq::ours(&row.event.message, config.exchange()),
        }
    }
}

/// What keeps a sink from using Kafka, if anything does.
async fn trouble(config: &KafkaConfig) -> Option<String> {
    let sink = KafkaSink::new(config.clone(), QUIET).ok()?;
    let trouble = sink.probe().await.err();
    sink.close().await;
    trouble.map(|unavailable| unavailable.detail)
}

/// Follows until told to stop, or as long as planned.
///
/// # Errors
/// When it cannot begin, or the table can be read no more.
pub async fn shadow(
    outbox: &Outbox,
    plan: Plan,
    watcher: &dyn Watcher,
    stop: CancellationToken,
) -> Result<Outcome, ShadowError> {
    let mut link = outbox.link().await?;
    outbox.verify_mapping(&mut link).await?;
    let mut stream = plan.broker.follow(&plan.follow, plan.start).await?;
    let mut rehearsal = Rehearsal {
        outbox,
        watcher,
        ledger: Ledger::new(plan.rules.clone()),
        plan: &plan,
        link: Some(link),
        window: HashSet::new(),
        first: None,
        outrun: false,
    };
    rehearsal.look().await?;
    watcher.note(&format!("following {}", plan.follow.join(", ")));
    let failure = rehearsal.follow(&mut stream, &stop).await?;
    rehearsal.conclude(&mut stream).await?;
    let (ledger, outrun) = (rehearsal.ledger, rehearsal.outrun);
    if let Some(link) = rehearsal.link {
        link.session.close().await;
    }
    Ok(Outcome {
        ledger,
        failure,
        outrun,
    })
}

struct Rehearsal<'a> {
    outbox: &'a Outbox,
    watcher: &'a dyn Watcher,
    plan: &'a Plan,
    ledger: Ledger,
    link: Option<Link>,
    /// The newest rows when the table was last looked at.
    window: HashSet<RowId>,
    first: Option<FirstLook>,
    outrun: bool,
}

/// What the table was at the start.
struct FirstLook {
    newest: Option<i64>,
    is_whole: bool,
}

impl Rehearsal<'_> {
    /// Until the end; gives why it came early, if so.
    async fn follow(
        &mut self,
        stream: &mut Stream,
        stop: &CancellationToken,
    ) -> Result<Option<String>, ShadowError> {
        let end = self.plan.time.map(|time| Instant::now() + time);
        let mut next_look = Instant::now();
        loop {
            self.watcher.progress(&self.ledger.counts);
            let compared = self.ledger.counts.compared();
            if self.plan.events.is_some_and(|events| compared >= events) {
                return Ok(None);
            }
            // Never cancelled half-way: a look is no branch of what is waited for.
            if Instant::now() >= next_look {
                next_look = Instant::now() + self.look_or_reconnect().await?;
            }
            let soonest = end.map_or(next_look, |end| end.min(next_look));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                () = sleep_until(soonest.into()) => {
                    if end.is_some_and(|end| Instant::now() >= end) {
                        return Ok(None);
                    }
                }
                Some(error) = stream.failure.recv() => return Ok(Some(error)),
                Some(theirs) = stream.messages.recv(), if self.ledger.waiting() < MOST_WAITING => {
                    self.ledger.arrived(theirs);
                }
            }
        }
    }

    /// Looks at the table; gives how long to rest. Waits for a database that is away.
    async fn look_or_reconnect(&mut self) -> Result<Duration, ShadowError> {
        let (started, is_behind) = (Instant::now(), self.ledger.waiting() >= MOST_WAITING);
        match self.look().await {
            Ok(()) if is_behind => Ok(started.elapsed()),
            Ok(()) => Ok((started.elapsed() * 10).clamp(SHORTEST_REST, LONGEST_REST)),
            Err(error) if error.is_statement_timeout() => {
                self.watcher.note(&format!(
                    "rows cannot be looked up by their event's id: {error}"
                ));
                self.link = None;
                Ok(LONGEST_REST)
            }
            Err(error) if error.is_unreachable() => {
                self.watcher
                    .note(&format!("waiting for the database: {error}"));
                self.link = None;
                Ok(Duration::from_secs(2))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the rows that are new, and those of messages that wait.
    async fn look(&mut self) -> Result<(), DbError> {
        let outbox = self.outbox;
        let most = self.plan.broker.most();
        let mut link = match self.link.take() {
            Some(link) => link,
            None => outbox.link().await?,
        };
        let (newest, mut new) = self.newest(&mut link).await?;
        let (mut place, is_whole) = (None, newest.len() < WINDOW);
        while !new.is_empty() {
            let asked = &new[..new.len().min(QUESTION_IDS)];
            let rows = outbox.rows(&mut link, asked, ANSWER_BYTES, most).await?;
            place = place.max(rows.iter().filter_map(|row| row.place).max());
            let read: HashSet<&RowId> = rows.iter().map(|row| &row.event.id).collect();
            if read.is_empty() {
                new.drain(..asked.len());
            } else {
                new.retain(|id| !read.contains(id));
            }
            self.remember(&rows);
        }
        self.window = newest.into_iter().collect();
        self.first.get_or_insert(FirstLook {
            newest: place,
            is_whole,
        });
        self.look_up(&mut link, most).await?;
        self.link = Some(link);
        Ok(())
    }

    /// The newest rows' ids, and those of them that are new: back to what was seen before.
    async fn newest(&mut self, link: &mut Link) -> Result<(Vec<RowId>, Vec<RowId>), DbError> {
        let mut window = WINDOW;
        loop {
            let newest = self.outbox.newest(link, window).await?;
            let new = newest.iter().filter(|id| !self.window.contains(id));
            let new: Vec<RowId> = new.cloned().collect();
            let is_gap = self.first.is_some() && new.len() == window;
            if !is_gap || window >= LARGEST_WINDOW {
                self.outrun |= is_gap;
                return Ok((newest, new));
            }
            window *= 4;
        }
    }

    /// Looks up the rows of messages that wait.
    async fn look_up(&mut self, link: &mut Link, most: usize) -> Result<(), DbError> {
        let mut unknown = self.ledger.unknown();
        while !unknown.is_empty() {
            let rows = self
                .outbox
                .rows_of_events(link, &unknown, ANSWER_BYTES, most)
                .await;
            match rows {
                Ok(rows) => self.remember(&rows),
                Err(error) if error.is_statement_timeout() => {
                    self.ledger.not_looked_up();
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
            let left = self.ledger.unknown();
            if left.len() == unknown.len() {
                break;
            }
            unknown = left;
        }
        self.ledger.looked_up();
        Ok(())
    }

    fn remember(&mut self, rows: &[Row]) {
        for row in rows {
            let ours = Ours {
                sent: self.plan.broker.ours(row),
                row: row.event.id.clone(),
                place: row.place,
                expected: self.expected(row),
                seen_at: Instant::now(),
            };
            self.ledger.remember(&row.event.message.id, ours);
        }
    }

    /// Rows that an earlier look did not reach come into view when newer ones are deleted.
    fn expected(&self, row: &Row) -> Expected {
        let is_new = self
            .first
            .as_ref()
            .is_some_and(|first| match (row.place, first.newest) {
                (Some(place), Some(newest)) => place > newest,
                _ => first.is_whole,
            });
        match (is_new, self.plan.start) {
            (true, _) => Expected::Yes,
            (false, Start::Beginning) => Expected::IfOlderCame,
            (false, Start::Now) => Expected::No,
        }
    }

    /// Which rows were never sent: first the rows, then time for messages that are on their way.
    async fn conclude(&mut self, stream: &mut Stream) -> Result<(), ShadowError> {
        self.look().await?;
        let unsent = self.ledger.unsent();
        let rows: Vec<RowId> = unsent.iter().map(|(_, row, _)| row.clone()).collect();
        let mut pending = HashSet::new();
        if let Some(link) = &mut self.link {
            for asked in rows.chunks(QUESTION_IDS) {
                pending.extend(self.outbox.pending_among(link, asked).await?);
            }
        }
        let late = |seen_at: &Instant| seen_at.elapsed() >= self.plan.grace;
        let overdue = unsent
            .iter()
            .filter(|(_, row, seen_at)| late(seen_at) || !pending.contains(row));
        let overdue: Vec<String> = overdue.map(|(id, ..)| id.clone()).collect();
        self.wait_for(stream, &overdue).await;
        self.look().await?;
        let never: Vec<String> = overdue
            .into_iter()
            .filter(|id| self.ledger.is_unsent(id))
            .collect();
        let not_yet = self.ledger.unsent().len() - never.len();
        self.ledger
            .conclude(&never, not_yet as u64, self.plan.grace);
        Ok(())
    }

    /// Until these have come, or nothing comes any more.
    async fn wait_for(&mut self, stream: &mut Stream, events: &[String]) {
        let end = Instant::now() + LONGEST_WAIT;
        while events.iter().any(|id| self.ledger.is_unsent(id)) && Instant::now() < end {
            match tokio::time::timeout(QUIET, stream.messages.recv()).await {
                Ok(Some(theirs)) if self.ledger.waiting() < MOST_WAITING => {
                    self.ledger.arrived(theirs)
                }
                _ => return,
            }
        }
    }
}
