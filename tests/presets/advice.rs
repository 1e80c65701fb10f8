//! What the presets' files advise works as they say.

use crate::scene::{message, preset};

#[tokio::test]
async fn a_number_added_to_debeziums_table_gives_its_rows_an_order() {
    preset("debezium")
        .advised(
            "alter table outboxevent add column outbox_order bigint generated always as identity unique;",
            "order = \"outbox_order\"",
        )
        .to("outbox.event.{topic}")
        .rows(&[
            r#"insert into outboxevent values ('99999999-0000-0000-0000-000000000001', '{topic}', 'a', 'Placed', '{"n": 1}')"#,
            r#"insert into outboxevent values ('88888888-0000-0000-0000-000000000002', '{topic}', 'b', 'Placed', '{"n": 2}')"#,
            r#"insert into outboxevent values ('77777777-0000-0000-0000-000000000003', '{topic}', 'a', 'Removed', null)"#,
            r#"insert into outboxevent values ('66666666-0000-0000-0000-000000000004', '{topic}', 'b', 'Paid', '{"n": 4}')"#,
        ])
        .arrive([
            message("99999999-0000-0000-0000-000000000001", "a", r#"{"n": 1}"#).kind("Placed"),
            message("77777777-0000-0000-0000-000000000003", "a", None).kind("Removed"),
            message("88888888-0000-0000-0000-000000000002", "b", r#"{"n": 2}"#).kind("Placed"),
            message("66666666-0000-0000-0000-000000000004", "b", r#"{"n": 4}"#).kind("Paid"),
        ])
        .and_then("select count(*) = 0 from outboxevent")
        .await;
}

#[tokio::test]
async fn a_trace_comes_out_of_the_span_context_that_quarkus_writes() {
    preset("debezium-quarkus")
        .advised(
            "alter table outboxevent add column traceparent text
               generated always as (substring(tracingspancontext from 'traceparent=([0-9a-f-]+)')) stored;",
            "[headers]\ntraceparent = \"traceparent\"",
        )
        .to("outbox.event.{topic}")
        .rows(&[
            r#"insert into OutboxEvent values ('44444444-0000-0000-0000-000000000001', '{topic}', 'a', 'Placed', now(), '{"n":1}', E'#Fri Jan 02\ntraceparent=00-aa-bb-01\n')"#,
            r#"insert into OutboxEvent values ('44444444-0000-0000-0000-000000000002', '{topic}', 'a', 'Paid', now() + interval '1 second', '{"n":2}', null)"#,
        ])
        .arrive([
            message("44444444-0000-0000-0000-000000000001", "a", r#"{"n":1}"#)
                .kind("Placed")
                .header("traceparent", "00-aa-bb-01"),
            message("44444444-0000-0000-0000-000000000002", "a", r#"{"n":2}"#).kind("Paid"),
        ])
        .and_then("select count(*) = 0 from outboxevent")
        .await;
}

#[tokio::test]
async fn the_key_in_go_outboxs_target_orders_its_rows() {
    let of = |id, payload: &'static str| {
        let message = message(id, "a", payload).content_type("application/octet-stream");
        message.header("message_id", id)
    };
    preset("go-outbox")
        .advised(
            "alter table outbox.messages add column partition_key text generated always as (target ->> 'key') stored;",
            "key = \"partition_key\"",
        )
        .rows(&[
            r#"insert into outbox.messages (id, stream, topic, payload, target) values
               ('99999999-0000-0000-0000-000000000001', 'local', '{topic}', 'eins', '{"key": "a"}')"#,
            r#"insert into outbox.messages (id, stream, topic, payload, target) values
               ('88888888-0000-0000-0000-000000000002', 'local', '{topic}', 'zwei', '{"key": "a"}')"#,
        ])
        .arrive([
            of("99999999-0000-0000-0000-000000000001", "eins"),
            of("88888888-0000-0000-0000-000000000002", "zwei"),
        ])
        .and_then("select bool_and(status = 2) from outbox.messages")
        .await;
}

#[tokio::test]
async fn the_partition_in_eventuates_headers_orders_its_rows() {
    let of = |id, payload: &'static str| {
        let message = message(id, "a", payload).header("PARTITION_ID", "a");
        message.header("ID", id)
    };
    preset("eventuate")
        .advised(
            "alter table eventuate.message add column partition_id text
               generated always as (headers::json ->> 'PARTITION_ID') stored;",
            "key = \"partition_id\"",
        )
        .rows(&[
            r#"insert into eventuate.message (id, destination, headers, payload) values
               ('0000019b-0002', '{topic}', '{"ID":"0000019b-0002","PARTITION_ID":"a"}', '{"n":2}'),
               ('0000019b-0001', '{topic}', '{"ID":"0000019b-0001","PARTITION_ID":"a"}', '{"n":1}')"#,
        ])
        .arrive([
            of("0000019b-0001", r#"{"n":1}"#),
            of("0000019b-0002", r#"{"n":2}"#),
        ])
        .and_then("select bool_and(published = 1) from eventuate.message")
        .await;
}

#[tokio::test]
async fn messages_of_cap_come_as_its_consumers_read_them() {
    preset("cap")
        .advised(
            "alter table cap.published
               add column message_value json generated always as (\"Content\"::json -> 'Value') stored,
               add column message_headers json generated always as (\"Content\"::json -> 'Headers') stored;",
            "payload = \"message_value\"\nheaders_json = \"message_headers\"",
        )
        .rows(&[
            r#"insert into cap.published values
               (7001, 'v1', '{topic}', '{"Headers":{"cap-msg-id":"7001","cap-msg-name":"{topic}"},"Value":{"n":1, "s":"é☃"}}', 0, now(), null, 'Scheduled')"#,
        ])
        .arrive([message("7001", None, r#"{"n":1, "s":"é☃"}"#)
            .header("cap-msg-id", "7001")
            .header("cap-msg-name", "{topic}")])
        .and_then(r#"select bool_and("StatusName" = 'Succeeded') from cap.published"#)
        .await;
}

#[tokio::test]
async fn the_queue_in_deroldos_destinations_is_where_its_rows_go() {
    preset("deroldo")
        .advised(
            "alter table outbox add column queue text
               generated always as (substring(destinations -> 0 ->> 'queue_url' from '[^/]+$')) stored;",
            "destination = \"queue\"",
        )
        .rows(&[
            r#"insert into outbox (idempotent_key, partition_key, destinations, payload) values
               ('99999999-0000-0000-0000-000000000001', '00000000-0000-0000-0000-00000000000a', '[{"queue_url": "https://sqs.eu-central-1/1/{topic}"}]', 'eins')"#,
        ])
        .arrive([message("99999999-0000-0000-0000-000000000001", "00000000-0000-0000-0000-00000000000a", "eins")
            .content_type("text/plain; charset=utf-8")
            .header("x-idempotent-key", "99999999-0000-0000-0000-000000000001")])
        .and_then("select count(processed_at) = 1 from outbox")
        .await;
}

#[tokio::test]
async fn the_headers_in_sbmts_options_are_sent() {
    preset("sbmt")
        .flags(&["--table", "order_outbox_items", "--topic", "{topic}"])
        .advised(
            "alter table order_outbox_items add column headers jsonb generated always as (options -> 'headers') stored;",
            "headers_json = \"headers\"",
        )
        .rows(&[
            r#"insert into order_outbox_items (uuid, event_key, bucket, options, payload, created_at, updated_at) values
               ('44444444-0000-0000-0000-000000000001', 'a', 1, '{"headers": {"trace": "abc"}}', 'eins', now(), now())"#,
        ])
        .arrive([message("44444444-0000-0000-0000-000000000001", "a", "eins")
            .content_type("application/octet-stream")
            .header("Idempotency-Key", "44444444-0000-0000-0000-000000000001")
            .header("Sequence-ID", "1")
            .header("trace", "abc")])
        .and_then("select bool_and(status = 2) from order_outbox_items")
        .await;
}
