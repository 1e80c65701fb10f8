//! Which mapping a table may want, by the names and types of its columns.
//!
//! # Design notes
//! * A preset fits if every column that it names is there; of several the one that names most.
//! * Else columns are taken for what their names usually mean. That is a guess, and says so: each part that
//!   was guessed is a doubt, to be read before anything is published.

use std::collections::BTreeSet;

use super::{Mapping, PRESETS, Preset, parse};
use crate::template::Template;

/// A column of a table that may be an outbox.
#[derive(Debug, Clone, Default)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as PostgreSQL writes it.
    pub sql_type: String,
    /// Whether it may be NULL.
    pub is_nullable: bool,
    /// Whether no two rows have the same.
    pub is_unique: bool,
    /// Whether the INSERT draws it from a sequence.
    pub is_drawn: bool,
    /// The labels of an enum.
    pub labels: Vec<String>,
}

/// Whose table it seems to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// outboxd's own.
    Own,
    /// That of a preset, by name.
    Preset(&'static str),
    /// Nobody's that is known: a mapping of its own, as TOML.
    Other(String),
}

/// How sure that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// By a few names.
    Maybe,
    /// By most names.
    Likely,
    /// By all names.
    Certain,
}

impl Confidence {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Maybe => "maybe",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// A mapping for a table.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Whose table it seems to be.
    pub whose: Whose,
    /// How sure that is.
    pub confidence: Confidence,
    /// The mapping.
    pub mapping: Mapping,
    /// What was guessed.
    pub doubts: Vec<String>,
}

/// Proposes a mapping; `None` for a table that does not look like an outbox.
pub fn propose(schema: &str, table: &str, columns: &[Column]) -> Option<Proposal> {
    let own = Mapping::own(Template::column("aggregate_type"));
    if has_all(columns, &own) {
        return Some(Proposal {
            whose: Whose::Own,
            confidence: Confidence::Certain,
            mapping: own,
            doubts: Vec::new(),
        });
    }
    by_preset(schema, table, columns).or_else(|| by_names(schema, table, columns))
}

/// Whether all that a mapping names is there; an order may be missing.
fn has_all(columns: &[Column], mapping: &Mapping) -> bool {
    let mut named = mapping
        .columns()
        .into_iter()
        .filter(|(part, _)| *part != "order");
    named.all(|(_, name)| columns.iter().any(|column| column.name == name))
}

fn by_preset(schema: &str, table: &str, columns: &[Column]) -> Option<Proposal> {
    let fitting = PRESETS.iter().filter_map(|preset| {
        let mapping = parse(&format!("preset {}", preset.name), preset.text).ok()?;
        let named: BTreeSet<String> = mapping
            .columns()
            .into_iter()
            .map(|(_, name)| name.to_owned())
            .collect();
        let is_named = is_named(mapping.table.as_deref(), schema, table);
        let fits = has_all(columns, &mapping) && (is_named || named.len() >= 5);
        fits.then_some((named.len(), is_named, preset, mapping))
    });
    let (_, is_named, preset, mapping) =
        fitting.max_by_key(|(names, is_named, ..)| (*names, *is_named))?;
    Some(of_preset(*preset, mapping, is_named))
}

fn is_named(name: Option<&str>, schema: &str, table: &str) -> bool {
    let name = name.unwrap_or_default();
    name == table || name == format!("{schema}.{table}")
}

fn of_preset(preset: Preset, mapping: Mapping, is_named: bool) -> Proposal {
    let mut doubts = Vec::new();
    if !is_named {
        doubts.push("its columns are those of this preset, its name is not".into());
    }
    if mapping.destination.is_empty() {
        doubts.push("nothing in the table says where events go: give --topic".into());
    }
    Proposal {
        whose: Whose::Preset(preset.name),
        confidence: if is_named {
            Confidence::Certain
        } else {
            Confidence::Likely
        },
        mapping,
        doubts,
    }
}

