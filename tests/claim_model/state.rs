//! What the model is made of: the database, the broker's log, the processes and their workers.

use std::{collections::BTreeSet, time::Instant};

use outboxd::outbox::floors::{Floors, Look, Mark};

pub const LANES: usize = 2;

/// Events in a model, at most. An event is known by its index; its id is one more.
pub const EVENTS: usize = 4;

/// A set of events.
pub type Events = u8;

pub fn id(event: usize) -> i64 {
    event as i64 + 1
}

pub fn bit(event: usize) -> Events {
    1 << event
}

/// The events of a set, in id order.
pub fn each(events: Events) -> impl Iterator<Item = usize> {
    (0..EVENTS).filter(move |&event| events & bit(event) != 0)
}

/// An event's row in the outbox table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Row {
    Unborn,
    /// Its id is drawn, its transaction open.
    Open,
    /// Its transaction is prepared for two-phase commit, and holds its locks under another name since
    /// the server restarted.
    Prepared,
    Pending,
    Published,
    RolledBack,
}

/// A row of `outbox_failures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    Retrying { due: bool, attempts: u8 },
    Dead { holds: bool },
    Discarded,
}

impl Failure {
    pub fn holds(self) -> bool {
        matches!(self, Self::Retrying { .. } | Self::Dead { holds: true })
    }

    pub fn is_due(self) -> bool {
        matches!(self, Self::Retrying { due: true, .. })
    }
}

/// How often each thing may still go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A claim's transaction is ended by the server; its process goes on, and learns of it late.
    pub end_transaction: u8,
    /// A process dies, or hangs for good; what it sent may still arrive.
    pub crash: u8,
    pub hang: u8,
    /// The broker refuses an event for now; for good.
    pub refuse: u8,
    pub reject: u8,
    /// An event arrives, its confirm does not.
    pub lose_answer: u8,
    /// The deadline passes; what was sent may still arrive, later.
    pub cut: u8,
    /// A settlement is rolled back; or committed, and the answer lost.
    pub fail_settlement: u8,
    pub lose_commit: u8,
    /// A stranger locks a pending row.
    pub strangers: u8,
    pub redrive: u8,
    pub discard: u8,
    pub pause: u8,
    pub prepare: u8,
    pub roll_back: u8,
    /// Looks at the writers, per model: they cost states.
    pub looks: u8,
}

/// An event's outcome, as its worker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Confirmed,
    /// No answer: it may have arrived.
    Unknown,
    /// It did not arrive before the deadline, nor does anything behind it in its key.
    Cut,
    Refused,
    Rejected,
    Withheld,
}

impl Outcome {
    /// Nothing of the key is sent behind it.
    pub fn ends_run(self) -> bool {
        !matches!(self, Self::Confirmed | Self::Unknown)
    }
}

/// Where a worker stands in its turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Idle,
    /// Floors are noted.
    Begun,
    /// The statement that finds and locks lanes has its snapshot.
    Found,
    /// It looks for empty lanes, then at the writers.
    Locked,
    Looking,
    Looked,
    /// Failures, rows, strangers are read.
    Failures,
    Rows,
    Check,
    Publishing,
    Settling,
    Raising,
    /// Confirmed, and not settled.
    Owing,
    /// Frozen for good.
    Hung,
}

/// A lane that a claim has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane {
    pub mark: Mark,
    pub last: i64,
    pub exhausted: bool,
    pub skipped: Option<i64>,
    pub holding: i64,
}

/// A worker and its claim.
#[allow(clippy::struct_excessive_bools, reason = "as many as there are facts")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    pub phase: Phase,
    /// Whether its transaction lives.
    pub open: bool,
    /// What it wants, asked for once the floors are noted; and whether failures may matter.
    pub paused: bool,
    pub careful: bool,
    pub look: Option<Look>,
    pub horizon: i64,
    pub marks: Option<[Mark; LANES]>,
    /// Lanes with work by the snapshot, oldest first.
    pub work: Vec<usize>,
    /// Rows that the snapshot would give, where rows are read with it (a defect).
    pub stale: Option<Events>,
    /// Empty lanes and what holds there; the highest id seen.
    pub empty: [Option<i64>; LANES],
    pub max: i64,
    pub writers: BTreeSet<String>,
    pub failures: bool,
    pub lanes: [Option<Lane>; LANES],
    /// Rows it holds, whether or not it is to send them.
    pub locked: Events,
    pub events: Vec<usize>,
    pub retries: Events,
    pub outcomes: Vec<Outcome>,
    pub unsettled: Events,
    pub owed: Events,
}

