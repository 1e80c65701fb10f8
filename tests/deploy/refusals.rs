//! Values that the chart refuses, with a message that names the fault.

use std::fs;

use serde_json::{Value, json};

use crate::{Folder, chart::render, documents};

/// What is wrong, the values that say so (added to good ones), and words of the message.
const REFUSED: [(&str, &str, &str); 25] = [
    ("unknown", "replica: 3", "replica"),
    ("unknown-setting", "settings: {bath-size: 10}", "bath-size"),
    (
        "a-secret",
        "settings: {database-url: postgres://u:p@h/d}",
        "database-url",
    ),
    ("a-text", "replicas: two", "/replicas"),
    ("negative", "replicas: -1", "/replicas"),
    ("beyond-lanes", "replicas: 65", "/replicas"),
    ("no-workers", "settings: {workers: 0}", "/settings/workers"),
    (
        "no-duration",
        "settings: {retention: a while}",
        "/settings/retention",
    ),
    (
        "no-unit",
        "settings: {poll-interval: '5'}",
        "/settings/poll-interval",
    ),
    (
        "no-size",
        "settings: {batch-bytes: 4 MegaBytes}",
        "/settings/batch-bytes",
    ),
    (
        "no-port",
        "settings: {kafka-brokers: kafka}",
        "/settings/kafka-brokers",
    ),
    (
        "wrong-word",
        "settings: {on-dead: explode}",
        "/settings/on-dead",
    ),
    ("wrong-sink", "settings: {sink: stdout}", "/settings/sink"),
    (
        "a-password",
        "kafkaOptions: {sasl.password: x}",
        "sasl.password",
    ),
    (
        "no-name",
        "secrets: {rabbitmqUrl: {key: url}}",
        "rabbitmqUrl",
    ),
    ("no-digest", "image: {digest: 'sha256:12'}", "/image/digest"),
    (
        "pull",
        "image: {pullPolicy: Sometimes}",
        "/image/pullPolicy",
    ),
    (
        "port",
        "networkPolicy: {egressPorts: [99999]}",
        "/networkPolicy/egressPorts",
    ),
    (
        "everybody",
        "networkPolicy: {ingressFrom: [{}]}",
        "/networkPolicy/ingressFrom",
    ),
    (
        "extra",
        "migration: {with: [everything]}",
        "/migration/with",
    ),
    (
        "two-roles-in-one",
        "migration: {grantTo: ['a,b']}",
        "/migration/grantTo",
    ),
    (
        "interval",
        "podMonitor: {interval: often}",
        "/podMonitor/interval",
    ),
    (
        "two-brokers",
        "secrets: {rabbitmqUrl: {name: r, key: url}}",
        "both brokers are set",
    ),
    (
        "too-short",
        "shutdownTimeoutSeconds: 30",
        "must be longer than publishTimeoutSeconds",
    ),
    (
        "upside-down",
        "autoscaling: {enabled: true, minReplicas: 9}",
        "minReplicas is above",
    ),
];

/// Those that are wrong by what is missing.
const LACKING: [(&str, &str, &str); 2] = [
    (
        "no-database",
        "settings: {kafka-brokers: 'k:9092'}",
        "secrets.databaseUrl.name is not set",
    ),
    (
        "no-broker",
        "secrets: {databaseUrl: {name: db, key: url}}",
        "no broker is set",
    ),
];

/// Objects member by member, as Helm merges values.
fn merge(values: &mut Value, over: &Value) {
    match (values, over) {
        (Value::Object(values), Value::Object(over)) => {
            for (name, value) in over {
                merge(values.entry(name).or_insert(Value::Null), value);
            }
        }
        (value, over) => *value = over.clone(),
    }
}

#[test]
fn nonsense_is_refused_with_a_message_that_names_it() {
    let folder = Folder::new();
    let good = json!({
        "secrets": {"databaseUrl": {"name": "db", "key": "url"}},
        "settings": {"kafka-brokers": "kafka:9092"},
    });
    let mut files = Vec::new();
    let mut write = |name: &str, values: &Value| {
        let file = folder.0.join(name).with_extension("yaml");
        fs::write(&file, values.to_string()).unwrap();
        files.push(file);
    };
    write("good", &good);
    for (name, over, _) in REFUSED {
        let mut values = good.clone();
        merge(&mut values, &documents(over)[0]);
        write(name, &values);
    }
    for (name, values, _) in LACKING {
        write(name, &documents(values)[0]);
    }
    let rendered = render(&files);
    assert!(rendered["good"].is_ok(), "{:?}", rendered["good"]);
    for (name, _, message) in REFUSED.into_iter().chain(LACKING) {
        let refusal = rendered[name].as_ref().err();
        let refusal = refusal.unwrap_or_else(|| panic!("{name} was taken"));
        assert!(refusal.contains(message), "{name}: {refusal}");
    }
}