const IDS: [&str; 6] = [
    "id",
    "event_id",
    "message_id",
    "uuid",
    "eventid",
    "messageid",
];
const ORDERS: [&str; 7] = [
    "seq",
    "sequence",
    "position",
    "offset",
    "sequence_number",
    "order_id",
    "nr",
];
const TIMES: [&str; 7] = [
    "created_at",
    "occurred_at",
    "inserted_at",
    "createdat",
    "created_on",
    "timestamp",
    "created",
];
const KEYS: [&str; 9] = [
    "aggregate_id",
    "aggregateid",
    "partition_key",
    "message_key",
    "entity_id",
    "stream_id",
    "key",
    "kafka_key",
    "subject_id",
];
const DESTINATIONS: [&str; 6] = [
    "topic",
    "destination",
    "channel",
    "routing_key",
    "queue",
    "kafka_topic",
];
const KINDS: [&str; 3] = ["aggregate_type", "aggregatetype", "entity_type"];
const TYPES: [&str; 5] = [
    "event_type",
    "type",
    "message_type",
    "event_name",
    "eventtype",
];
const PAYLOADS: [&str; 9] = [
    "payload",
    "body",
    "data",
    "message",
    "event_data",
    "content",
    "value",
    "event",
    "kafka_value",
];
const HEADERS: [&str; 3] = ["headers", "metadata", "attributes"];
const DONE: [&str; 9] = [
    "published",
    "processed",
    "sent",
    "dispatched",
    "delivered",
    "completed",
    "relayed",
    "handled",
    "forwarded",
];
const STATUSES: [&str; 3] = ["status", "state", "event_status"];
const WAITING: [&str; 5] = ["pending", "new", "ready", "created", "unsent"];

/// A table under the eyes of somebody who knows names only.
struct Guess<'a> {
    columns: &'a [Column],
    lines: Vec<String>,
    doubts: Vec<String>,
}

impl<'a> Guess<'a> {
    fn find(&self, names: &[&str], types: &[&str]) -> Option<&'a Column> {
        let fits = |column: &&Column| types.is_empty() || types.contains(&column.sql_type.as_str());
        let called = |name: &&str| {
            let mut columns = self.columns.iter().filter(fits);
            columns.find(|column| column.name.eq_ignore_ascii_case(name))
        };
        names.iter().find_map(called)
    }

    fn part(&mut self, part: &str, column: &Column) {
        self.lines.push(format!("{part} = {}", toml(&column.name)));
    }

    /// Which rows are pending, and what done means.
    fn done(&mut self) -> bool {
        const TIMESTAMPS: [&str; 2] = ["timestamp with time zone", "timestamp without time zone"];
        let named = |suffixes: &[&str]| -> Vec<String> {
            let names = DONE
                .iter()
                .flat_map(|word| suffixes.iter().map(move |end| format!("{word}{end}")));
            names.collect()
        };
        let times = named(&["_at", "_on", "at", "_date", "_time"]);
        let times: Vec<_> = times.iter().map(String::as_str).collect();
        let flags = named(&["", "_flag"]);
        let flags: Vec<_> = flags.iter().chain(&[]).map(String::as_str).collect();
        if let Some(time) = self
            .find(&times, &TIMESTAMPS)
            .filter(|time| time.is_nullable)
        {
            let name = &time.name;
            self.lines.push(format!(
                "pending = {}",
                toml(&format!("{} is null", quoted(name)))
            ));
            self.lines
                .push(format!("done = {{ {} = \"now()\" }}", toml(name)));
            return true;
        }
        if let Some(flag) = self.find(&flags, &["boolean"]) {
            let name = &flag.name;
            self.lines.push(format!(
                "pending = {}",
                toml(&format!("{} = false", quoted(name)))
            ));
            self.lines
                .push(format!("done = {{ {} = true }}", toml(name)));
            return true;
        }
        self.status()
    }

    fn status(&mut self) -> bool {
        let Some(status) = self.find(&STATUSES, &[]) else {
            self.lines.push("done = \"delete\"".into());
            self.doubts.push(
                "nothing tells published rows from others: every row is to be published, and deleted then".into(),
            );
            return false;
        };
        let among = |words: &[&str]| {
            let labels = status.labels.iter();
            labels
                .into_iter()
                .find(|label| words.iter().any(|word| label.eq_ignore_ascii_case(word)))
        };
        let (waiting, done) = (among(&WAITING), among(&DONE));
        if waiting.is_none() || done.is_none() {
            self.doubts.push(format!(
                "which {} is that of pending rows, and which that of published ones, is guessed",
                status.name
            ));
        }
        let waiting = waiting.map_or("PENDING", String::as_str);
        let done = done.map_or("PUBLISHED", String::as_str);
        let pending = format!(
            "{} = '{}'",
            quoted(&status.name),
            waiting.replace('\'', "''")
        );
        self.lines.push(format!("pending = {}", toml(&pending)));
        self.lines.push(format!(
            "done = {{ {} = {} }}",
            toml(&status.name),
            toml(done)
        ));
        true
    }
}

