//! CloudEvents, from rows to what a consumer reads, through the shipped binary and real brokers.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{
    broker::{Broker, Kind},
    database::Database,
    kafka, rabbitmq,
    relay::outboxd,
};
use rdkafka::Message as _;
use serde_json::{Value, json};

const SOURCE: &str = "https://example.com/shop";
const ID: &str = "01920000-0000-7000-8000-00000000000";
const JSON: &str = r#"{"n": 12345678901234567890.10}"#;

/// A message as a consumer reads it. On RabbitMQ the properties stand under Kafka's names of headers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delivery {
    key: Option<String>,
    headers: BTreeMap<String, String>,
    body: Option<Vec<u8>>,
}

/// A table with these payloads of one type, one key each (`k1`, `k2`, …).
async fn table(topic: &str, payload_type: &str, payloads: &[&str]) -> Database {
    let database = Database::new().await;
    let retype = format!(
        "alter table outbox alter payload type {payload_type} using payload::text::{payload_type};"
    );
    let rows = payloads.iter().enumerate().map(|(index, payload)| {
        let n = index + 1;
        format!(
            "insert into outbox (event_id, aggregate_type, aggregate_id, event_type, payload, headers, created_at) \
             values ('{ID}{n}', '{topic}', 'k{n}', 'Placed', {payload}, \
                     '{{\"tenant\": \"acme\", \"ce_id\": \"forged\", \"cloudEvents:id\": \"forged\"}}', '2024-02-29 12:34:56.789012+00');"
        )
    });
    let rows: String = rows.collect();
    database.execute(&(retype + &rows)).await;
    database
}

/// Publishes what is there in this format.
fn drain(broker: &Broker, database: &Database, format: &str) {
    let format = ["--message-format", format, "--cloudevents-source", SOURCE];
    let database = ["--database-url", &database.url];
    let (code, _, errors) =
        outboxd(&[&["drain"], &broker.flags()[..], &database, &format].concat());
    assert_eq!(code, 0, "{errors}");
}

/// Everything in a destination, in the order of keys.
async fn read(broker: &Broker, destination: &str) -> Vec<Delivery> {
    let mut deliveries = match broker.kind {
        Kind::Kafka => {
            let (brokers, topic) = (broker.address.clone(), destination.to_owned());
            let reading = tokio::task::spawn_blocking(move || kafka::read_topic(&brokers, &topic));
            let messages = reading.await.unwrap();
            messages.iter().map(of_kafka).collect::<Vec<_>>()
        }
        Kind::Rabbitmq => {
            let deliveries = rabbitmq::read(&broker.address, destination, true).await;
            deliveries.into_iter().map(of_rabbitmq).collect()
        }
    };
    deliveries.sort_by(|a, b| a.key.cmp(&b.key));
    deliveries
}

fn of_kafka(message: &rdkafka::message::OwnedMessage) -> Delivery {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let headers = kafka::headers(message);
    let count = headers.len();
    let headers: BTreeMap<_, _> = headers.into_iter().collect();
    assert_eq!(headers.len(), count, "a header twice: {headers:?}");
    Delivery {
        key: message.key().map(text),
        headers,
        body: message.payload().map(<[u8]>::to_vec),
    }
}

fn of_rabbitmq(delivery: lapin::message::Delivery) -> Delivery {
    let mut headers: BTreeMap<_, _> = rabbitmq::headers(&delivery).into_iter().collect();
    let properties = &delivery.properties;
    for (name, property) in [
        ("id", properties.message_id()),
        ("type", properties.kind()),
        ("content-type", properties.content_type()),
    ] {
        headers.insert(name.into(), rabbitmq::text(property.as_ref()));
    }
    Delivery {
        key: headers.remove("aggregate_id"),
        headers,
        body: Some(delivery.data),
    }
}

/// What every message of row `n` has, whatever its format, with this content type.
fn plain_headers(n: usize, content_type: &str) -> BTreeMap<String, String> {
    let headers = [
        ("id", format!("{ID}{n}")),
        ("type", "Placed".into()),
        ("content-type", content_type.into()),
        ("tenant", "acme".into()),
    ];
    headers.map(|(name, value)| (name.to_owned(), value)).into()
}

