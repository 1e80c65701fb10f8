//! The message contract on Kafka's wire.

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
};

use crate::event::Message;

/// Kafka's own rule: `[a-zA-Z0-9._-]{1,249}`, neither `.` nor `..`.
pub(super) fn topic_name_problem(name: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Some("the topic name is empty".into())
    } else if name == "." || name == ".." {
        Some(format!("{name:?} is not a topic name"))
    } else if name.len() > 249 {
        let start: String = name.chars().take(20).collect();
        Some(format!("the topic name {start:?}... is over 249 bytes"))
    } else if !name.chars().all(legal) {
        Some(format!(
            "{name:?} is not a topic name: letters, digits, '.', '_' and '-' only"
        ))
    } else {
        None
    }
}

/// The record of a message.
pub(super) fn record(message: &Message, opaque: usize) -> BaseRecord<'_, str, [u8], usize> {
    let mut headers = OwnedHeaders::new_with_capacity(3 + message.headers.len());
    let own = [
        ("id", message.id.as_str()),
        ("type", message.event_type.as_str()),
        ("content-type", message.content_type.as_ref()),
    ];
    let is_there = |(name, value): &(&str, &str)| *name != "type" || !value.is_empty();
    let rest = message.headers.iter();
    for (key, value) in own
        .into_iter()
        .filter(is_there)
        .chain(rest.map(|(key, value)| (key.as_str(), value.as_str())))
    {
        let value = Some(value);
        headers = headers.insert(Header { key, value });
    }
    let mut record = BaseRecord::with_opaque_to(&message.destination, opaque)
        .timestamp(message.timestamp_ms)
        .headers(headers);
    record.key = message.key.as_deref();
    record.payload = message.payload.as_deref();
    record
}

#[cfg(test)]
mod tests {
    use super::topic_name_problem;

    #[test]
    fn topic_names_follow_kafkas_rules() {
        for legal in ["orders", "a.b_c-D9", "...", &"x".repeat(249)] {
            assert_eq!(topic_name_problem(legal), None, "{legal}");
        }
        for illegal in ["", ".", "..", "a b", "a/b", "ü", "a\0b", &"x".repeat(250)] {
            assert!(topic_name_problem(illegal).is_some(), "{illegal:?}");
        }
    }
}
