//! Preflight: everything about the server, the tables and the privileges that would keep a relay from
//! its promises, found out without publishing or changing anything.
//!
//! # Design notes
//! Almost everything is read from the catalogs, which any role may read: so a missing privilege does not
//! keep the rest from being looked at, and all findings come in one go.

mod access;
mod ids;
mod privileges;
mod server;
mod table;

use std::time::Duration;

pub use server::encryption;

use super::{DbError, Link, Outbox, Session, session::statement, table::get};
use crate::mapping::Done;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// The relay works, with a risk.
    Warn,
    /// The relay does not work, or not as promised.
    Error(Fault),
}

/// What kind of thing is wrong. In this order one of them decides the exit code: the last is what people
/// have to mend, the first may mend itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Database, broker or a destination cannot be used at the moment.
    Unavailable,
    /// A privilege is missing.
    Privilege,
    /// Tables or values are wrong.
    Config,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// What was looked at, in a word or two.
    pub subject: &'static str,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(subject: &'static str, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Ok,
            subject,
            what: what.into(),
            remedy: None,
        }
    }

    /// A risk, and what to do about it.
    pub fn warn(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warn,
            subject,
            what: what.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// A fault, and what to do about it.
    pub fn error(
        fault: Fault,
        subject: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error(fault),
            subject,
            what: what.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// The database said no.
    pub fn database(subject: &'static str, error: &DbError) -> Self {
        let refused = error.code().is_some_and(|code| code.starts_with("28"));
        let fault = if error.is_privilege() || refused {
            Fault::Privilege
        } else if error.is_unreachable() {
            Fault::Unavailable
        } else {
            Fault::Config
        };
        Self {
            severity: Severity::Error(fault),
            subject,
            what: error.to_string(),
            remedy: error.remedy().map(Into::into),
        }
    }
}

/// What the relay will be asked to do.
#[derive(Debug, Clone, Copy)]
pub struct Intent {
    /// Whether it will delete published rows later.
    pub prunes: bool,
    /// `--publish-timeout`.
    pub publish_timeout: Duration,
    /// The port it connects to.
    pub port: u16,
}

/// What the inspection works on.
struct Inspection<'a> {
    outbox: &'a Outbox,
    session: Session,
    intent: Intent,
    findings: Vec<Finding>,
}

impl Outbox {
    /// Looks at everything. Never fails: what cannot be looked at is a finding.
    pub async fn inspect(&self, intent: Intent) -> Vec<Finding> {
        let session = match self.database.connect().await {
            Ok(session) => session,
            Err(error) => return vec![Finding::database("connection", &error)],
        };
        let mut inspection = Inspection {
            outbox: self,
            session,
            intent,
            findings: Vec::new(),
        };
        if let Err(error) = inspection.look().await {
            inspection
                .findings
                .push(Finding::database("database", &error));
        }
        inspection.session.close().await;
        inspection.findings
    }

    /// Destinations of pending and of recent rows, a few dozen at most.
    pub async fn some_destinations(&self, link: &mut Link) -> Result<Vec<String>, DbError> {
        let sql = format!(
            "select distinct destination from (
               (select {destination} as destination from {outbox} o where {pending} limit 2000)
               union all (select {destination} from {outbox} o order by {id} desc limit 2000)) d
              where destination is not null order by destination limit 50",
            destination = link.table.destination,
            pending = link.table.pending,
            id = link.table.id_column,
            outbox = self.names.outbox(),
        );
        link.session.begin_reading(&self.timeouts).await?;
        // Few pending rows among many published ones are found by an index only.
        let pins = "set local enable_seqscan = off; set local enable_bitmapscan = off";
        link.session.batch("inspect", pins.into()).await?;
        let rows = link.session.fetch("inspect", statement(sql)).await?;
        link.session.commit().await?;
        rows.iter().map(|row| get(row, 0)).collect()
    }
}

impl Inspection<'_> {
    async fn look(&mut self) -> Result<(), DbError> {
        self.session.begin_reading(&self.outbox.timeouts).await?;
        self.server().await?;
        if self.may_use_schema().await? && self.tables().await? {
            self.privileges().await?;
        }
        self.session.commit().await?;
        Ok(())
    }

    fn ok(&mut self, subject: &'static str, what: impl Into<String>) {
        self.findings.push(Finding::ok(subject, what));
    }

    fn warn(&mut self, subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding::warn(subject, what, remedy));
    }

    fn wrong(&mut self, subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings
            .push(Finding::error(Fault::Config, subject, what, remedy));
    }

    /// Whether rows will be deleted, at once or later.
    fn deletes(&self) -> bool {
        self.outbox.mapping.done == Done::Delete
            || self.intent.prunes && self.outbox.mapping.is_own()
    }

    async fn text(&mut self, sql: impl Into<String>) -> Result<Vec<String>, DbError> {
        let rows = self.session.fetch("inspect", statement(sql)).await?;
        rows.iter().map(|row| get(row, 0)).collect()
    }
}