/// A mapping by what names usually mean.
fn by_names(schema: &str, table: &str, columns: &[Column]) -> Option<Proposal> {
    const IDS_OF: [&str; 6] = [
        "bigint",
        "integer",
        "smallint",
        "uuid",
        "text",
        "character varying",
    ];
    const BODIES: [&str; 5] = ["jsonb", "json", "text", "character varying", "bytea"];
    let mut guess = Guess {
        columns,
        lines: Vec::new(),
        doubts: Vec::new(),
    };
    let unique = columns
        .iter()
        .filter(|it| it.is_unique && IDS_OF.contains(&it.sql_type.as_str()));
    let id = guess
        .find(&IDS, &IDS_OF)
        .or_else(|| unique.into_iter().next())?;
    let payload = guess.find(&PAYLOADS, &BODIES)?;
    guess
        .lines
        .push(format!("table = {}", toml(&format!("{schema}.{table}"))));
    guess.part("id", id);
    let drawn = |column: &&Column| column.is_drawn && column.is_unique && column.name != id.name;
    let times = ["timestamp with time zone", "timestamp without time zone"];
    let time = guess.find(&TIMES, &times);
    let number = guess.find(&ORDERS, &["bigint", "integer"]).filter(drawn);
    if let Some(order) = number
        .or_else(|| columns.iter().find(drawn))
        .or(time)
        .filter(|_| !id.is_drawn)
    {
        guess.part("order", order);
    }
    let mut known = 0;
    let kind = guess.find(&KINDS, &[]);
    let parts = [
        ("key", &KEYS[..]),
        ("type", &TYPES[..]),
        ("destination", &DESTINATIONS[..]),
    ];
    for (part, names) in parts {
        if let Some(column) = guess.find(names, &[]) {
            guess.part(part, column);
            known += 1;
        } else if part == "key" {
            guess
                .doubts
                .push("no column looks like a key: events have no order".into());
        } else if part == "destination" {
            guess.destination(kind);
        }
    }
    guess.part("payload", payload);
    if let Some(headers) = guess.find(&HEADERS, &["jsonb", "json"]) {
        guess.part("headers_json", headers);
    }
    if let Some(time) = time {
        guess.part("time", time);
    }
    let is_marked = guess.done();
    let is_called = table.to_lowercase().contains("outbox");
    let score = 3 * i32::from(is_called) + 2 * i32::from(is_marked) + known;
    let confidence = match score {
        ..=3 => return None,
        4..=5 => Confidence::Maybe,
        _ => Confidence::Likely,
    };
    let doubts = guess
        .doubts
        .iter()
        .map(|doubt| format!("# doubt: {doubt}\n"));
    let text = doubts.collect::<String>() + &guess.lines.join("\n") + "\n";
    let mapping = parse("the proposal", &text).ok()?;
    Some(Proposal {
        whose: Whose::Other(text),
        confidence,
        mapping,
        doubts: guess.doubts,
    })
}

