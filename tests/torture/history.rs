//! What was written, what arrived and what was done to the system in between.

use std::time::Duration;

/// How long the relay may take to deliver again once a fault is healed.
pub const RECOVERY: Duration = Duration::from_secs(30);

/// What a writer knows of an event it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Committed,
    RolledBack,
    /// The connection was lost at COMMIT.
    Unknown,
}

/// An event as its writer noted it.
#[derive(Debug, Clone)]
pub struct Written {
    pub key: u32,
    pub fate: Fate,
    /// Whether it cannot be delivered, and must come to lie dead.
    pub poison: bool,
    /// Whether it may be refused for a while, and charged for each time.
    pub refusable: bool,
    /// When its transaction ended.
    pub at: Duration,
}

/// An event in the database after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub number: u64,
    pub id: i64,
}

/// A message as a consumer saw it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The event's number; none if the id is nobody's.
    pub number: Option<u64>,
    /// Whether key, headers and payload are those that were written.
    pub intact: bool,
    pub at: Duration,
}

/// A change of a failure row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub number: u64,
    pub state: String,
    pub attempts: i32,
    pub reason: String,
    pub at: Duration,
}

/// A fault that was injected, and healed.
#[derive(Debug, Clone)]
pub struct Injected {
    pub what: String,
    pub from: Duration,
    pub until: Duration,
    /// For how long after that what it broke may show.
    pub echo: Duration,
    /// How many events may arrive again because of it.
    pub may_repeat: usize,
}

/// A relay that was told to end.
#[derive(Debug, Clone)]
pub struct Stop {
    pub at: Duration,
    pub took: Duration,
    /// Whether it said that all was well.
    pub orderly: bool,
}

/// What is left in the outbox.
#[derive(Debug, Clone, Default)]
pub struct Left {
    /// Neither published nor dead.
    pub pending: Vec<u64>,
    /// Dead or discarded, with their rows as they were written.
    pub dead: Vec<u64>,
    /// With a failure that is to be tried again.
    pub retrying: Vec<u64>,
    /// Rows marked published; none is counted where they are deleted.
    pub published: Option<usize>,
}

/// Everything there is to know about a run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// By the event's number.
    pub written: Vec<Written>,
    /// The committed events, from a table that was written along with them.
    pub rows: Vec<Row>,
    pub arrivals: Vec<Arrival>,
    pub charges: Vec<Charge>,
    pub faults: Vec<Injected>,
    pub stops: Vec<Stop>,
    pub left: Left,
}

/// An event's place in lists that go by number.
pub fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}
