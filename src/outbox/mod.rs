//! The outbox table in PostgreSQL. Every SQL statement of the relay lives in this module.

mod adopt;
mod catalog;
mod claim;
pub mod config;
mod dead;
mod effects;
mod error;
mod expressions;
mod fit;
pub mod floors;
mod follow;
pub mod inspect;
mod instances;
mod listen;
mod locks;
mod migrate;
mod names;
mod needs;
mod overview;
mod peek;
mod prune;
mod row;
mod row_id;
mod sample;
mod scene;
mod session;
mod settle;
pub mod survey;
mod table;
pub mod url;
mod verify;

use std::{
    sync::{Mutex, MutexGuard, atomic::AtomicBool},
    time::{Duration, Instant},
};

pub use claim::{Claim, Want};
pub use dead::{Before, Change, Changed, FailedEvent, Filter, State};
pub use effects::{Cleaned, EffectsTable};
pub use error::DbError;
use floors::Floors;
pub use follow::Row;
pub use instances::{Registered, Trial};
pub use listen::listen;
pub use migrate::{Applied, Extra, script};
pub use names::{Names, quote_identifier};
pub use overview::{FailureCount, Overview, RelayRow};
pub use prune::{PruneCursor, Step};
pub use sample::Sample;
use session::statement;
pub use session::{Database, Session, Timeouts};
pub use settle::Confirmed;
use sqlx::postgres::PgRow;
pub use table::{LANES, PayloadType, Table};

use crate::lock::lock;
use crate::mapping::Mapping;

/// What order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// Per key.
    Key,
    /// None: claims compete for rows.
    None,
}

impl Ordering {
    /// The setting's word, as stored in the instances table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::None => "none",
        }
    }
}

/// One outbox table and how it is worked on. Shared by all tasks of a process.
pub struct Outbox {
    database: Database,
    names: Names,
    mapping: Mapping,
    ordering: Ordering,
    timeouts: Timeouts,
    floors: Mutex<Floors>,
    /// Whether the last claim met failures that matter; a hint for scouting.
    failures_seen: AtomicBool,
    /// Whether the last claim found so little that one round trip does; a hint, too.
    finds_little: AtomicBool,
    /// There is a pooler before the database: a session may be another one at each transaction.
    pooled: AtomicBool,
    event_bytes: claim::EventBytes,
}

/// A connection, with the table as it was when the connection was made.
pub struct Link {
    /// The connection.
    pub session: Session,
    /// The table.
    pub table: Table,
}

impl Link {
    /// Reads rows with payloads, in the format that suits them: in one round trip as text, in two as
    /// bytes, of which the text would be twice as long.
    async fn read(&mut self, operation: &'static str, sql: String) -> Result<Vec<PgRow>, DbError> {
        match self.table.payload {
            PayloadType::Json | PayloadType::Text => self.session.batch(operation, sql).await,
            PayloadType::Bytes => self.session.fetch(operation, statement(sql)).await,
        }
    }
}

impl Outbox {
    /// Describes how a table is worked on; connects to nothing yet.
    pub fn new(
        database: Database,
        names: Names,
        mapping: Mapping,
        ordering: Ordering,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            database,
            names,
            mapping,
            ordering,
            timeouts,
            floors: Mutex::new(Floors::new(Instant::now())),
            failures_seen: AtomicBool::new(true),
            finds_little: AtomicBool::new(true),
            pooled: AtomicBool::new(false),
            event_bytes: claim::EventBytes::new(),
        }
    }

    /// Connects and looks at the table.
    pub async fn link(&self) -> Result<Link, DbError> {
        let mut session = self.database.connect().await?;
        session.begin(&self.timeouts).await?;
        let table = Table::describe(&mut session, &self.names, &self.mapping).await?;
        session.commit().await?;
        Ok(Link { session, table })
    }

    /// A link to publish with: refused where the server, database or role is to take no writes.
    pub async fn publishing_link(&self) -> Result<Link, DbError> {
        let mut link = self.link().await?;
        link.session.begin(&self.timeouts).await?;
        link.session.heed_read_only().await?;
        link.session.commit().await?;
        Ok(link)
    }

    /// The table's names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What order is kept.
    pub fn ordering(&self) -> Ordering {
        self.ordering
    }

    /// Longest that settling a batch may take: a few calls, each with its deadline.
    pub fn longest_settlement(&self) -> Duration {
        self.database.deadline() * 4
    }

    fn floors(&self) -> MutexGuard<'_, Floors> {
        lock(&self.floors)
    }

    /// Everything may be pending again: after a database error, or when a destination is resumed.
    pub fn fall(&self) {
        self.floors().fall(Instant::now());
    }
}

/// How long statements and locks may take, and how long a claim may stand open for a publish.
pub fn timeouts(statement: Duration, lock: Duration, publish: Duration) -> Timeouts {
    Timeouts {
        statement,
        lock,
        idle: defect!(ClaimForEver: Duration::ZERO, else publish + Duration::from_secs(10)),
    }
}
