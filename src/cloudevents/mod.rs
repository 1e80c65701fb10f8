//! CloudEvents 1.0.2: the other form a message can have. Pure: no I/O, no clock.
//!
//! A [`Message`] is rewritten after the claim, and the sink sends what it is given. In *binary* mode the
//! attributes become headers, and payload and content type stay as they are; in *structured* mode all
//! of it becomes one JSON document. What the plain message carries (id, type, key, the row's headers)
//! stays beside, so that a consumer's inbox goes on working when the form changes.
//!
//! By the specification's core, its JSON format, its bindings for Kafka and AMQP, and its partitioning
//! extension. Attributes are strings everywhere, which each of them allows.

pub mod config;
mod json;
mod source;

use std::time::{Duration, UNIX_EPOCH};

use crate::{
    event::{Event, Message},
    sink::{Reason, ReasonKind},
};

/// What names of attributes begin with on Kafka.
pub const KAFKA_PREFIX: &str = "ce_";
/// The same on AMQP. RabbitMQ makes application properties, which the binding speaks of, of an
/// AMQP 0.9.1 message's headers. The binding prefers this to `cloudEvents:`.
pub const AMQP_PREFIX: &str = "cloudEvents_";

/// What some consumer takes for an attribute, on whatever broker: a row's own headers may not say it.
const RESERVED_PREFIXES: [&str; 4] = [KAFKA_PREFIX, "ce-", AMQP_PREFIX, "cloudEvents:"];
/// A content type that begins so says that the mode is structured.
const STRUCTURED: &str = "application/cloudevents";
const STRUCTURED_JSON: &str = "application/cloudevents+json; charset=UTF-8";

/// Names and values, in the order in which they are written.
type Attributes = Vec<(&'static str, String)>;

/// Where the attributes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Into headers.
    Binary,
    /// Into the payload, around what was there.
    Structured,
}

/// How events become CloudEvents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvents {
    /// Where the attributes go.
    pub mode: Mode,
    /// The attribute `source`, a URI reference.
    pub source: String,
    /// What names of attributes begin with among a message's headers.
    pub prefix: &'static str,
}

impl CloudEvents {
    /// Makes each event's message a CloudEvent, or the event invalid: what the specification forbids is
    /// not sent.
    pub fn apply(&self, events: &mut [Event]) {
        for event in events {
            if event.invalid.is_some() {
                continue;
            }
            match self.attributes(&event.message) {
                Ok(attributes) => self.rewrite(&mut event.message, attributes),
                Err(detail) => event.invalid = Some(Reason::new(ReasonKind::Invalid, detail)),
            }
        }
    }

    fn rewrite(&self, message: &mut Message, attributes: Attributes) {
        message.headers.retain(|(name, _)| !is_reserved(name));
        match self.mode {
            Mode::Binary => {
                let attributes = attributes.into_iter();
                let headers =
                    attributes.map(|(name, value)| (self.prefix.to_owned() + name, value));
                message.headers.extend(headers);
            }
            Mode::Structured => {
                message.payload = Some(json::envelope(&attributes, message));
                message.content_type = STRUCTURED_JSON.into();
            }
        }
    }

    /// The attributes but for `datacontenttype`, which has a place of its own in either mode; or why
    /// there can be none.
    fn attributes(&self, message: &Message) -> Result<Attributes, String> {
        let id = required("id", &message.id)?;
        let event_type = required("type", &message.event_type)?;
        self.check_content_type(&message.content_type)?;
        let mut attributes = vec![
            ("specversion", "1.0".to_owned()),
            ("id", id),
            ("source", self.source.clone()),
            ("type", event_type),
        ];
        // No attribute may be empty.
        if let Some(key) = message.key.as_deref().filter(|key| !key.is_empty()) {
            let key = allowed("key", key)?;
            attributes.push(("subject", key.clone()));
            attributes.push(("partitionkey", key));
        }
        attributes.extend(time(message.timestamp_ms).map(|time| ("time", time)));
        Ok(attributes)
    }

    fn check_content_type(&self, content_type: &str) -> Result<(), String> {
        if !is_media_type(content_type) {
            return Err(format!(
                "its content type {content_type:?} is no media type, as CloudEvents want"
            ));
        }
        if self.mode == Mode::Binary && begins_with(content_type, STRUCTURED) {
            return Err(format!(
                "its content type {content_type:?} would pass its payload for the CloudEvent"
            ));
        }
        Ok(())
    }
}

fn required(what: &str, value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Err(format!("it has no {what}, which CloudEvents must have"));
    }
    allowed(what, value)
}

/// A value that has none of the characters that the type `String` may not have.
fn allowed(what: &str, value: &str) -> Result<String, String> {
    let noncharacter = |c: char| {
        let code = u32::from(c);
        (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
    };
    match value.chars().find(|&c| c.is_control() || noncharacter(c)) {
        None => Ok(value.to_owned()),
        Some(c) => Err(format!("its {what} has a {c:?}, which CloudEvents forbid")),
    }
}

/// RFC 3339. There is no time before 1970, as in the plain message on RabbitMQ.
fn time(timestamp_ms: i64) -> Option<String> {
    let since = Duration::from_millis(u64::try_from(timestamp_ms).ok()?);
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + since);
    Some(time.to_string())
}

/// Whether it begins with `type/subtype`, which are tokens by RFC 2045.
fn is_media_type(content_type: &str) -> bool {
    let is_token = |text: &str| {
        let legal = |c: char| c.is_ascii_graphic() && !r#"()<>@,;:\"/[]?="#.contains(c);
        !text.is_empty() && text.chars().all(legal)
    };
    let essence = crate::event::essence(content_type).split_once('/');
    essence.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        && allowed("content type", content_type).is_ok()
}

fn is_reserved(name: &str) -> bool {
    let mut prefixes = RESERVED_PREFIXES.iter();
    prefixes.any(|prefix| begins_with(name, prefix))
}

/// In any case of letters.
fn begins_with(text: &str, prefix: &str) -> bool {
    let start = text.as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

#[cfg(test)]
mod tests;
