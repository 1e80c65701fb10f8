//! A message as AMQP sees it: the message contract's column for RabbitMQ.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{
    event::Message,
    sink::{Reason, ReasonKind},
};

/// The header that carries the key, and that a row's own headers may not overwrite.
pub(crate) const KEY_HEADER: &str = "aggregate_id";
/// `delivery_mode` of a message that is written to disk.
const PERSISTENT: u8 = 2;
/// Bytes around a frame's content, which `frame_max` counts as well.
const FRAME_OVERHEAD: usize = 8;

/// What of a message travels in front of its body.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
}

/// Puts a message into AMQP's terms, or says why that is impossible. Such a message would take
/// others with it: a text over 255 bytes makes lapin panic, and the broker closes the whole
/// connection over properties that do not fit in one frame.
pub(super) fn envelope(message: &Message, frame_max: u32) -> Result<Envelope, Reason> {
    let headers = header_table(message)?;
    let mut properties = BasicProperties::default()
        .with_content_type(short("content type", &message.content_type)?)
        .with_headers(headers)
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short("event id", &message.id)?);
    if !message.event_type.is_empty() {
        properties = properties.with_type(short("event type", &message.event_type)?);
    }
    // In seconds. AMQP has no time before 1970.
    if let Ok(timestamp) = u64::try_from(message.timestamp_ms / 1000) {
        properties = properties.with_timestamp(timestamp);
    }
    let routing_key = short("routing key (the event's topic)", &message.destination)?;
    check_size(message, frame_max)?;
    Ok(Envelope {
        routing_key,
        properties,
    })
}

fn header_table(message: &Message) -> Result<FieldTable, Reason> {
    let mut table = FieldTable::default();
    for (name, value) in own_headers(message) {
        let name = short("name of a header", name)?;
        table.insert(name, AMQPValue::LongString(value.into()));
    }
    if let Some(key) = &message.key {
        let name = short("name of a header", KEY_HEADER)?;
        table.insert(name, AMQPValue::LongString(key.as_str().into()));
    }
    Ok(table)
}

fn own_headers(message: &Message) -> impl Iterator<Item = (&str, &str)> {
    let headers = message.headers.iter();
    headers
        .filter(|(name, _)| name != KEY_HEADER)
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

fn short(what: &str, text: &str) -> Result<ShortString, Reason> {
    ShortString::try_new(text).map_err(|_| {
        let detail = format!("the {what} has {} bytes, AMQP allows 255", text.len());
        Reason::new(ReasonKind::Invalid, detail)
    })
}

/// The properties travel in one frame, which cannot be split.
fn check_size(message: &Message, frame_max: u32) -> Result<(), Reason> {
    let size = properties_size(message) + FRAME_OVERHEAD;
    let most = usize::try_from(frame_max).unwrap_or(usize::MAX);
    if size <= most {
        return Ok(());
    }
    let detail =
        format!("headers and key make a frame of {size} bytes, the broker's frame_max is {most}");
    Err(Reason::new(ReasonKind::TooLarge, detail))
}

/// The content of the header frame: class, weight, body size, flags, and the properties.
fn properties_size(message: &Message) -> usize {
    let short = |text: &str| 1 + text.len();
    let header = |name: &str, value: &str| short(name) + 1 + 4 + value.len();
    let own: usize = own_headers(message)
        .map(|(name, value)| header(name, value))
        .sum();
    let key = message.key.as_deref();
    (2 + 2 + 8 + 2)
        + short(&message.content_type)
        + (4 + own + key.map_or(0, |key| header(KEY_HEADER, key)))
        + 1
        + short(&message.id)
        + 8
        + short(&message.event_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_MAX: u32 = 131_072;

    fn message() -> Message {
        Message {
            id: "0190-7e".into(),
            destination: "orders".into(),
            key: Some("42".into()),
            event_type: "OrderPlaced".into(),
            content_type: "application/json".into(),
            headers: vec![("tenant".into(), "acme".into())],
            payload: Some(b"{}".to_vec()),
            timestamp_ms: 1_700_000_000_999,
        }
    }

    fn long_string(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn a_message_becomes_what_the_contract_says() {
        let envelope = envelope(&message(), FRAME_MAX).expect("valid");
        assert_eq!(envelope.routing_key.as_str(), "orders");
        let properties = envelope.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        assert_eq!(text(properties.message_id()), Some("0190-7e".into()));
        assert_eq!(text(properties.kind()), Some("OrderPlaced".into()));
        let content_type = text(properties.content_type());
        assert_eq!(content_type, Some("application/json".into()));
        assert_eq!(*properties.delivery_mode(), Some(2));
        assert_eq!(*properties.timestamp(), Some(1_700_000_000));
        let headers = properties.headers().clone().expect("headers");
        assert_eq!(headers.inner()["aggregate_id"], long_string("42"));
        assert_eq!(headers.inner()["tenant"], long_string("acme"));
    }

    #[test]
    fn a_row_cannot_overwrite_the_key() {
        for key in [Some("42".to_owned()), None] {
            let forged = Message {
                headers: vec![("aggregate_id".into(), "forged".into())],
                key: key.clone(),
                ..message()
            };
            let envelope = envelope(&forged, FRAME_MAX).expect("valid");
            let headers = envelope.properties.headers().clone().expect("headers");
            let header = headers.inner().get("aggregate_id");
            assert_eq!(header.cloned(), key.map(|key| long_string(&key)));
        }
    }

    #[test]
    fn texts_over_255_bytes_are_invalid_and_no_panic() {
        let long = || "x".repeat(256);
        let with = |change: &dyn Fn(&mut Message)| {
            let mut message = message();
            change(&mut message);
            envelope(&message, FRAME_MAX)
        };
        let changes: [&dyn Fn(&mut Message); 5] = [
            &|message| message.id = long(),
            &|message| message.destination = long(),
            &|message| message.event_type = long(),
            &|message| message.content_type = long().into(),
            &|message| message.headers = vec![(long(), String::new())],
        ];
        for change in changes {
            let reason = with(change).expect_err("refused");
            assert_eq!(reason.kind, ReasonKind::Invalid);
            assert!(reason.detail.contains("256 bytes"), "{}", reason.detail);
        }
        assert!(with(&|message| message.destination = "x".repeat(255)).is_ok());
    }

    #[test]
    fn headers_over_one_frame_are_too_large() {
        let big = |bytes: usize| {
            let mut message = message();
            message.headers = vec![("big".into(), String::new())];
            let rest = properties_size(&message) + FRAME_OVERHEAD;
            message.headers[0].1 = "x".repeat(bytes - rest);
            envelope(&message, FRAME_MAX)
        };
        assert!(big(FRAME_MAX as usize).is_ok());
        let reason = big(FRAME_MAX as usize + 1).expect_err("refused");
        assert_eq!(reason.kind, ReasonKind::TooLarge);
    }

    #[test]
    fn a_time_before_1970_is_left_out() {
        let ancient = Message {
            timestamp_ms: -86_400_000,
            ..message()
        };
        let envelope = envelope(&ancient, FRAME_MAX).expect("valid");
        assert_eq!(*envelope.properties.timestamp(), None);
    }
}
