//! Tables that do not say where their events go: the user does, by --topic.

use crate::scene::{message, preset};

const TOPIC: [&str; 2] = ["--topic", "{topic}"];

#[tokio::test]
async fn rows_of_namastack_are_completed_and_failed_ones_stay() {
    preset("namastack")
        .flags(&TOPIC)
        .rows(&[
            r#"insert into outbox_record values
               ('z-1', 'NEW', 'a', 'com.example.Placed', '{"n":1}', '{"trace":"abc"}', '2026-01-02 03:04:05.1Z', null, 0, null, now(), 7, 'h'),
               ('y-2', 'NEW', 'b', 'com.example.Placed', '{"n":2}', '{}', '2026-01-02 03:04:05.2Z', null, 2, 'refused', now() + interval '1 hour', 8, 'h'),
               ('x-3', 'NEW', 'a', 'com.example.Paid', '{"s":"é☃"}', null, '2026-01-02 03:04:05.3Z', null, 0, null, now(), 7, 'h'),
               ('w-4', 'NEW', 'b', 'com.example.Paid', '{"n":4}', null, '2026-01-02 03:04:05.4Z', null, 0, null, now(), 8, 'h'),
               ('v-5', 'FAILED', 'b', 'com.example.Paid', '{}', null, now(), null, 3, 'no', now(), 8, 'h')"#,
        ])
        .arrive([
            message("z-1", "a", r#"{"n":1}"#).kind("com.example.Placed").header("trace", "abc"),
            message("x-3", "a", r#"{"s":"é☃"}"#).kind("com.example.Paid"),
            message("y-2", "b", r#"{"n":2}"#).kind("com.example.Placed"),
            message("w-4", "b", r#"{"n":4}"#).kind("com.example.Paid"),
        ])
        .and_then(
            "select count(*) filter (where status = 'COMPLETED' and completed_at is not null) = 4
                and count(*) filter (where status = 'FAILED' and completed_at is null) = 1 from outbox_record",
        )
        .await;
}

/// Columns of both versions.
const PUBLICATIONS: &str = r#"insert into event_publication (id, listener_id, event_type, serialized_event, publication_date, completion_date) values
    ('44444444-0000-0000-0000-000000000001', 'org.springframework.modulith.events.support.DelegatingEventExternalizer.externalize(java.lang.Object)', 'com.example.Placed', '{"n":1}', now(), null),
    ('44444444-0000-0000-0000-000000000002', 'org.springframework.modulith.events.support.DelegatingEventExternalizer.externalize(java.lang.Object)', 'com.example.Paid', '{"s":"é☃"}', now(), null),
    ('44444444-0000-0000-0000-000000000003', 'org.springframework.modulith.events.support.DelegatingEventExternalizer.externalize(java.lang.Object)', 'com.example.Paid', '{}', now(), now()),
    ('44444444-0000-0000-0000-000000000004', 'com.example.Mailer.on(com.example.Placed)', 'com.example.Placed', '{"n":1}', now(), null)"#;

#[tokio::test]
async fn externalizations_of_spring_modulith_1_are_completed_and_other_listeners_calls_stay() {
    preset("modulith-v1")
        .flags(&TOPIC)
        .rows(&[PUBLICATIONS])
        .arrive([
            message("44444444-0000-0000-0000-000000000001", None, r#"{"n":1}"#).kind("com.example.Placed"),
            message("44444444-0000-0000-0000-000000000002", None, r#"{"s":"é☃"}"#).kind("com.example.Paid"),
        ])
        .and_then(
            "select count(completion_date) = 3 and bool_or(listener_id like '%Mailer%' and completion_date is null)
               from event_publication",
        )
        .await;
}

#[tokio::test]
async fn externalizations_of_spring_modulith_2_are_completed_and_other_listeners_calls_stay() {
    preset("modulith-v2")
        .flags(&TOPIC)
        .rows(&[
            PUBLICATIONS,
            "update event_publication set status = 'FAILED', completion_attempts = 1 where completion_date is null",
        ])
        .arrive([
            message("44444444-0000-0000-0000-000000000001", None, r#"{"n":1}"#).kind("com.example.Placed"),
            message("44444444-0000-0000-0000-000000000002", None, r#"{"s":"é☃"}"#).kind("com.example.Paid"),
        ])
        .and_then(
            "select count(*) filter (where status = 'COMPLETED' and completion_date is not null) = 2
                and bool_or(listener_id like '%Mailer%' and completion_date is null and status = 'FAILED')
               from event_publication",
        )
        .await;
}

#[tokio::test]
async fn rows_of_oxide_are_sent_also_those_that_were_being_processed() {
    preset("oxide")
        .flags(&TOPIC)
        .rows(&[
            r#"insert into outbox_events (id, idempotency_token, event_type, payload, status, locked_until) values
               ('44444444-0000-0000-0000-000000000001', 'once-1', 'OrderPlaced', '{"n": 1}', 'Pending', '-infinity'),
               ('44444444-0000-0000-0000-000000000002', null, 'OrderPaid', '{"s": "é☃"}', 'Processing', now() + interval '5 minutes')"#,
        ])
        .arrive([
            message("44444444-0000-0000-0000-000000000001", None, r#"{"n": 1}"#)
                .kind("OrderPlaced")
                .header("event_id", "44444444-0000-0000-0000-000000000001")
                .header("event_type", "OrderPlaced")
                .header("idempotency_token", "once-1"),
            message("44444444-0000-0000-0000-000000000002", None, r#"{"s": "é☃"}"#)
                .kind("OrderPaid")
                .header("event_id", "44444444-0000-0000-0000-000000000002")
                .header("event_type", "OrderPaid"),
        ])
        .and_then("select bool_and(status = 'Sent') from outbox_events")
        .await;
}

#[tokio::test]
async fn rows_of_deroldo_are_processed_and_given_up_ones_stay() {
    let of = |id, key: &'static str, payload: &'static str| {
        let message = message(id, key, payload).header("x-idempotent-key", id);
        message.content_type("text/plain; charset=utf-8")
    };
    preset("deroldo")
        .flags(&TOPIC)
        .rows(&[
            r#"insert into outbox (idempotent_key, partition_key, destinations, headers, payload, process_after, attempts) values
               ('99999999-0000-0000-0000-000000000001', '00000000-0000-0000-0000-00000000000a', '[{"queue_url": "https://sqs/1/orders"}]', '{"trace": "abc"}', 'eins', '2026-01-02 03:04:05.1Z', 0),
               ('88888888-0000-0000-0000-000000000002', '00000000-0000-0000-0000-00000000000b', '[]', null, 'zwei', '2026-01-02 03:04:05.2Z', 9),
               ('77777777-0000-0000-0000-000000000003', '00000000-0000-0000-0000-00000000000a', '[]', '{}', 'é☃', '2026-01-02 03:04:05.3Z', 0),
               ('66666666-0000-0000-0000-000000000004', '00000000-0000-0000-0000-00000000000b', '[]', null, 'vier', '2026-01-02 03:04:05.4Z', 0),
               ('55555555-0000-0000-0000-000000000005', '00000000-0000-0000-0000-00000000000b', '[]', null, 'given up', now(), 10)"#,
        ])
        .arrive([
            of("99999999-0000-0000-0000-000000000001", "00000000-0000-0000-0000-00000000000a", "eins").header("trace", "abc"),
            of("77777777-0000-0000-0000-000000000003", "00000000-0000-0000-0000-00000000000a", "é☃"),
            of("88888888-0000-0000-0000-000000000002", "00000000-0000-0000-0000-00000000000b", "zwei"),
            of("66666666-0000-0000-0000-000000000004", "00000000-0000-0000-0000-00000000000b", "vier"),
        ])
        .and_then("select count(processed_at) = 4 and bool_or(attempts = 10 and processed_at is null) from outbox")
        .await;
}

#[tokio::test]
async fn rows_of_sbmt_are_delivered_and_failed_ones_stay() {
    let of = |uuid, id: &'static str, key: &'static str, payload: &'static str| {
        let message = message(uuid, key, payload).content_type("application/octet-stream");
        message
            .header("Idempotency-Key", uuid)
            .header("Sequence-ID", id)
    };
    preset("sbmt")
        .flags(&["--table", "order_outbox_items"])
        .flags(&TOPIC)
        .rows(&[
            r#"insert into order_outbox_items (uuid, event_key, bucket, status, options, payload, created_at, updated_at) values
               ('44444444-0000-0000-0000-000000000001', 'a', 1, 0, '{"headers": {"trace": "abc"}}', 'eins', now(), '2020-01-01'),
               ('44444444-0000-0000-0000-000000000002', 'b', 2, 0, null, 'zwei', now(), '2020-01-01'),
               ('44444444-0000-0000-0000-000000000003', 'a', 1, 0, null, 'é☃', now(), '2020-01-01'),
               ('44444444-0000-0000-0000-000000000004', 'b', 2, 0, null, 'vier', now(), '2020-01-01'),
               ('44444444-0000-0000-0000-000000000005', 'b', 2, 1, null, 'failed', now(), '2020-01-01')"#,
        ])
        .arrive([
            of("44444444-0000-0000-0000-000000000001", "1", "a", "eins"),
            of("44444444-0000-0000-0000-000000000003", "3", "a", "é☃"),
            of("44444444-0000-0000-0000-000000000002", "2", "b", "zwei"),
            of("44444444-0000-0000-0000-000000000004", "4", "b", "vier"),
        ])
        .and_then(
            "select count(*) filter (where status = 2 and processed_at is not null and updated_at > '2021-01-01') = 4
                and count(*) filter (where status = 1 and processed_at is null) = 1 from order_outbox_items",
        )
        .await;
}

#[tokio::test]
async fn rows_of_watermills_queue_are_acked() {
    preset("watermill-queue")
        .flags(&["--table", "watermill_orders"])
        .flags(&TOPIC)
        .rows(&[
            r#"insert into watermill_orders (uuid, payload, metadata) values
               ('w-1', '{"n":1}', '{"trace":"abc"}'), ('w-2', '{"s":"é☃"}', '{}'), ('w-3', null, null)"#,
            r#"insert into watermill_orders (uuid, payload, acked) values ('w-4', '{}', true)"#,
        ])
        .arrive([
            message("w-1", None, r#"{"n":1}"#).header("trace", "abc"),
            message("w-2", None, r#"{"s":"é☃"}"#),
            message("w-3", None, None),
        ])
        .and_then("select count(*) = 4 and bool_and(acked) from watermill_orders")
        .await;
}
