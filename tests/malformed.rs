//! Thousands of malformed rows among good ones, through the shipped binary to each broker: whatever
//! can be sent arrives in order, whatever cannot is dead with a reason, and nothing else happens.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};

use common::{
    broker::{Broker, Kind},
    database::Database,
    relay::{Relay, until},
};
use sqlx::{AssertSqlSafe, Row as _};

/// One row in three is malformed: 5,000 for each broker, in two tests.
const ROWS: usize = 7_500;

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Published,
    /// Dead, with this kind of reason, at the first attempt.
    Dead(&'static str),
}

const SENT: Fate = Fate::Published;
const INVALID: Fate = Fate::Dead("invalid");
const UNROUTABLE: Fate = Fate::Dead("unroutable");

/// A column, an SQL expression for it (`n` is the row's number), and what follows on Kafka and on RabbitMQ.
type Malformed = (&'static str, &'static str, Fate, Fate);

const MALFORMED: [Malformed; 34] = [
    // Headers that are no object.
    ("headers", r#"'["a"]'"#, INVALID, INVALID),
    ("headers", r#"'"text"'"#, INVALID, INVALID),
    ("headers", "'17'", INVALID, INVALID),
    ("headers", "'true'", INVALID, INVALID),
    ("headers", "'null'", SENT, SENT),
    // Headers that would smuggle, or that no protocol has room for.
    ("headers", r#"'{"": "x"}'"#, INVALID, INVALID),
    ("headers", r#"'{"a": "x\r\ny"}'"#, INVALID, INVALID),
    ("headers", r#"'{"a\nb": "x"}'"#, INVALID, INVALID),
    (
        "headers",
        r#"'{"content-type": "a\r\nb: c"}'"#,
        INVALID,
        INVALID,
    ),
    (
        "headers",
        "jsonb_build_object(repeat('h', 300), 'x')",
        SENT,
        INVALID,
    ),
    (
        "headers",
        "jsonb_build_object('content-type', repeat('t', 300))",
        SENT,
        INVALID,
    ),
    // Headers that only look bad.
    (
        "headers",
        r#"'{"a": {"b": [1, {"c": null}]}, "d": 1e400}'"#,
        SENT,
        SENT,
    ),
    (
        "headers",
        r#"'{"id": "forged", "type": "forged", "aggregate_id": "forged"}'"#,
        SENT,
        SENT,
    ),
    (
        "headers",
        r#"'{"CONTENT-TYPE": 5, "Content-Type": "x"}'"#,
        SENT,
        SENT,
    ),
    (
        "headers",
        "jsonb_build_object('big', repeat('v', 70000))",
        SENT,
        SENT,
    ),
    // Keys and types.
    ("aggregate_id", "''", SENT, SENT),
    ("aggregate_id", r"E'a\r\nb'", SENT, SENT),
    (
        "aggregate_id",
        r"U&'\+01F600\0301\200D\202E\FEFF'",
        SENT,
        SENT,
    ),
    ("aggregate_id", "repeat('k', 5000)", SENT, SENT),
    ("event_type", "''", SENT, SENT),
    ("event_type", "repeat('t', 300)", SENT, INVALID),
    // Destinations, each of its own: one that rejects many is paused.
    ("topic", "'no/such topic ' || n", INVALID, UNROUTABLE),
    ("topic", r"E'a\r\nb' || n", INVALID, UNROUTABLE),
    ("topic", r"U&'\00FC\+01F600' || n", INVALID, UNROUTABLE),
    ("topic", "repeat('x', 250) || n", INVALID, UNROUTABLE),
    ("topic", "repeat('x', 300) || n", INVALID, INVALID),
    // Times.
    ("created_at", "'infinity'", SENT, SENT),
    ("created_at", "'-infinity'", SENT, SENT),
    ("created_at", "'2999-01-01'", SENT, SENT),
    ("created_at", "'1969-12-31 23:59:59.999Z'", SENT, SENT),
    ("created_at", "'4713-01-01 BC'", SENT, SENT),
    ("created_at", "'294276-12-31'", SENT, SENT),
    // Payloads.
    ("payload", "null", SENT, SENT),
    ("payload", "{payload}", SENT, SENT),
];

fn fate(number: usize, kind: Kind) -> Fate {
    if !number.is_multiple_of(3) {
        return SENT;
    }
    let (.., on_kafka, on_rabbitmq) = MALFORMED[number / 3 % MALFORMED.len()];
    match kind {
        Kind::Kafka => on_kafka,
        Kind::Rabbitmq => on_rabbitmq,
    }
}

async fn insert(database: &Database, topic: &str, payload_type: &str) {
    // Text that is hostile to a lexer, by type: nested, escaped, not UTF-8.
    let payload = match payload_type {
        "jsonb" => r#"(repeat('[', 500) || '"\u0001\u2028"' || repeat(']', 500))::jsonb"#,
        "text" => r"E'\x01\r\n''\\' || repeat('}', 500)",
        _ => r"'\x00ff0d0afffe'::bytea",
    };
    database
        .execute(&format!(
            "alter table outbox alter payload type {payload_type} using null;
             insert into outbox (aggregate_type, aggregate_id, event_type)
               select '{topic}', 'key-' || n % 101, 'Tested' from generate_series(1, {ROWS}) n"
        ))
        .await;
    let mut changes: BTreeMap<&str, String> = BTreeMap::new();
    for (index, (column, value, ..)) in MALFORMED.iter().enumerate() {
        let (value, kinds) = (value.replace("{payload}", payload), MALFORMED.len());
        let case = format!(" when n % 3 = 0 and n / 3 % {kinds} = {index} then {value}");
        changes.entry(column).or_default().push_str(&case);
    }
    let sets = changes
        .iter()
        .map(|(column, cases)| format!("{column} = case{cases} else o.{column} end"));
    let sets = sets.collect::<Vec<_>>().join(", ");
    database
        .execute(&format!(
            "update outbox o set {sets} from (select id as n from outbox) r where o.id = n"
        ))
        .await;
}

/// Every row ends as it must, and what was sent arrives, each key's in order.
async fn malformed_rows_end_as_they_must(kind: Kind, payload_type: &str) {
    let (broker, database) = (Broker::shared(kind), Database::new().await);
    let topic = broker.destination().await;
    insert(&database, &topic, payload_type).await;
    let dying = ["--on-unroutable", "dead"];
    let flags = [
        &["--database-url", &database.url][..],
        &broker.flags(),
        &dying,
    ]
    .concat();
    let relay = Relay::run(&flags).ready().await;
    until("every row is published or dead", || async {
        database
            .number("select count(*) from outbox o where published_at is null and not exists (select from outbox_failures f where f.id = o.id and f.state = 'dead')")
            .await
            == 0
    })
    .await;
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
    assert!(relay.stop().await.success());

    let rows = sqlx::query(AssertSqlSafe(
        "select o.id, o.event_id::text, o.aggregate_id, o.published_at is not null, f.attempts, \
                split_part(f.reason, ':', 1) \
           from outbox o left join outbox_failures f on f.id = o.id",
    ))
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap();
    assert_eq!(rows.len(), ROWS);
    let mut sent: HashMap<String, (i64, String)> = HashMap::new();
    for row in &rows {
        let (id, published): (i64, bool) = (row.get(0), row.get(3));
        let failure: (Option<i32>, Option<String>) = (row.get(4), row.get(5));
        let number = usize::try_from(id).unwrap();
        let context = format!("row {id}: {:?}", MALFORMED[number / 3 % MALFORMED.len()]);
        match fate(number, kind) {
            Fate::Published => {
                assert!(
                    published && failure == (None, None),
                    "{context}: {failure:?}"
                );
                sent.insert(row.get(1), (id, row.get(2)));
            }
            Fate::Dead(why) => {
                assert!(!published, "{context}");
                assert_eq!(failure, (Some(1), Some(why.to_owned())), "{context}");
            }
        }
    }
    let mut arrived = HashSet::new();
    let mut latest: HashMap<String, i64> = HashMap::new();
    for delivery in broker.read(&topic).await {
        let (id, key) = &sent[&delivery.id];
        assert_eq!(delivery.key.as_ref(), Some(key), "row {id}");
        if arrived.insert(*id) {
            let before = latest.insert(key.clone(), *id).unwrap_or_default();
            assert!(
                before < *id,
                "row {id} of {key} first arrived after {before}"
            );
        }
    }
    assert_eq!(arrived.len(), sent.len(), "all that was published arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_gets_what_can_be_sent_of_json() {
    malformed_rows_end_as_they_must(Kind::Kafka, "jsonb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_gets_what_can_be_sent_of_bytes() {
    malformed_rows_end_as_they_must(Kind::Kafka, "bytea").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_gets_what_can_be_sent_of_json() {
    malformed_rows_end_as_they_must(Kind::Rabbitmq, "jsonb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_gets_what_can_be_sent_of_text() {
    malformed_rows_end_as_they_must(Kind::Rabbitmq, "text").await;
}
