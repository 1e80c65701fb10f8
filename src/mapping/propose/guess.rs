//! A mapping from the names that columns of an outbox usually have.

use super::{Certainty, ColumnSight, Proposal, Sight, Source, state, text, words};

/// A mapping in the making: each part, after what is doubtful about it.
#[derive(Default)]
struct Draft {
    text: String,
    doubts: Vec<String>,
    /// What was found, in words.
    found: Vec<String>,
}

impl Draft {
    fn part(&mut self, part: &str, column: &ColumnSight) {
        self.found.push(column.name.clone());
        self.text
            .push_str(&format!("{part} = {}\n", text::quoted(&column.name)));
    }

    fn optional(&mut self, part: &str, column: Option<&ColumnSight>) -> bool {
        if let Some(column) = column {
            self.part(part, column);
        }
        column.is_some()
    }

    fn doubt(&mut self, doubt: impl Into<String>) {
        let doubt = doubt.into();
        self.text
            .push_str(&text::comment(&format!("doubt: {doubt}")));
        self.doubts.push(doubt);
    }
}

/// A mapping, if the table looks like an outbox, or has at least an id and a payload.
pub(super) fn guess(sight: &Sight, insisting: bool) -> Option<Proposal> {
    let id = id(sight)?;
    let suits = |column: &ColumnSight| column.suits("payload") && column.name != id.name;
    let named = sight.pick(&words::PAYLOAD, suits);
    let payload = named.or_else(|| only_body(sight, id))?;
    let state = state::state(sight);
    let certainty = certainty(sight, state.column.is_some(), named.is_some(), insisting)?;
    let mut draft = Draft::default();
    draft.text = text::comment(
        "Proposed by `outboxd inspect` from the columns of the table. Read it before you use it.",
    );
    let table = format!("{}.{}", sight.schema, sight.table);
    draft
        .text
        .push_str(&format!("table = {}\n", text::quoted(&table)));
    if !id.is_unique {
        draft.doubt(format!("column {} is not unique", id.name));
    }
    draft.part("id", id);
    let key = sight.pick(&words::KEY, |column| {
        column.name != id.name && column.name != payload.name
    });
    order(&mut draft, sight, id, key.is_some());
    let suits = |column: &ColumnSight| column.is_unique && column.name != id.name;
    draft.optional("event_id", sight.pick(&words::EVENT_ID, suits));
    if key.is_none() {
        draft.doubt("no column looks like a key: events have none, and no order");
    }
    draft.optional("key", key);
    routing(&mut draft, sight, payload);
    draft.part("payload", payload);
    if named.is_none() {
        draft.doubt(format!(
            "that {} is the body is guessed from its type",
            payload.name
        ));
    }
    let suits = |column: &ColumnSight| column.is_text();
    draft.optional("content_type", sight.pick(&words::CONTENT_TYPE, suits));
    draft.optional(
        "time",
        sight.pick(&words::TIME, |column| column.suits("time")),
    );
    let is_json = |column: &ColumnSight| matches!(column.sql_type.as_str(), "json" | "jsonb");
    let headers = sight.pick(&words::HEADERS, |column| {
        is_json(column) && column.name != payload.name
    });
    draft.optional("headers_json", headers);
    for doubt in state.doubts {
        draft.doubt(doubt);
    }
    draft.text.push_str(&state.lines);
    draft.found.extend(state.column);
    unheeded(&mut draft, sight);
    Some(Proposal {
        source: Source::Guess,
        certainty,
        why: why(sight, &draft.found),
        text: draft.text,
        doubts: draft.doubts,
    })
}

/// Unique if any is, and by a likely name.
fn id(sight: &Sight) -> Option<&ColumnSight> {
    let suits = |column: &ColumnSight| column.suits("id");
    let unique = |column: &ColumnSight| column.is_unique && suits(column);
    let any_unique = || {
        let mut columns = sight.columns.iter();
        columns.find(|column| unique(column) && column.can_be_named())
    };
    sight
        .pick(&words::ID, unique)
        .or_else(any_unique)
        .or_else(|| sight.pick(&words::ID, suits))
}

