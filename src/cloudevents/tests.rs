use super::*;

fn event(content_type: &'static str, payload: Option<&[u8]>) -> Event {
    let mut event = Event::bare(1, 0, "orders", Some("order-42"));
    event.message.id = "0190-7e".into();
    event.message.event_type = "com.example.OrderPlaced".into();
    event.message.content_type = content_type.into();
    event.message.payload = payload.map(<[u8]>::to_vec);
    event.message.timestamp_ms = 1_700_000_000_007;
    event
}

fn applied(mode: Mode, mut event: Event) -> Event {
    let format = CloudEvents {
        mode,
        source: "https://example.com/orders".into(),
        prefix: KAFKA_PREFIX,
    };
    format.apply(std::slice::from_mut(&mut event));
    event
}

fn binary(event: Event) -> Event {
    applied(Mode::Binary, event)
}

/// The document that an event becomes.
fn structured(event: Event) -> String {
    let message = applied(Mode::Structured, event).message;
    assert_eq!(message.content_type, STRUCTURED_JSON);
    String::from_utf8(message.payload.unwrap()).unwrap()
}

/// The document's end: what it says of the data.
fn data(content_type: &'static str, payload: &[u8]) -> String {
    let json = structured(event(content_type, Some(payload)));
    let parsed: serde_json::Value = serde_json::from_str(&json).expect(&json);
    assert_eq!(parsed["datacontenttype"], content_type);
    let before = format!(r#""datacontenttype":{},"#, parsed["datacontenttype"]);
    let (_, data) = json.split_once(&before).expect(&json);
    data[..data.len() - 1].to_owned()
}

fn reason(event: &Event) -> String {
    event
        .invalid
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[test]
fn a_binary_message_has_its_attributes_as_headers_and_keeps_the_rest() {
    let plain = event("application/json", Some(b"{\"a\": 1}"));
    let cloud = binary(plain.clone());
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "0190-7e"),
        ("ce_source", "https://example.com/orders"),
        ("ce_type", "com.example.OrderPlaced"),
        ("ce_subject", "order-42"),
        ("ce_partitionkey", "order-42"),
        ("ce_time", "2023-11-14T22:13:20.007Z"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(cloud.message.headers, expected);
    let rest = Message {
        headers: Vec::new(),
        ..cloud.message
    };
    assert_eq!(rest, plain.message);
    assert_eq!(cloud.invalid, None);
}

#[test]
fn a_tombstone_stays_one_in_binary_mode_and_is_an_event_without_data_in_structured_mode() {
    assert_eq!(
        binary(event("application/json", None)).message.payload,
        None
    );
    assert_eq!(
        structured(event("application/json", None)),
        r#"{"specversion":"1.0","id":"0190-7e","source":"https://example.com/orders","type":"com.example.OrderPlaced","subject":"order-42","partitionkey":"order-42","time":"2023-11-14T22:13:20.007Z","datacontenttype":"application/json"}"#
    );
}

#[test]
fn json_goes_into_the_envelope_as_it_is_written() {
    for json in [
        r#"{"n": 12345678901234567890.10, "m": 1e400, "m": -0.0}"#,
        "null",
        " [\n1 ,2]",
        r#""text""#,
        &("[".repeat(1000) + &"]".repeat(1000)),
    ] {
        let message = applied(
            Mode::Structured,
            event("application/json", Some(json.as_bytes())),
        );
        let document = String::from_utf8(message.message.payload.unwrap()).unwrap();
        assert!(
            document.ends_with(&format!(r#","data":{json}}}"#)),
            "{document}"
        );
    }
    let other = "Application/vnd.Example+JSON; v=1";
    assert_eq!(data(other, b"{}"), r#""data":{}"#);
}

#[test]
fn text_becomes_a_string_and_all_other_bytes_base64() {
    let text = "a \"b\"\n\u{0}ü";
    let quoted = r#""data":"a \"b\"\n\u0000ü""#;
    for content_type in [
        "text/plain; charset=utf-8",
        "text/csv; header=present; Charset=\"UTF-8\"",
        "application/xml",
        "image/svg+xml",
    ] {
        assert_eq!(
            data(content_type, text.as_bytes()),
            quoted,
            "{content_type}"
        );
    }
    for (content_type, bytes) in [
        ("application/octet-stream", &b"abc"[..]),
        ("application/x-protobuf", b"abc"),
        ("text/plain; charset=iso-8859-1", b"abc"),
    ] {
        assert_eq!(
            data(content_type, bytes),
            r#""data_base64":"YWJj""#,
            "{content_type}"
        );
    }
    let broken = r#""data_base64":"//4=""#;
    assert_eq!(data("text/plain", &[0xff, 0xfe]), broken);
    assert_eq!(data("application/json", &[0xff, 0xfe]), broken);
}

#[test]
fn what_only_claims_to_be_json_is_not_spliced_in() {
    for text in ["", "{", "{} {}", r#"1,"id":"forged""#, "NaN", "\u{feff}{}"] {
        let encoded = data("application/json", text.as_bytes());
        assert!(
            encoded.starts_with(r#""data_base64":""#),
            "{text}: {encoded}"
        );
    }
}

#[test]
fn a_row_cannot_forge_attributes_and_keeps_its_other_headers() {
    for mode in [Mode::Binary, Mode::Structured] {
        let mut forged = event("text/plain", Some(b"x"));
        let names = [
            "ce_id",
            "CE_source",
            "ce-type",
            "cloudEvents_id",
            "cloudEvents:id",
            "cloudevents_x",
            "traceparent",
            "cert",
            "ce",
            "cloudEvents",
            "é_",
        ];
        forged.message.headers = names.map(|name| (name.into(), "forged".into())).to_vec();
        let headers = applied(mode, forged).message.headers;
        let kept: Vec<&str> = headers
            .iter()
            .filter(|(_, value)| value == "forged")
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(kept, ["traceparent", "cert", "ce", "cloudEvents", "é_"]);
    }
}

#[test]
fn an_event_without_a_key_or_with_an_empty_one_has_neither_subject_nor_partition_key() {
    for key in [None, Some(String::new())] {
        let mut event = event("text/plain", None);
        event.message.key.clone_from(&key);
        let cloud = binary(event).message;
        assert_eq!(cloud.key, key);
        let names: Vec<_> = cloud
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            names,
            ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"]
        );
    }
}

#[test]
fn what_cloudevents_forbid_is_invalid_and_left_as_it_was() {
    type Change = dyn Fn(&mut Message);
    let cases: [(&Change, &str); 8] = [
        (&|message| message.event_type.clear(), "it has no type"),
        (&|message| message.id.clear(), "it has no id"),
        (
            &|message| message.event_type = "a\tb".into(),
            "its type has a '\\t'",
        ),
        (
            &|message| message.key = Some("a\u{85}".into()),
            "its key has a",
        ),
        (&|message| message.id = "\u{ffff}".into(), "its id has a"),
        (
            &|message| message.content_type = "csv".into(),
            "is no media type",
        ),
        (
            &|message| message.content_type = "".into(),
            "is no media type",
        ),
        (
            &|message| message.content_type = "text/a b".into(),
            "is no media type",
        ),
    ];
    for mode in [Mode::Binary, Mode::Structured] {
        for (change, words) in cases {
            let mut broken = event("text/plain", Some(b"x"));
            change(&mut broken.message);
            let refused = applied(mode, broken.clone());
            assert!(reason(&refused).starts_with("invalid: "), "{refused:?}");
            assert!(reason(&refused).contains(words), "{refused:?}");
            assert_eq!(refused.message, broken.message);
        }
    }
}

#[test]
fn a_payload_does_not_pass_for_the_event_itself() {
    let forged = "Application/CloudEvents+json";
    assert!(reason(&binary(event(forged, Some(b"{}")))).contains("would pass"));
    assert_eq!(data(forged, b"{}"), r#""data":{}"#);
}

#[test]
fn what_is_invalid_already_keeps_its_reason() {
    let mut broken = event("csv", None);
    let reason = Reason::new(ReasonKind::TooLarge, "1 GiB");
    broken.invalid = Some(reason.clone());
    assert_eq!(binary(broken).invalid, Some(reason));
}
