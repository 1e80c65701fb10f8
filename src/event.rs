//! An event, and the message it becomes on the wire. Pure: no I/O, no clock.
//!
//! An *event* is a row of the outbox table; a [`Message`] is what a sink sends for it. The mapping
//! between the two is the message contract of the README: ids, headers, content type, key.

use std::{borrow::Cow, fmt, time::Duration};

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::sink::{Reason, ReasonKind};

/// Names a row's own headers may not overwrite: they carry the event's identity.
pub const RESERVED_HEADERS: [&str; 2] = ["id", "type"];

/// What tells an outbox row from the others of its table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowId {
    /// Of an integer column.
    Number(i64),
    /// Of any other.
    Text(String),
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<&RowId> for Value {
    fn from(id: &RowId) -> Self {
        match id {
            RowId::Number(number) => (*number).into(),
            RowId::Text(text) => text.as_str().into(),
        }
    }
}

/// A claimed outbox row. Events of one lane come in order.
#[derive(Debug, Clone)]
pub struct Event {
    /// The row.
    pub id: RowId,
    /// Its number, where rows are ordered by one; else 0.
    pub position: i64,
    /// The lane of the event's key, `0..LANES`.
    pub lane: i32,
    /// Negative answers so far, where it is being retried.
    pub attempts: Option<u32>,
    /// What to send.
    pub message: Message,
    /// Why it cannot be sent at all, if so; `message` then has no headers or payload.
    pub invalid: Option<Reason>,
}

impl Event {
    /// The unit of order: destination and key. `None` has no order.
    pub fn ordering_key(&self) -> Option<(&str, &str)> {
        let key = self.message.key.as_deref()?;
        Some((&self.message.destination, key))
    }
}

#[cfg(test)]
impl Event {
    /// An event with nothing in it but what orders it.
    pub(crate) fn bare(id: i64, lane: i32, destination: &str, key: Option<&str>) -> Self {
        let message = Message {
            id: format!("event-{id}"),
            destination: destination.into(),
            key: key.map(Into::into),
            event_type: String::new(),
            content_type: "text/plain".into(),
            headers: Vec::new(),
            payload: None,
            timestamp_ms: 0,
        };
        Self {
            id: RowId::Number(id),
            position: id,
            lane,
            attempts: None,
            message,
            invalid: None,
        }
    }
}

/// What the relay is to write down of an event that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Index of the event in its batch.
    pub index: usize,
    /// Negative answers so far, this one included.
    pub attempts: u32,
    /// When to try again; `None` is a dead letter.
    pub retry_in: Option<Duration>,
    /// Whether later events of its key wait for it.
    pub holds: bool,
    /// What happened.
    pub reason: Reason,
}

/// One message for a broker. Everything in it is valid for every broker; what only one of them
/// refuses (a topic name, say) that sink answers with [`Outcome::Rejected`](crate::sink::Outcome).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `event_id`: Kafka header `id`, AMQP `message_id`.
    pub id: String,
    /// Kafka topic, or AMQP routing key.
    pub destination: String,
    /// `aggregate_id`: Kafka key, AMQP header `aggregate_id`. `None` has no order.
    pub key: Option<String>,
    /// `event_type`: Kafka header `type`, AMQP `type`.
    pub event_type: String,
    /// Kafka header `content-type`, AMQP `content_type`.
    pub content_type: Cow<'static, str>,
    /// The row's own headers, by name, without `content-type` and the reserved ones.
    pub headers: Vec<(String, String)>,
    /// `None` is a tombstone on Kafka, an empty body on AMQP.
    pub payload: Option<Vec<u8>>,
    /// `created_at` in milliseconds since the epoch, never in the future of the database's clock.
    pub timestamp_ms: i64,
}