impl Guess<'_> {
    /// Where events go, if no column says so itself.
    fn destination(&mut self, kind: Option<&Column>) {
        if let Some(kind) = kind {
            self.part("destination", kind);
        } else {
            self.lines
                .push("destination = { constant = \"events\" }".into());
            self.doubts
                .push("nothing says where events go: they all go to `events`".into());
        }
    }
}

/// As a TOML text.
fn toml(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// As a condition has a column.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(of: &[(&str, &str)]) -> Vec<Column> {
        let column = |(name, sql_type): &(&str, &str)| Column {
            name: (*name).into(),
            sql_type: (*sql_type).into(),
            is_unique: *name == "id",
            is_nullable: name.ends_with("_at"),
            ..Column::default()
        };
        of.iter().map(column).collect()
    }

    const DEBEZIUM: [(&str, &str); 5] = [
        ("id", "uuid"),
        ("aggregatetype", "character varying"),
        ("aggregateid", "character varying"),
        ("type", "character varying"),
        ("payload", "jsonb"),
    ];

    #[test]
    fn the_preset_that_names_most_columns_is_proposed() {
        let proposal = propose("public", "outboxevent", &columns(&DEBEZIUM)).expect("found");
        assert_eq!(proposal.whose, Whose::Preset("debezium"));
        assert_eq!(proposal.confidence, Confidence::Certain);
        let mut more = columns(&DEBEZIUM);
        more.extend(columns(&[
            ("timestamp", "timestamp with time zone"),
            ("tracingspancontext", "text"),
        ]));
        let proposal = propose("public", "outboxevent", &more).expect("found");
        assert_eq!(proposal.whose, Whose::Preset("debezium-quarkus"));
        let proposal = propose("x", "events", &columns(&DEBEZIUM)).expect("found");
        assert_eq!(proposal.confidence, Confidence::Likely);
        assert!(proposal.doubts[0].contains("its name is not"));
    }

    #[test]
    fn a_table_of_nobodys_is_guessed_by_names() {
        let of = [
            ("id", "bigint"),
            ("topic", "text"),
            ("Agg\"Id", "text"),
            ("body", "text"),
            ("sent_at", "timestamp with time zone"),
        ];
        let proposal = propose("s", "my_outbox", &columns(&of)).expect("found");
        let Whose::Other(text) = &proposal.whose else {
            panic!("{proposal:?}")
        };
        for line in [
            "id = \"id\"",
            "destination = \"topic\"",
            "payload = \"body\"",
            "pending = \"\\\"sent_at\\\" is null\"",
            "done = { \"sent_at\" = \"now()\" }",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(
            text.contains("# doubt: no column looks like a key"),
            "{text}"
        );
    }

    #[test]
    fn the_labels_of_a_status_tell_what_they_mean() {
        let mut of = columns(&[
            ("id", "uuid"),
            ("key", "text"),
            ("topic", "text"),
            ("payload", "json"),
            ("status", "mood"),
        ]);
        let proposal = propose("s", "outbox2", &of).expect("found");
        assert!(
            proposal
                .doubts
                .iter()
                .any(|doubt| doubt.contains("is guessed")),
            "{proposal:?}"
        );
        of[4].labels = ["New", "Failed", "Sent"].map(String::from).to_vec();
        let proposal = propose("s", "outbox2", &of).expect("found");
        let Whose::Other(text) = &proposal.whose else {
            panic!("{proposal:?}")
        };
        assert!(
            text.contains("= 'New'\"") && text.contains("\"Sent\""),
            "{text}"
        );
        assert!(
            !proposal
                .doubts
                .iter()
                .any(|doubt| doubt.contains("is guessed"))
        );
    }

    #[test]
    fn other_tables_are_left_alone() {
        let users = [
            ("id", "bigint"),
            ("name", "text"),
            ("email", "text"),
            ("created_at", "timestamp with time zone"),
        ];
        assert!(propose("public", "users", &columns(&users)).is_none());
        let notes = [("id", "bigint"), ("body", "text"), ("status", "text")];
        assert!(propose("public", "notes", &columns(&notes)).is_none());
    }
}