/// What the workers of a process share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    pub floors: Floors<LANES>,
    pub failures_seen: bool,
    pub debts: u8,
    pub paused: bool,
    /// The destination is in use again, and the floors not fallen yet.
    pub resuming: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub rows: [Row; EVENTS],
    pub failures: [Option<Failure>; EVENTS],
    pub stranger: Option<usize>,
    pub processes: Vec<Process>,
    pub workers: Vec<Worker>,
    /// What somebody sent who no longer waits for it, in its order.
    pub wire: Vec<Vec<usize>>,
    /// What arrived at least once.
    pub log: Events,
    /// What was given up on at some time: it may arrive late.
    pub given_up: Events,
    pub faults: Faults,
    pub broken: Option<&'static str>,
}

/// What one model is about.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The key of each event; `None` has no order.
    pub keys: Vec<Option<u8>>,
    /// The lane of each event.
    pub lanes: Vec<usize>,
    /// Rows that are there from the start; the others come, and become visible, whenever they like.
    pub there: Events,
    /// Workers of each process.
    pub workers: Vec<usize>,
    /// Events and lanes a claim takes at most.
    pub batch: usize,
    pub share: usize,
    /// Negative answers that make an event dead, and whether it then holds its key.
    pub max_attempts: u8,
    pub dead_holds: bool,
    /// The key whose destination may be paused.
    pub pausable: Option<u8>,
    pub faults: Faults,
    /// Whether a claim's reads are steps of their own: needed where rows change under its locks.
    pub fine: bool,
    pub defect: Option<super::Defect>,
    /// The one time of the model: waits are over whenever the model likes.
    pub now: Instant,
}

impl Scenario {
    pub fn events(&self) -> usize {
        self.keys.len()
    }

    pub fn has(&self, defect: super::Defect) -> bool {
        self.defect == Some(defect)
    }

    pub fn same_key(&self, one: usize, other: usize) -> bool {
        self.keys[one].is_some() && self.keys[one] == self.keys[other]
    }

    pub fn is_pausable(&self, event: usize) -> bool {
        self.pausable.is_some() && self.keys[event] == self.pausable
    }

    /// The process of a worker.
    pub fn process(&self, worker: usize) -> usize {
        let mut left = worker;
        for (process, &workers) in self.workers.iter().enumerate() {
            if left < workers {
                return process;
            }
            left -= workers;
        }
        panic!("there is no worker {worker}")
    }

    pub fn fresh_process(&self) -> Process {
        Process {
            floors: Floors::new(self.now),
            failures_seen: true,
            debts: 0,
            paused: false,
            resuming: false,
        }
    }

    pub fn start(&self) -> State {
        let mut rows = [Row::RolledBack; EVENTS];
        for (event, row) in rows.iter_mut().enumerate().take(self.events()) {
            *row = if self.there & bit(event) == 0 {
                Row::Unborn
            } else {
                Row::Pending
            };
        }
        State {
            rows,
            failures: [None; EVENTS],
            stranger: None,
            processes: self.workers.iter().map(|_| self.fresh_process()).collect(),
            workers: vec![Worker::default(); self.workers.iter().sum()],
            wire: Vec::new(),
            log: 0,
            given_up: 0,
            faults: self.faults,
            broken: None,
        }
    }
}

/// The names under which writers hold the table's lock.
pub fn writers(rows: &[Row]) -> BTreeSet<String> {
    let name = |(event, row): (usize, &Row)| match row {
        Row::Open => Some(format!("3/{event}")),
        Row::Prepared => Some(format!("-1/{event}")),
        _ => None,
    };
    rows.iter().enumerate().filter_map(name).collect()
}
