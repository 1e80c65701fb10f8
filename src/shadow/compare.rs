//! Whether two messages are the same to a consumer. Pure.

use serde_json::Value;

use super::json::first_difference;

/// A message as it is on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sent {
    /// The exchange; Kafka has none.
    pub exchange: Option<String>,
    /// Kafka topic, or AMQP routing key.
    pub destination: String,
    /// Kafka key, or AMQP header `aggregate_id`, which is compared as a header.
    pub key: Option<Vec<u8>>,
    /// Headers by name; of AMQP the properties as well, by theirs.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The body.
    pub payload: Option<Vec<u8>>,
}

impl Sent {
    /// The first header of that name that has a value.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut named = self.headers.iter().filter(|(own, _)| own == name);
        named.find_map(|(_, value)| value.as_deref())
    }

    /// Bytes it takes, near enough for limits.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| name.len() + length(value))
            .sum();
        self.destination.len() + length(&self.key) + headers + length(&self.payload)
    }

    /// All values of a header, in their order.
    fn values(&self, name: &str) -> Vec<&Option<Vec<u8>>> {
        let named = self.headers.iter().filter(|(own, _)| own == name);
        named.map(|(_, value)| value).collect()
    }

    fn says_json(&self) -> bool {
        let named = |name| self.header(name).unwrap_or_default();
        [named("content-type"), named("content_type")]
            .iter()
            .any(|value| String::from_utf8_lossy(value).contains("json"))
    }
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The exchange.
    Exchange,
    /// Topic or routing key.
    Destination,
    /// The key.
    Key,
    /// A header that only outboxd would send.
    MissingHeader(String),
    /// A header with another value.
    OtherHeader(String),
    /// A header that only they send.
    FurtherHeader(String),
    /// The body.
    Payload,
}

/// A part that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub part: Part,
    /// What outboxd would send.
    pub ours: Option<Vec<u8>>,
    /// What they sent.
    pub theirs: Option<Vec<u8>>,
    /// What is known of how they differ.
    pub note: Option<String>,
}

/// How two messages compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// To the byte.
    Same,
    /// But for how the payload's JSON is written.
    WrittenDifferently,
    /// Not.
    Different(Vec<Difference>),
}

/// Compares what outboxd would send with what was sent; headers in `ignored` do not count.
pub fn compare(ours: &Sent, theirs: &Sent, ignored: &[String]) -> Comparison {
    let mut differences = Vec::new();
    let mut note = |part, ours: Option<&[u8]>, theirs: Option<&[u8]>, note| {
        differences.push(Difference {
            part,
            ours: ours.map(<[u8]>::to_vec),
            theirs: theirs.map(<[u8]>::to_vec),
            note,
        });
    };
    let text = |text: &'_ Option<String>| text.clone().map(String::into_bytes);
    if ours.exchange != theirs.exchange {
        let (ours, theirs) = (text(&ours.exchange), text(&theirs.exchange));
        note(Part::Exchange, ours.as_deref(), theirs.as_deref(), None);
    }
    if ours.destination != theirs.destination {
        let (ours, theirs) = (ours.destination.as_bytes(), theirs.destination.as_bytes());
        note(Part::Destination, Some(ours), Some(theirs), None);
    }
    if ours.exchange.is_none() && ours.key != theirs.key {
        note(Part::Key, ours.key.as_deref(), theirs.key.as_deref(), None);
    }
    let payload = payloads(ours, theirs);
    if let Payloads::Different(how) = &payload {
        let (ours, theirs) = (ours.payload.as_deref(), theirs.payload.as_deref());
        note(Part::Payload, ours, theirs, how.clone());
    }
    differences.extend(headers(ours, theirs, ignored));
    match (differences.is_empty(), payload) {
        (false, _) => Comparison::Different(differences),
        (true, Payloads::WrittenDifferently) => Comparison::WrittenDifferently,
        (true, _) => Comparison::Same,
    }
}

fn headers(ours: &Sent, theirs: &Sent, ignored: &[String]) -> Vec<Difference> {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in ours.headers.iter().chain(&theirs.headers) {
        if !names.contains(&name) && !ignored.contains(name) {
            names.push(name);
        }
    }
    let different = names.into_iter().filter_map(|name| {
        let (our_values, their_values) = (ours.values(name), theirs.values(name));
        let part = match (&our_values[..], &their_values[..]) {
            (ours, theirs) if ours == theirs => return None,
            (_, []) => Part::MissingHeader(name.clone()),
            ([], _) => Part::FurtherHeader(name.clone()),
            _ => Part::OtherHeader(name.clone()),
        };
        Some(Difference {
            part,
            ours: ours.header(name).map(<[u8]>::to_vec),
            theirs: theirs.header(name).map(<[u8]>::to_vec),
            note: None,
        })
    });
    different.collect()
}

enum Payloads {
    Same,
    WrittenDifferently,
    Different(Option<String>),
}

