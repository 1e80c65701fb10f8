//! Tables whose published rows are deleted.

use crate::scene::{message, preset};

#[tokio::test]
async fn rows_of_debezium_go_to_the_routers_topics_and_are_deleted() {
    preset("debezium")
        .flags(&["--ordering", "none"])
        .to("outbox.event.{topic}")
        .rows(&[
            r#"insert into outboxevent values ('11111111-0000-0000-0000-000000000001', '{topic}', 'a', 'Placed', '{"n": 1}')"#,
            r#"insert into outboxevent values ('11111111-0000-0000-0000-000000000002', '{topic}', 'b', 'Placed', '{"n": 2}')"#,
            r#"insert into outboxevent values ('11111111-0000-0000-0000-000000000003', '{topic}', 'a', 'Löschung', null)"#,
            r#"insert into outboxevent values ('11111111-0000-0000-0000-000000000004', '{topic}', 'b', 'Paid', '{"s": "é☃"}')"#,
        ])
        .arrive_somehow([
            message("11111111-0000-0000-0000-000000000001", "a", r#"{"n": 1}"#).kind("Placed"),
            message("11111111-0000-0000-0000-000000000002", "b", r#"{"n": 2}"#).kind("Placed"),
            message("11111111-0000-0000-0000-000000000003", "a", None).kind("Löschung"),
            message("11111111-0000-0000-0000-000000000004", "b", r#"{"s": "é☃"}"#).kind("Paid"),
        ])
        .and_then("select count(*) = 0 from outboxevent")
        .await;
}

#[tokio::test]
async fn rows_of_debezium_for_quarkus_go_in_the_order_of_their_timestamps_and_are_deleted() {
    preset("debezium-quarkus")
        .to("outbox.event.{topic}")
        .rows(&[
            // Ids are random: these sort the other way round.
            r#"insert into OutboxEvent values ('99999999-0000-0000-0000-000000000001', '{topic}', 'a', 'Placed', '2026-01-02 03:04:05.000001Z', '{"n":1}', null)"#,
            r#"insert into OutboxEvent values ('88888888-0000-0000-0000-000000000002', '{topic}', 'b', 'Placed', '2026-01-02 03:04:05.000002Z', '{"n":2}', null)"#,
            r#"insert into OutboxEvent values ('77777777-0000-0000-0000-000000000003', '{topic}', 'a', 'Removed', '2026-01-02 03:04:05.000003Z', null, E'#Fri Jan 02\ntraceparent=00-aa-bb-01\n')"#,
            r#"insert into OutboxEvent values ('66666666-0000-0000-0000-000000000004', '{topic}', 'b', 'Paid', '2026-01-02 03:04:05.000004Z', '{"s":"é☃"}', '')"#,
        ])
        .arrive([
            message("99999999-0000-0000-0000-000000000001", "a", r#"{"n":1}"#).kind("Placed"),
            message("77777777-0000-0000-0000-000000000003", "a", None).kind("Removed"),
            message("88888888-0000-0000-0000-000000000002", "b", r#"{"n":2}"#).kind("Placed"),
            message("66666666-0000-0000-0000-000000000004", "b", r#"{"s":"é☃"}"#).kind("Paid"),
        ])
        .and_then("select count(*) = 0 from outboxevent")
        .await;
}

#[tokio::test]
async fn rows_of_goharvest_bring_their_two_arrays_of_headers_and_are_deleted() {
    const TEXT: &str = "text/plain; charset=utf-8";
    let plain =
        |id, key, payload: Option<&'static str>| message(id, key, payload).content_type(TEXT);
    preset("goharvest")
        .rows(&[
            "insert into outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values)
             values (now(), '{topic}', 'a', 'eins', '{trace,source}', '{abc,ö}'), (now(), '{topic}', 'b', '{\"n\":2}', '{}', '{}')",
            // A tombstone, and a row that another leader had marked.
            "insert into outbox (create_time, kafka_topic, kafka_key, kafka_value, kafka_header_keys, kafka_header_values, leader_id)
             values (now(), '{topic}', 'a', null, '{}', '{}', null), (now(), '{topic}', 'b', 'é☃', '{}', '{}', gen_random_uuid())",
        ])
        .arrive([
            plain("1", "a", Some("eins")).header("trace", "abc").header("source", "ö"),
            plain("3", "a", None),
            plain("2", "b", Some(r#"{"n":2}"#)),
            plain("4", "b", Some("é☃")),
        ])
        .and_then("select count(*) = 0 from outbox")
        .await;
}

#[tokio::test]
async fn rows_of_watermill_are_deleted_once_published() {
    preset("watermill")
        .flags(&["--table", "watermill_orders", "--topic", "{topic}"])
        .advised(
            "create unique index concurrently on watermill_orders (\"offset\");",
            "",
        )
        .rows(&[
            r#"insert into watermill_orders (uuid, payload, metadata, transaction_id) values
               ('w-1', '{"n":1}', '{"trace":"abc"}', pg_current_xact_id()), ('w-2', '{"n":2}', '{}', pg_current_xact_id())"#,
            r#"insert into watermill_orders (uuid, payload, metadata, transaction_id) values
               ('w-3', null, null, pg_current_xact_id()), ('w-4', '{"s":"é☃"}', null, pg_current_xact_id())"#,
        ])
        .arrive([
            message("w-1", None, r#"{"n":1}"#).header("trace", "abc"),
            message("w-2", None, r#"{"n":2}"#),
            message("w-3", None, None),
            message("w-4", None, r#"{"s":"é☃"}"#),
        ])
        .and_then("select count(*) = 0 from watermill_orders")
        .await;
}