impl Message {
    /// Bytes the message takes, near enough for limits: everything but the protocol's framing.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let fixed = self.id.len() + self.event_type.len() + self.content_type.len();
        let body = self.payload.as_ref().map_or(0, Vec::len);
        headers + fixed + body + self.key.as_ref().map_or(0, String::len)
    }

    /// The payload, if it is JSON and its content type says so: `*/json` or `*/*+json`.
    pub fn json(&self) -> Option<&str> {
        let essence = essence(&self.content_type).to_ascii_lowercase();
        if !essence.ends_with("/json") && !essence.ends_with("+json") {
            return None;
        }
        let text = std::str::from_utf8(self.payload.as_deref()?).ok()?;
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        Some(text)
    }
}

/// A content type without its parameters.
pub fn essence(content_type: &str) -> &str {
    let end = content_type.find(';').unwrap_or(content_type.len());
    content_type[..end].trim()
}

/// Headers of a row, split into what the contract names and the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The row's own `content-type`, which wins over the payload column's.
    pub content_type: Option<String>,
    /// All others, reserved names dropped.
    pub others: Vec<(String, String)>,
}

impl Headers {
    /// Puts these over others, which they replace by name.
    #[must_use]
    pub fn over(self, mut others: Self) -> Self {
        let is_replaced = |name: &String| self.others.iter().any(|(own, _)| own == name);
        others.others.retain(|(name, _)| !is_replaced(name));
        others.others.extend(self.others);
        Self {
            content_type: self.content_type.or(others.content_type),
            others: others.others,
        }
    }
}

/// Reads a row's `headers` (JSON text).
///
/// # Errors
/// A [`Reason`] of kind `Invalid` when they are not an object, a name is empty or has NUL, CR or LF,
/// or a value has CR, LF or NUL: such bytes would break, or smuggle into, what consumers parse.
pub fn parse_headers(json: Option<&str>) -> Result<Headers, Reason> {
    let json = match json {
        None | Some("{}" | "null") => return Ok(Headers::default()),
        Some(json) => json,
    };
    let value: Value = serde_json::from_str(json)
        .map_err(|error| invalid(format!("headers are not valid JSON: {error}")))?;
    let Value::Object(object) = value else {
        return Err(invalid(format!(
            "headers are {}, not a JSON object",
            kind_of(&value)
        )));
    };
    let mut headers = Headers::default();
    for (name, value) in object {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        check_header(&name, &value)?;
        if name.eq_ignore_ascii_case("content-type") {
            headers.content_type = Some(value);
        } else if !RESERVED_HEADERS.contains(&name.as_str()) {
            headers.others.push((name, value));
        }
    }
    Ok(headers)
}

/// Whether a header can be sent.
///
/// # Errors
/// As [`parse_headers`].
pub fn check_header(name: &str, value: &str) -> Result<(), Reason> {
    let unsafe_bytes = |text: &str| text.contains(['\0', '\r', '\n']);
    if name.is_empty() {
        return Err(invalid("a header has an empty name".into()));
    }
    if unsafe_bytes(name) {
        return Err(invalid(format!("header name {name:?} has a NUL, CR or LF")));
    }
    if unsafe_bytes(value) {
        return Err(invalid(format!(
            "the value of header {name:?} has a NUL, CR or LF"
        )));
    }
    Ok(())
}

fn invalid(detail: String) -> Reason {
    Reason::new(ReasonKind::Invalid, detail)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_their_text_and_lose_reserved_names() {
        let json = r#"{"id": "x", "type": 1, "Content-Type": "text/csv",
                       "text": "ü", "number": 12345678901234567890.10, "object": {"a": [null, 1e400]}}"#;
        let headers = parse_headers(Some(json)).unwrap();
        assert_eq!(headers.content_type.as_deref(), Some("text/csv"));
        let others = [
            ("number", "12345678901234567890.10"),
            ("object", r#"{"a":[null,1e+400]}"#),
            ("text", "ü"),
        ];
        assert_eq!(
            headers.others,
            others.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn headers_that_break_the_contract_are_invalid() {
        for json in [
            "[]",
            "1",
            "{",
            r#"{"": "x"}"#,
            r#"{"a\u0000": "x"}"#,
            r#"{"a": "x\r\ny"}"#,
        ] {
            let reason = parse_headers(Some(json)).unwrap_err();
            assert_eq!(reason.kind, ReasonKind::Invalid, "{json}");
        }
    }
}