fn payloads(ours: &Sent, theirs: &Sent) -> Payloads {
    if ours.payload == theirs.payload {
        return Payloads::Same;
    }
    let (Some(our_bytes), Some(their_bytes)) = (&ours.payload, &theirs.payload) else {
        return Payloads::Different(None);
    };
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let (Some(our_json), Some(their_json)) = (parse(our_bytes), parse(their_bytes)) else {
        return Payloads::Different(Some(from_byte(our_bytes, their_bytes)));
    };
    // A text like 1 or 1.0 is JSON only if it says so.
    let is_container = |value: &Value| value.is_object() || value.is_array();
    if !is_container(&our_json) && !ours.says_json() {
        return Payloads::Different(Some(from_byte(our_bytes, their_bytes)));
    }
    let Some(place) = first_difference(&our_json, &their_json) else {
        return Payloads::WrittenDifferently;
    };
    let same =
        |inner: Option<&Value>| inner.is_some_and(|it| first_difference(&our_json, it).is_none());
    let inner = their_json.as_str().and_then(|text| parse(text.as_bytes()));
    Payloads::Different(Some(if same(inner.as_ref()) {
        "theirs is a JSON string with that JSON in it: their consumers parse twice".into()
    } else if their_json.get("schema").is_some() && same(their_json.get("payload")) {
        "theirs is in an envelope of schema and payload".into()
    } else {
        let place = if place.is_empty() {
            "as a whole".into()
        } else {
            format!("at {place}")
        };
        format!("as JSON, {place}")
    }))
}

fn from_byte(ours: &[u8], theirs: &[u8]) -> String {
    let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    format!("from byte {same}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "as the fields have it")]
    fn bytes(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    fn sent(payload: &str) -> Sent {
        Sent {
            exchange: None,
            destination: "orders".into(),
            key: bytes("42"),
            headers: vec![
                ("id".into(), bytes("e-1")),
                ("content-type".into(), bytes("application/json")),
            ],
            payload: bytes(payload),
        }
    }

    fn different(ours: &Sent, theirs: &Sent) -> Vec<Part> {
        match compare(ours, theirs, &["ignored".into()]) {
            Comparison::Different(all) => all.into_iter().map(|it| it.part).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_message_is_the_same_as_itself_whatever_the_order_of_its_headers() {
        let (ours, mut theirs) = (sent("{}"), sent("{}"));
        theirs.headers.reverse();
        theirs.headers.push(("ignored".into(), bytes("x")));
        let ignored = ["ignored".to_owned()];
        assert_eq!(compare(&ours, &theirs, &ignored), Comparison::Same);
    }

    #[test]
    fn each_part_that_differs_is_told() {
        let ours = sent("{}");
        let with = |change: &dyn Fn(&mut Sent)| {
            let mut theirs = ours.clone();
            change(&mut theirs);
            different(&ours, &theirs)
        };
        let header = |name: &str| (name.to_owned(), bytes("x"));
        assert_eq!(with(&|it| it.exchange = Some("x".into())), [Part::Exchange]);
        assert_eq!(with(&|it| it.destination = "x".into()), [Part::Destination]);
        assert_eq!(with(&|it| it.key = None), [Part::Key]);
        assert_eq!(with(&|it| it.payload = None), [Part::Payload]);
        assert_eq!(
            with(&|it| drop(it.headers.remove(0))),
            [Part::MissingHeader("id".into())]
        );
        assert_eq!(
            with(&|it| it.headers[0].1 = None),
            [Part::OtherHeader("id".into())]
        );
        assert_eq!(
            with(&|it| it.headers[0].1 = bytes("E-1")),
            [Part::OtherHeader("id".into())]
        );
        assert_eq!(
            with(&|it| it.headers.push(header("id"))),
            [Part::OtherHeader("id".into())]
        );
        assert_eq!(
            with(&|it| it.headers.push(header("t"))),
            [Part::FurtherHeader("t".into())]
        );
    }

    #[test]
    fn json_is_compared_as_json() {
        let compared = |ours: &str, theirs: &str| compare(&sent(ours), &sent(theirs), &[]);
        for (ours, theirs) in [
            (
                r#"{"a": 1, "b": [true, null]}"#,
                r#"{"b":[true,null],"a":1}"#,
            ),
            (r#"{"a": "ü"}"#, r#"{"a":"\u00fc"}"#),
            ("100.0", "1e2"),
            ("[0.0, -0, 0.010]", "[0,0,1E-2]"),
            ("12345678901234567890.5", "12345678901234567890.50"),
        ] {
            assert_eq!(
                compared(ours, theirs),
                Comparison::WrittenDifferently,
                "{ours} {theirs}"
            );
        }
        for (ours, theirs, place) in [
            (
                "9007199254740993",
                "9007199254740992",
                "as JSON, as a whole",
            ),
            (
                r#"{"a": [1, {"b": 2}]}"#,
                r#"{"a": [1, {"b": 3}]}"#,
                "as JSON, at /a/1/b",
            ),
            (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, "as JSON, at /b"),
            ("[1]", "[1, 2]", "as JSON, as a whole"),
            ("1", "-1", "as JSON, as a whole"),
            (
                r#"{"a": 1}"#,
                r#""{\"a\":1}""#,
                "theirs is a JSON string with that JSON in it: their consumers parse twice",
            ),
            (
                r#"{"a": 1}"#,
                r#"{"schema":{},"payload":{"a":1}}"#,
                "theirs is in an envelope of schema and payload",
            ),
            (r#"{"a": 1}"#, r#"{"a": 1"#, "from byte 7"),
        ] {
            let Comparison::Different(all) = compared(ours, theirs) else {
                panic!("{ours} {theirs}");
            };
            assert_eq!(all[0].note.as_deref(), Some(place), "{ours} {theirs}");
        }
    }

    #[test]
    fn text_is_no_number() {
        let text = |payload: &str| {
            let mut sent = sent(payload);
            sent.headers[1].1 = bytes("text/plain");
            sent
        };
        assert_eq!(different(&text("1"), &text("1.0")), [Part::Payload]);
        let objects = compare(&text(r#"{"a": 1}"#), &text(r#"{"a":1}"#), &[]);
        assert_eq!(objects, Comparison::WrittenDifferently);
    }
}
