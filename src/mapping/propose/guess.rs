//! A mapping from the names that columns of an outbox usually have.

use super::{Certainty, ColumnSight, Proposal, Sight, Source, state, text, words};

/// A mapping in the making: each part, after what is doubtful about it.
struct Draft<'a> {
    sight: &'a Sight,
    id: &'a ColumnSight,
    payload: &'a ColumnSight,
    text: String,
    doubts: Vec<String>,
    /// What was found, in words.
    found: Vec<String>,
}

const HEADING: &str =
    "Proposed by `outboxd inspect` from the columns of the table. Read it before you use it.";

/// A mapping, if the table looks like an outbox; with `insisting`, if it has an id and a payload.
pub(super) fn guess(sight: &Sight, insisting: bool) -> Option<Proposal> {
    let id = id(sight)?;
    let suits = |column: &ColumnSight| column.suits("payload") && column.name != id.name;
    let named = sight.pick(&words::PAYLOAD, suits);
    let payload = named.or_else(|| only_body(sight, id))?;
    let state = state::state(sight);
    let certainty = certainty(sight, state.column.is_some(), named.is_some(), insisting)?;
    let mut draft = Draft {
        sight,
        id,
        payload,
        text: text::comment(HEADING),
        doubts: Vec::new(),
        found: Vec::new(),
    };
    draft.identity();
    draft.routing();
    draft.body(named.is_some());
    for doubt in state.doubts {
        draft.doubt(doubt);
    }
    draft.text.push_str(&state.lines);
    draft.found.extend(state.column);
    draft.unheeded();
    Some(Proposal {
        source: Source::Guess,
        certainty,
        why: draft.why(),
        text: draft.text,
        doubts: draft.doubts,
    })
}

impl Draft<'_> {
    fn part(&mut self, part: &str, column: &ColumnSight) {
        self.found.push(column.name.clone());
        self.text.push_str(&text::line(part, &column.name));
    }

    fn optional(&mut self, part: &str, column: Option<&ColumnSight>) {
        if let Some(column) = column {
            self.part(part, column);
        }
    }

    fn doubt(&mut self, doubt: impl Into<String>) {
        let doubt = doubt.into();
        let comment = text::comment(&format!("doubt: {doubt}"));
        self.text.push_str(&comment);
        self.doubts.push(doubt);
    }

    /// Table, id, order and key.
    fn identity(&mut self) {
        let (sight, id, payload) = (self.sight, self.id, self.payload);
        let table = format!("{}.{}", sight.schema, sight.table);
        self.text.push_str(&text::line("table", &table));
        if !id.is_unique {
            self.doubt(format!("column {} is not unique", id.name));
        }
        self.part("id", id);
        let suits = |column: &ColumnSight| column.name != id.name && column.name != payload.name;
        let key = sight.pick(&words::KEY, suits);
        self.order(key.is_some());
        let suits = |column: &ColumnSight| column.is_unique && column.name != id.name;
        self.optional("event_id", sight.pick(&words::EVENT_ID, suits));
        if key.is_none() {
            self.doubt("no column looks like a key: events have none, and no order");
        }
        self.optional("key", key);
    }

    fn order(&mut self, is_needed: bool) {
        let (sight, id) = (self.sight, self.id);
        if id.is_numbered() {
            return;
        }
        let mut columns = sight.columns.iter();
        let numbered = columns.find(|column| column.is_numbered() && column.can_be_named());
        let time = sight.pick(&words::TIME, |column| column.suits("time"));
        let (column, doubt) = match (numbered, time) {
            (Some(_), _) => (numbered, None),
            (None, _) if id.is_integer() => (
                None,
                Some(format!(
                    "events are ordered by {}, which no INSERT draws from a sequence, one by one",
                    id.name
                )),
            ),
            (None, Some(column)) => (
                time,
                Some(format!(
                    "only {} tells which event came first; equal ones come by id",
                    column.name
                )),
            ),
            (None, None) => (None, Some("no column tells which event came first".into())),
        };
        if let Some(doubt) = doubt.filter(|_| is_needed) {
            self.doubt(doubt);
        }
        self.optional("order", column);
    }

    /// Destination and type.
    fn routing(&mut self) {
        let (sight, payload) = (self.sight, self.payload);
        let suits = |column: &ColumnSight| column.name != payload.name && column.is_short();
        let event_type = sight.pick(&words::TYPE, suits);
        let kind = sight.pick(&words::KIND, suits);
        let destination = sight.pick(&words::DESTINATION, suits);
        let column = destination.or(kind).or(event_type);
        match column {
            Some(column) if destination.is_none() => self.doubt(format!(
                "no column looks like a topic: events go to their {}; or write destination = {{ constant = \"…\" }}",
                column.name
            )),
            None => self.doubt(
                "no column looks like a topic: give --topic, or write destination = { constant = \"…\" }",
            ),
            Some(_) => {}
        }
        self.optional("destination", column);
        self.optional("type", event_type);
    }

    /// Payload, time and headers.
    fn body(&mut self, is_named: bool) {
        let (sight, payload) = (self.sight, self.payload);
        if !is_named {
            let name = &payload.name;
            self.doubt(format!("that {name} is the body is guessed from its type"));
        }
        self.part("payload", payload);
        let content_type = sight.pick(&words::CONTENT_TYPE, ColumnSight::is_text);
        self.optional("content_type", content_type);
        let time = sight.pick(&words::TIME, |column| column.suits("time"));
        self.optional("time", time);
        let suits = |column: &ColumnSight| column.is_json() && column.name != payload.name;
        self.optional("headers_json", sight.pick(&words::HEADERS, suits));
    }

    /// What an old relay may have heeded.
    fn unheeded(&mut self) {
        let columns = self.sight.columns.iter();
        let heeded = columns.filter(|column| words::is_heeded(&column.name));
        let heeded: Vec<_> = heeded.map(|column| column.name.as_str()).collect();
        if !heeded.is_empty() {
            let heeded = heeded.join(", ");
            self.doubt(format!(
                "outboxd does not heed {heeded}: stop what does first"
            ));
        }
    }

    fn why(&self) -> String {
        let name = if words::is_outbox(&self.sight.table) {
            "its name, and "
        } else {
            ""
        };
        let mut seen = std::collections::BTreeSet::new();
        let found = self.found.iter().map(String::as_str);
        let found: Vec<_> = found.filter(|column| seen.insert(*column)).collect();
        format!("{name}columns {}", found.join(", "))
    }
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
