//! What the columns of an outbox table mean: outboxd's own, a preset's, or those of a file.
//!
//! Pure: whether a table has such columns, of types that can be worked with, `outbox` finds out.

mod condition;
mod file;
mod preset;
pub mod propose;
mod types;

use std::collections::BTreeMap;

pub use condition::Condition;
pub use file::parse;
pub use preset::{PRESETS, Preset};
pub use types::types;

use crate::template::Template;

/// A checked mapping. See `docs/mapping.md` for each part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The table, where the mapping says which.
    pub table: Option<String>,
    /// The column that tells rows apart.
    pub id: String,
    /// The column that orders them, if it is another.
    pub order: Option<String>,
    /// What consumers tell copies by; the id where there is none.
    pub event_id: Option<Template>,
    /// The unit of order. `None`: no event has a key.
    pub key: Option<Template>,
    /// Where an event goes: the first that is not NULL.
    pub destination: Vec<Template>,
    /// What happened.
    pub event_type: Option<Template>,
    /// The column with the body.
    pub payload: String,
    /// Of the body, where the row's headers name none.
    pub content_type: Option<Template>,
    /// The column that says when it happened.
    pub time: Option<String>,
    /// A column or two with headers in them.
    pub headers: Option<HeaderColumns>,
    /// Further headers, by name.
    pub further_headers: Vec<(String, Template)>,
    /// Which rows are to be published. `None`: every row.
    pub pending: Option<Condition>,
    /// What becomes of a published row.
    pub done: Done,
    /// Where each part was written, for messages; empty for outboxd's own table.
    places: BTreeMap<&'static str, String>,
}

/// Columns that headers are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderColumns {
    /// One JSON object.
    Json(String),
    /// Two arrays: names and values.
    Arrays(String, String),
}

/// What becomes of a published row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Columns are set.
    Set(Vec<(String, Setting)>),
    /// It is deleted.
    Delete,
}

/// What a column is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// The time of publishing.
    Now,
    /// A constant.
    Constant(String),
}

impl Mapping {
    /// outboxd's own table. Events whose own topic is NULL go to `topic`.
    pub fn own(topic: Template) -> Self {
        let value = |column: &str| Some(Template::column(column));
        Self {
            table: None,
            id: "id".into(),
            order: None,
            event_id: value("event_id"),
            key: value("aggregate_id"),
            destination: vec![Template::column("topic"), topic],
            event_type: value("event_type"),
            payload: "payload".into(),
            content_type: None,
            time: Some("created_at".into()),
            headers: Some(HeaderColumns::Json("headers".into())),
            further_headers: Vec::new(),
            pending: Condition::parse("published_at is null").ok(),
            done: Done::Set(vec![("published_at".into(), Setting::Now)]),
            places: BTreeMap::new(),
        }
    }

    /// Whether it is outboxd's own table, which `outboxd migrate` makes and a relay prunes.
    pub fn is_own(&self) -> bool {
        self.places.is_empty()
    }

    /// Where a part is written, to begin a message with: `outbox.toml:7: key: `.
    pub fn place(&self, part: &str) -> String {
        let place = self.places.get(part).or_else(|| self.places.get(""));
        place.map_or(String::new(), |place| format!("{place}: {part}: "))
    }

    /// Every column that is read or written, with the part it is of; some more than once.
    pub fn columns(&self) -> Vec<(&'static str, &str)> {
        let mut columns = vec![("id", self.id.as_str())];
        columns.extend(self.order.iter().map(|name| ("order", name.as_str())));
        let values = [
            ("event_id", &self.event_id),
            ("key", &self.key),
            ("type", &self.event_type),
            ("content_type", &self.content_type),
        ];
        for (part, value) in values {
            columns.extend(value.iter().flat_map(Template::columns).map(|c| (part, c)));
        }
        let destinations = self.destination.iter().flat_map(Template::columns);
        columns.extend(destinations.map(|column| ("destination", column)));
        columns.push(("payload", &self.payload));
        match &self.headers {
            Some(HeaderColumns::Json(column)) => columns.push(("headers_json", column)),
            Some(HeaderColumns::Arrays(names, values)) => {
                columns.extend([
                    ("headers_arrays", names.as_str()),
                    ("headers_arrays", values),
                ]);
            }
            None => {}
        }
        let further = self.further_headers.iter();
        let further = further.flat_map(|(_, value)| value.columns());
        columns.extend(further.map(|column| ("headers", column)));
        columns.extend(self.time.iter().map(|name| ("time", name.as_str())));
        let pending = self.pending.iter().flat_map(Condition::columns);
        columns.extend(pending.map(|column| ("pending", column)));
        columns.extend(self.set_columns().map(|column| ("done", column)));
        columns
    }

    /// The columns that are set once an event is published.
    pub fn set_columns(&self) -> impl Iterator<Item = &str> {
        let settings = match &self.done {
            Done::Set(settings) => settings.as_slice(),
            Done::Delete => &[],
        };
        settings.iter().map(|(column, _)| column.as_str())
    }
}