fn attributes(n: usize) -> [(&'static str, String); 7] {
    [
        ("specversion", "1.0".into()),
        ("id", format!("{ID}{n}")),
        ("source", SOURCE.into()),
        ("type", "Placed".into()),
        ("subject", format!("k{n}")),
        ("partitionkey", format!("k{n}")),
        ("time", "2024-02-29T12:34:56.789Z".into()),
    ]
}

async fn binary_messages_are_plain_ones_with_attributes(kind: Kind, prefix: &str) {
    let broker = Broker::shared(kind);
    let topic = broker.destination().await;
    let database = table(&topic, "json", &[&format!("'{JSON}'"), "null"]).await;
    drain(&broker, &database, "cloudevents-binary");
    let nothing = match kind {
        Kind::Kafka => None,
        Kind::Rabbitmq => Some(Vec::new()),
    };
    let expected = [(1, Some(JSON.into())), (2, nothing)].map(|(n, body)| {
        let mut headers = plain_headers(n, "application/json");
        headers.extend(attributes(n).map(|(name, value)| (format!("{prefix}{name}"), value)));
        Delivery {
            key: Some(format!("k{n}")),
            headers,
            body,
        }
    });
    assert_eq!(read(&broker, &topic).await, expected);
}

#[tokio::test]
async fn kafka_gets_plain_messages_with_attributes() {
    binary_messages_are_plain_ones_with_attributes(Kind::Kafka, "ce_").await;
}

#[tokio::test]
async fn rabbitmq_gets_plain_messages_with_attributes() {
    binary_messages_are_plain_ones_with_attributes(Kind::Rabbitmq, "cloudEvents_").await;
}

/// Rows of one type become these data, behind the attributes.
async fn are_documents(kind: Kind, payload_type: &str, content_type: &str, rows: &[(&str, &str)]) {
    let broker = Broker::shared(kind);
    let topic = broker.destination().await;
    let payloads: Vec<&str> = rows.iter().map(|(payload, _)| *payload).collect();
    let database = table(&topic, payload_type, &payloads).await;
    drain(&broker, &database, "cloudevents-structured");
    let expected = rows.iter().enumerate().map(|(index, (_, data))| {
        let n = index + 1;
        let attributes = attributes(n).map(|(name, value)| format!(r#""{name}":"{value}","#));
        let attributes = attributes.concat();
        let body = format!(r#"{{{attributes}"datacontenttype":"{content_type}"{data}}}"#);
        Delivery {
            key: Some(format!("k{n}")),
            headers: plain_headers(n, "application/cloudevents+json; charset=UTF-8"),
            body: Some(body.into()),
        }
    });
    assert_eq!(read(&broker, &topic).await, expected.collect::<Vec<_>>());
}

async fn structured_messages_are_documents(kind: Kind) {
    let json = format!(r#","data":{JSON}"#);
    let rows = [(&*format!("'{JSON}'"), &*json), ("null", "")];
    are_documents(kind, "json", "application/json", &rows).await;
    let rows = [
        ("'a \"b\"'", r#","data":"a \"b\"""#),
        ("''", r#","data":"""#),
    ];
    are_documents(kind, "text", "text/plain; charset=utf-8", &rows).await;
    let rows = [(r"'\xfffe'", r#","data_base64":"//4=""#)];
    are_documents(kind, "bytea", "application/octet-stream", &rows).await;
}

#[tokio::test]
async fn kafka_gets_documents() {
    structured_messages_are_documents(Kind::Kafka).await;
}

#[tokio::test]
async fn rabbitmq_gets_documents() {
    structured_messages_are_documents(Kind::Rabbitmq).await;
}

#[tokio::test]
async fn what_cannot_be_a_cloudevent_or_grows_too_large_dies_alone() {
    const LIMIT: u32 = 2_000;
    let broker = Broker::shared(Kind::Kafka);
    let topic = common::unique("cloudevents");
    broker.create_refusing(&topic, LIMIT).await;
    // Random, as it is compressed.
    let large =
        "(select decode(string_agg(md5(n::text), ''), 'hex') from generate_series(1, 94) n)";
    let database = table(&topic, "bytea", &["'a'", "'b'", large, "'d'"]).await;
    database
        .execute("update outbox set event_type = '' where aggregate_id = 'k2'")
        .await;
    drain(&broker, &database, "cloudevents-structured");
    // What was on its way beside the refused one may have been sent again.
    let keys = async || -> BTreeSet<_> {
        let deliveries = read(&broker, &topic).await.into_iter();
        deliveries.filter_map(|delivery| delivery.key).collect()
    };
    assert_eq!(keys().await, ["k1", "k4"].map(str::to_owned).into());
    let reasons = database.text("select string_agg(key || ' ' || state || ' ' || attempts || ' ' || reason, '; ' order by key) from outbox_failures").await;
    let expected =
        "k2 dead 1 invalid: it has no type, which CloudEvents must have; k3 dead 1 too_large: ";
    assert!(reasons.starts_with(expected), "{reasons}");

    // As plain messages both can be sent.
    let (code, _, errors) = outboxd(&["dead", "retry", "--all", "--database-url", &database.url]);
    assert_eq!(code, 0, "{errors}");
    let flags = [
        &["drain", "--database-url", &database.url][..],
        &broker.flags(),
    ]
    .concat();
    let (code, _, errors) = outboxd(&flags);
    assert_eq!(code, 0, "{errors}");
    let all = ["k1", "k2", "k3", "k4"].map(str::to_owned);
    assert_eq!(keys().await, all.into());
}

fn lines(arguments: &[&str]) -> Vec<Value> {
    let (code, output, errors) = outboxd(arguments);
    assert_eq!(code, 0, "{errors}");
    let lines = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[tokio::test]
async fn peek_and_stdout_show_what_is_sent() {
    let database = table("orders", "json", &[&format!("'{JSON}'")]).await;
    let peek = |format: &str, more: &[&str]| {
        let flags = [
            "peek",
            "--database-url",
            &database.url,
            "--cloudevents-source",
            SOURCE,
            "--message-format",
            format,
        ];
        lines(&[&flags[..], more].concat()).remove(0)
    };
    let kafka = peek("cloudevents-binary", &[]);
    assert_eq!(kafka["headers"]["ce_source"], SOURCE);
    assert_eq!(
        kafka["payload"],
        serde_json::from_str::<Value>(JSON).unwrap()
    );
    let rabbitmq = peek("cloudevents-binary", &["--rabbitmq-url", "amqp://nowhere/"]);
    assert_eq!(rabbitmq["headers"]["cloudEvents_source"], SOURCE);
    let named = peek("cloudevents-binary", &["--sink", "rabbitmq"]);
    assert_eq!(named["headers"], rabbitmq["headers"]);
    let mut document = peek("cloudevents-structured", &[]);
    assert_eq!(document["headers"], json!({"tenant": "acme"}));
    assert_eq!(document["payload"]["subject"], "k1");

    let flags = ["drain", "--database-url", &database.url, "--sink", "stdout"];
    let format = [
        "--message-format",
        "cloudevents-structured",
        "--cloudevents-source",
        SOURCE,
    ];
    let sent = lines(&[&flags[..], &format].concat()).remove(0);
    document.as_object_mut().unwrap().remove("row");
    assert_eq!(sent, document);
}

#[test]
fn settings_that_do_not_fit_together_are_refused_with_the_remedy() {
    let refused = |flags: &[&str]| {
        let database = ["--database-url", "postgres://127.0.0.1:1/x"];
        for command in [&["run", "--sink", "stdout"][..], &["peek"]] {
            let (code, _, errors) = outboxd(&[command, &database, flags].concat());
            assert_eq!(code, 78, "{errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
        }
        let (_, _, errors) = outboxd(&[&["peek"][..], &database, flags].concat());
        errors
    };
    let without = refused(&["--message-format", "cloudevents-binary"]);
    assert!(
        without.contains("needs --cloudevents-source: say"),
        "{without}"
    );
    let idle = refused(&["--cloudevents-source", "/shop"]);
    assert!(
        idle.contains("does nothing with --message-format plain: leave it out"),
        "{idle}"
    );
    let unknown = refused(&["--message-format", "avro", "--cloudevents-source", "/shop"]);
    assert!(
        unknown.contains("none of plain, cloudevents-binary, cloudevents-structured"),
        "{unknown}"
    );
    for source in ["", "my shop"] {
        let broken = refused(&[
            "--message-format",
            "cloudevents-structured",
            "--cloudevents-source",
            source,
        ]);
        assert!(
            broken.contains("is not a URI reference") && broken.contains("write it like"),
            "{broken}"
        );
    }
}