/// The only column that could be a body, by its type.
fn only_body<'a>(sight: &'a Sight, id: &ColumnSight) -> Option<&'a ColumnSight> {
    let types = ["jsonb", "json", "bytea"];
    let is_body = |column: &&ColumnSight| {
        types.contains(&column.sql_type.as_str())
            && column.name != id.name
            && column.can_be_named()
            && !words::HEADERS.contains(&words::plain(&column.name).as_str())
    };
    let mut bodies = sight.columns.iter().filter(is_body);
    let first = bodies.next();
    first.filter(|_| bodies.next().is_none())
}

/// `None`: it does not look like an outbox.
fn certainty(
    sight: &Sight,
    has_state: bool,
    has_payload: bool,
    insisting: bool,
) -> Option<Certainty> {
    let table = words::plain(&sight.table);
    let has = |names: &[&str]| sight.pick(names, |_| true).is_some();
    let is_routed = has(&words::DESTINATION);
    let is_about = has(&words::TYPE) || has(&words::KEY) || has(&words::KIND);
    if words::is_outbox(&table) && has_payload {
        return Some(if has_state || is_routed || is_about {
            Certainty::Likely
        } else {
            Certainty::Maybe
        });
    }
    let looks = has_state
        && has_payload
        && (is_routed && is_about || words::hints(&table) && (is_routed || is_about));
    // What was received is not to be sent.
    let looks = looks && !table.contains("inbox");
    (looks || insisting).then_some(Certainty::Maybe)
}

fn order(draft: &mut Draft, sight: &Sight, id: &ColumnSight, is_needed: bool) {
    if id.is_numbered() {
        return;
    }
    let numbered = sight
        .columns
        .iter()
        .find(|column| column.is_numbered() && column.can_be_named());
    let time = sight.pick(&words::TIME, |column| column.suits("time"));
    if let Some(column) = numbered {
        draft.part("order", column);
    } else if id.is_integer() {
        if is_needed {
            draft.doubt(format!(
                "events are ordered by {}, which no INSERT draws from a sequence, one by one",
                id.name
            ));
        }
    } else if let Some(column) = time {
        if is_needed {
            draft.doubt(format!(
                "only {} tells which event came first; equal ones come by id",
                column.name
            ));
        }
        draft.part("order", column);
    } else if is_needed {
        draft.doubt("no column tells which event came first");
    }
}

fn routing(draft: &mut Draft, sight: &Sight, payload: &ColumnSight) {
    let suits = |column: &ColumnSight| column.name != payload.name && column.suits_text();
    let event_type = sight.pick(&words::TYPE, suits);
    let destination = sight.pick(&words::DESTINATION, suits);
    let kind = destination.or_else(|| sight.pick(&words::KIND, suits));
    let (column, why) = match (destination, kind, event_type) {
        (Some(column), _, _) => (Some(column), None),
        (None, Some(column), _) => (Some(column), Some("what events are about")),
        (None, None, Some(column)) => (Some(column), Some("their type")),
        (None, None, None) => (None, None),
    };
    match (column, why) {
        (Some(column), Some(why)) => draft.doubt(format!(
            "no column looks like a topic: events go to {why}, {}; \
             or write destination = {{ constant = \"…\" }}",
            column.name
        )),
        (None, _) => draft.doubt("no column looks like a topic: give --topic, or write destination = { constant = \"…\" }"),
        (Some(_), None) => {}
    }
    draft.optional("destination", column);
    draft.optional("type", event_type);
}

/// What an old relay may have heeded.
fn unheeded(draft: &mut Draft, sight: &Sight) {
    let columns = sight.columns.iter();
    let heeded = columns.filter(|column| words::is_heeded(&column.name));
    let heeded: Vec<_> = heeded.map(|column| column.name.as_str()).collect();
    if !heeded.is_empty() {
        draft.doubt(format!(
            "{} make no difference to outboxd: stop what heeds them first",
            heeded.join(", ")
        ));
    }
}

fn why(sight: &Sight, found: &[String]) -> String {
    let name = if words::is_outbox(&sight.table) {
        "its name, and "
    } else {
        ""
    };
    let mut found: Vec<_> = found.iter().map(String::as_str).collect();
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|name| seen.insert(*name));
    format!("{name}columns {}", found.join(", "))
}

impl ColumnSight {
    fn suits_text(&self) -> bool {
        self.is_text()
            || !matches!(
                self.sql_type.as_str(),
                "jsonb" | "json" | "bytea" | "boolean"
            )
    }
}
