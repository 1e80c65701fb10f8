//! What a survey finds.

use super::{DbError, Finding, Names};
use crate::{
    event::Event,
    mapping::{Mapping, propose::Proposal},
    template::Template,
};

/// Where events go in samples and commands when nothing in the table says.
pub const TOPIC: &str = "events";

/// What there is to be found in a database.
#[derive(Debug, Default)]
pub struct Survey {
    /// Tables that look like an outbox, the surest first.
    pub tables: Vec<Surveyed>,
    /// Tables that cannot be one, and why.
    pub passed_over: Vec<(String, String)>,
    /// How many tables there are in all.
    pub in_all: i64,
}

/// A table that looks like an outbox.
#[derive(Debug)]
pub struct Surveyed {
    /// Its name.
    pub names: Names,
    /// What its columns may mean.
    pub proposal: Proposal,
    /// The same, to be worked with.
    pub mapping: Mapping,
    /// What may go wrong, and what to do about it.
    pub findings: Vec<Finding>,
    /// How many events wait, if that could be told.
    pub backlog: Option<Backlog>,
    /// Statements that are missing, in their order.
    pub statements: Vec<String>,
    /// What a relay's role needs, once the relay's own tables are there.
    pub grants: String,
    /// Whether nothing tells the order of a key's events.
    pub lacks_order: bool,
    /// Whether the relay's own tables are there.
    pub is_made: bool,
    /// The first messages, as they would go out.
    pub samples: Vec<Event>,
}

/// How many events wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backlog {
    /// Rows.
    pub events: i64,
    /// Whether they were counted.
    pub is_exact: bool,
    /// Age of the oldest, in seconds.
    pub oldest: Option<f64>,
}

impl Surveyed {
    /// A table, by a proposal; nothing has been looked at yet.
    pub(super) fn new(names: &Names, proposal: Proposal) -> Result<Self, String> {
        let mut mapping = proposal.mapping().map_err(|problems| problems.join("; "))?;
        if mapping.destination.is_empty() {
            mapping.destination = vec![Template::constant(TOPIC)];
        }
        Ok(Self {
            names: names.clone(),
            proposal,
            mapping,
            findings: Vec::new(),
            backlog: None,
            statements: Vec::new(),
            grants: String::new(),
            lacks_order: false,
            is_made: false,
            samples: Vec::new(),
        })
    }

    /// Whether nothing in the table says where events go.
    pub fn needs_topic(&self) -> bool {
        self.mapping.destination == [Template::constant(TOPIC)]
    }

    pub(super) fn doubt(
        &mut self,
        subject: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding::warn(subject, what, remedy));
    }

    pub(super) fn refused(&mut self, subject: &'static str, error: &DbError) {
        self.findings.push(Finding::database(subject, error));
    }
}
