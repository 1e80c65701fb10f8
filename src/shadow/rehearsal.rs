//! Following the table and the messages, side by side.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Outcome, Plan, ShadowError, Start, Stream, Watcher,
    ledger::Ledger,
    sides::{Expected, Ours},
};
use crate::{
    event::RowId,
    outbox::{DbError, Link, Outbox, Row},
};

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

/// See the parent module.
pub(super) struct Rehearsal<'a> {
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

impl<'a> Rehearsal<'a> {
    pub(super) fn new(
        outbox: &'a Outbox,
        watcher: &'a dyn Watcher,
        plan: &'a Plan,
        link: Link,
    ) -> Self {
        Self {
            outbox,
            watcher,
            plan,
            ledger: Ledger::new(plan.rules.clone()),
            link: Some(link),
            window: HashSet::new(),
            first: None,
            outrun: false,
        }
    }

    /// Says goodbye to the database, and what came of it.
    pub(super) async fn end(self, failure: Option<String>) -> Outcome {
        if let Some(link) = self.link {
            link.session.close().await;
        }
        Outcome {
            ledger: self.ledger,
            failure,
            outrun: self.outrun,
        }
    }

    /// Until the end; gives why it came early, if so.
    pub(super) async fn follow(
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
    pub(super) async fn look(&mut self) -> Result<(), DbError> {
        let outbox = self.outbox;
        let most = self.plan.broker.most();
        let mut link = match self.link.take() {
            Some(link) => link,
            None => outbox.link().await?,
        };
        let (newest, new) = self.newest(&mut link).await?;
        let (mut place, is_whole) = (None, newest.len() < WINDOW);
        for asked in new.chunks(QUESTION_IDS) {
            let mut left = asked.to_vec();
            while !left.is_empty() {
                let rows = outbox.rows(&mut link, &left, ANSWER_BYTES, most).await?;
                // What is not there any more is gone.
                if rows.is_empty() {
                    break;
                }
                let read: HashSet<&RowId> = rows.iter().map(|row| &row.event.id).collect();
                left.retain(|id| !read.contains(id));
                place = place.max(rows.iter().filter_map(|row| row.place).max());
                self.remember(rows);
            }
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
                Ok(rows) => self.remember(rows),
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

    fn remember(&mut self, rows: Vec<Row>) {
        for mut row in rows {
            let expected = self.expected(&row);
            let ours = Ours {
                sent: self.plan.ours(&mut row.event),
                row: row.event.id,
                place: row.place,
                expected,
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
    pub(super) async fn conclude(&mut self, stream: &mut Stream) -> Result<(), ShadowError> {
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
            match timeout(QUIET, stream.messages.recv()).await {
                Ok(Some(theirs)) if self.ledger.waiting() < MOST_WAITING => {
                    self.ledger.arrived(theirs);
                }
                _ => return,
            }
        }
    }
}
