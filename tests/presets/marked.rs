//! Tables whose published rows are marked, and say themselves where their events go.

use crate::scene::{message, preset};

const BYTES: &str = "application/octet-stream";

#[tokio::test]
async fn rows_of_eventferry_are_done_also_those_that_failed_or_were_being_processed() {
    preset("eventferry")
        .rows(&[
            r#"insert into outbox (message_id, aggregate_type, aggregate_id, topic, payload, headers, trace_id, status) values
               ('22222222-0000-0000-0000-000000000001', 'order', 'a', '{topic}', '{"n": 1}', '{"tenant": "ä"}', 't-1', 3),
               ('22222222-0000-0000-0000-000000000002', 'order', 'b', '{topic}', '{"n": 2}', '{}', null, 1)"#,
            r#"insert into outbox (message_id, aggregate_type, aggregate_id, topic, "key", payload) values
               ('22222222-0000-0000-0000-000000000003', 'order', 'a', '{topic}', null, 'null'),
               ('22222222-0000-0000-0000-000000000004', 'order', 'b', '{topic}', 'k', '{"s": "é☃"}')"#,
            r#"insert into outbox (aggregate_type, aggregate_id, topic, payload, status) values
               ('order', 'a', '{topic}', '"dead"', 4), ('order', 'a', '{topic}', '"done"', 2)"#,
        ])
        .arrive(
            [
                ("1", "a", r#"{"n": 1}"#, &[("tenant", "ä"), ("trace-id", "t-1")][..]),
                ("3", "a", "null", &[]),
                ("2", "b", r#"{"n": 2}"#, &[]),
                ("4", "b", r#"{"s": "é☃"}"#, &[]),
            ]
            .map(|(number, key, payload, headers)| {
                let id: &str = format!("22222222-0000-0000-0000-00000000000{number}").leak();
                let message = message(id, key, payload)
                    .header("message-id", id)
                    .header("aggregate-type", "order")
                    .header("aggregate-id", key);
                let headers = headers.iter();
                headers.fold(message, |it, (name, value)| it.header(name, value))
            }),
        )
        .and_then(
            "select array_agg(status order by id) = '{2,2,2,2,4,2}' and count(processed_at) = 4 from outbox",
        )
        .await;
}

#[tokio::test]
async fn rows_of_tomorrow_one_are_processed() {
    let bytes = |id, key, payload| message(id, key, payload).content_type(BYTES);
    preset("tomorrow-one")
        .rows(&[
            r#"insert into outbox_kafka (created, topic, key, value, headers) values
               (now(), '{topic}', 'a', 'eins', '{"x-value-type": "orders.Placed"}'), (now(), '{topic}', 'b', 'é☃', null)"#,
            r"insert into outbox_kafka (created, topic, key, value) values
               (now(), '{topic}', 'a', 'drei'), (now(), '{topic}', 'b', '\x7a77'), (now(), '{topic}', null, 'alone')",
            "insert into outbox_kafka (created, processed, topic, value) values (now(), '2020-01-01', '{topic}', 'old')",
        ])
        .arrive([
            bytes("1", "a", "eins").header("x-value-type", "orders.Placed"),
            bytes("3", "a", "drei"),
            bytes("2", "b", "é☃"),
            bytes("4", "b", "zw"),
            message("5", None, "alone").content_type(BYTES),
        ])
        .and_then("select count(processed) = 6 and count(*) filter (where processed > '2021-01-01') = 5 from outbox_kafka")
        .await;
}

#[tokio::test]
async fn rows_of_eventuate_are_published() {
    preset("eventuate")
        .rows(&[
            r#"insert into eventuate.message (id, destination, headers, payload, creation_time) values
               ('0000019b-0001', '{topic}', '{"ID":"0000019b-0001","PARTITION_ID":"a","DATE":"now"}', '{"n":1}', 1767322800000)"#,
            r#"insert into eventuate.message (id, destination, headers, payload, creation_time) values
               ('0000019b-0002', '{topic}', '{"ID":"0000019b-0002","PARTITION_ID":"b"}', '{"n":2}', 1767322800001)"#,
            r#"insert into eventuate.message (id, destination, headers, payload) values
               ('0000019b-0003', '{topic}', '{"ID":"0000019b-0003","PARTITION_ID":"a"}', '{"s":"é☃"}')"#,
            r#"insert into eventuate.message (id, destination, headers, payload, published) values
               ('0000019b-0004', '{topic}', '{}', '{"n":4}', 1)"#,
        ])
        .arrive([
            message("0000019b-0001", None, r#"{"n":1}"#)
                .header("ID", "0000019b-0001")
                .header("PARTITION_ID", "a")
                .header("DATE", "now"),
            message("0000019b-0002", None, r#"{"n":2}"#)
                .header("ID", "0000019b-0002")
                .header("PARTITION_ID", "b"),
            message("0000019b-0003", None, r#"{"s":"é☃"}"#)
                .header("ID", "0000019b-0003")
                .header("PARTITION_ID", "a"),
        ])
        .and_then("select bool_and(published = 1) and count(*) = 4 from eventuate.message")
        .await;
}

#[tokio::test]
async fn rows_of_go_outbox_are_sent_and_leased_ones_left_to_who_holds_them() {
    let bytes = |id, payload: &'static str| {
        let message = message(id, None, payload).content_type(BYTES);
        message.header("message_id", id)
    };
    preset("go-outbox")
        .rows(&[
            r#"insert into outbox.messages (id, stream, topic, payload, headers, target) values
               ('33333333-0000-0000-0000-000000000001', 'local', '{topic}', 'eins', '{"traceparent": "00-ab-01"}', '{"key": "a"}')"#,
            r"insert into outbox.messages (id, stream, topic, payload) values
               ('33333333-0000-0000-0000-000000000002', 'local', '{topic}', 'é☃')",
            "insert into outbox.messages (id, stream, topic, payload, status, lease_token, lease_until) values
               ('33333333-0000-0000-0000-000000000003', 'local', '{topic}', 'leased', 1, gen_random_uuid(), now()),
               ('33333333-0000-0000-0000-000000000004', 'local', '{topic}', 'failed', 3, null, null)",
        ])
        .arrive([
            bytes("33333333-0000-0000-0000-000000000001", "eins").header("traceparent", "00-ab-01"),
            bytes("33333333-0000-0000-0000-000000000002", "é☃"),
        ])
        .and_then("select array_agg(status order by id) = '{2,2,1,3}' and count(dispatched_at) = 2 from outbox.messages")
        .await;
}

#[tokio::test]
async fn rows_of_open_outbox_are_delivered_also_those_that_were_being_delivered() {
    let of = |id, key: &'static str, payload: &'static str| {
        message(id, key, payload)
            .content_type(BYTES)
            .kind("{topic}")
    };
    preset("open-outbox")
        .rows(&[
            r#"insert into openoutbox_events (event_id, event_type, partition_key, payload, headers) values
               ('99999999-0000-0000-0000-000000000001', '{topic}', 'a', 'eins', '{"content-type": "text/x", "tenant": "ä"}')"#,
            "insert into openoutbox_events (event_id, event_type, partition_key, payload, status, locked_by, locked_at) values
               ('88888888-0000-0000-0000-000000000002', '{topic}', 'b', 'zwei', 'DELIVERING', 'relay-1', now())",
            "insert into openoutbox_events (event_id, event_type, partition_key, payload) values
               ('77777777-0000-0000-0000-000000000003', '{topic}', 'a', 'é☃')",
            "insert into openoutbox_events (event_id, event_type, partition_key, payload) values
               ('66666666-0000-0000-0000-000000000004', '{topic}', 'b', 'vier')",
            "insert into openoutbox_events (event_id, event_type, payload, status) values
               ('55555555-0000-0000-0000-000000000005', '{topic}', 'dead', 'DEAD')",
        ])
        .arrive([
            of("99999999-0000-0000-0000-000000000001", "a", "eins")
                .content_type("text/x")
                .header("tenant", "ä"),
            of("77777777-0000-0000-0000-000000000003", "a", "é☃"),
            of("88888888-0000-0000-0000-000000000002", "b", "zwei"),
            of("66666666-0000-0000-0000-000000000004", "b", "vier"),
        ])
        .and_then(
            "select count(*) filter (where status = 'DELIVERED' and delivered_at is not null) = 4
                and count(*) filter (where status = 'DEAD') = 1 from openoutbox_events",
        )
        .await;
}

#[tokio::test]
async fn rows_of_zehelein_are_processed_and_abandoned_ones_stay() {
    preset("zehelein")
        .rows(&[
            r#"insert into outbox (id, aggregate_type, aggregate_id, message_type, segment, payload, metadata) values
               ('99999999-0000-0000-0000-000000000001', '{topic}', 'a', 'placed', 's', '{"n": 1}', '{"trace": "abc", "n": 5}'),
               ('88888888-0000-0000-0000-000000000002', '{topic}', 'b', 'placed', null, '{"n": 2}', null),
               ('77777777-0000-0000-0000-000000000003', '{topic}', 'a', 'bezahlt', 's', '{"s": "é☃"}', null)"#,
            r#"insert into outbox (id, aggregate_type, aggregate_id, message_type, payload, concurrency, locked_until) values
               ('66666666-0000-0000-0000-000000000004', '{topic}', 'b', 'paid', '[]', 'parallel', now() + interval '1 hour')"#,
            r#"insert into outbox (id, aggregate_type, aggregate_id, message_type, payload, abandoned_at) values
               ('55555555-0000-0000-0000-000000000005', '{topic}', 'b', 'lost', '{}', now())"#,
        ])
        .arrive([
            message("99999999-0000-0000-0000-000000000001", "a", r#"{"n": 1}"#)
                .kind("placed")
                .header("trace", "abc")
                .header("n", "5"),
            message("77777777-0000-0000-0000-000000000003", "a", r#"{"s": "é☃"}"#).kind("bezahlt"),
            message("88888888-0000-0000-0000-000000000002", "b", r#"{"n": 2}"#).kind("placed"),
            message("66666666-0000-0000-0000-000000000004", "b", "[]").kind("paid"),
        ])
        .and_then("select count(processed_at) = 4 and count(*) filter (where abandoned_at is not null and processed_at is null) = 1 from outbox")
        .await;
}

#[tokio::test]
async fn rows_of_nestarc_are_sent_also_those_that_were_being_processed() {
    preset("nestarc")
        .rows(&[
            r#"insert into outbox_events (id, event_type, payload, aggregate_id, headers, tenant_id, correlation_id) values
               ('99999999-0000-0000-0000-000000000001', '{topic}', '{"n": 1}', 'a', '{"trace": "abc"}', 'ä', 'c-1')"#,
            r#"insert into outbox_events (id, event_type, payload, aggregate_id, status, claim_token) values
               ('88888888-0000-0000-0000-000000000002', '{topic}', '{"n": 2}', 'b', 'PROCESSING', gen_random_uuid())"#,
            r#"insert into outbox_events (id, event_type, payload, aggregate_id) values
               ('77777777-0000-0000-0000-000000000003', '{topic}', '{"s": "é☃"}', 'a')"#,
            r#"insert into outbox_events (id, event_type, payload, aggregate_id) values
               ('66666666-0000-0000-0000-000000000004', '{topic}', '{"n": 4}', 'b')"#,
            r#"insert into outbox_events (id, event_type, payload, status) values
               ('55555555-0000-0000-0000-000000000005', '{topic}', '{}', 'FAILED')"#,
        ])
        .arrive([
            message("99999999-0000-0000-0000-000000000001", "a", r#"{"n": 1}"#)
                .kind("{topic}")
                .header("trace", "abc")
                .header("tenant-id", "ä")
                .header("correlation-id", "c-1"),
            message("77777777-0000-0000-0000-000000000003", "a", r#"{"s": "é☃"}"#).kind("{topic}"),
            message("88888888-0000-0000-0000-000000000002", "b", r#"{"n": 2}"#).kind("{topic}"),
            message("66666666-0000-0000-0000-000000000004", "b", r#"{"n": 4}"#).kind("{topic}"),
        ])
        .and_then(
            "select count(*) filter (where status = 'SENT' and processed_at is not null and updated_at > created_at) = 4
                and count(*) filter (where status = 'FAILED') = 1 from outbox_events",
        )
        .await;
}

#[tokio::test]
async fn rows_of_outboxy_succeed_and_dead_or_deleted_ones_stay() {
    preset("outboxy")
        .rows(&[
            r#"insert into outbox_events (id, aggregate_type, aggregate_id, event_type, payload, headers, destination_url, idempotency_key) values
               ('99999999-0000-0000-0000-000000000001', '{topic}', 'a', 'Placed', '{"n": 1}', '{"trace": "abc"}', 'http://x', 'once-1')"#,
            r#"insert into outbox_events (id, aggregate_type, aggregate_id, event_type, payload, headers, destination_url, destination_type, status) values
               ('88888888-0000-0000-0000-000000000002', '{topic}', 'b', 'Placed', '{"n": 2}', null, 'x', 'kafka', 'processing')"#,
            r#"insert into outbox_events (id, aggregate_type, aggregate_id, event_type, payload, destination_url, status, next_retry_at) values
               ('77777777-0000-0000-0000-000000000003', '{topic}', 'a', 'Bezahlt', '{"s": "é☃"}', 'http://x', 'failed', now() + interval '1 hour')"#,
            r#"insert into outbox_events (id, aggregate_type, aggregate_id, event_type, payload, destination_url) values
               ('66666666-0000-0000-0000-000000000004', '{topic}', 'b', 'Paid', '{"n": 4}', 'http://x')"#,
            r#"insert into outbox_events (aggregate_type, aggregate_id, event_type, payload, destination_url, status, deleted_at) values
               ('{topic}', 'b', 'Dead', '{}', 'http://x', 'dlq', null), ('{topic}', 'b', 'Deleted', '{}', 'http://x', 'pending', now())"#,
        ])
        .arrive([
            message("99999999-0000-0000-0000-000000000001", "a", r#"{"n": 1}"#)
                .kind("Placed")
                .header("trace", "abc")
                .header("idempotency-key", "once-1"),
            message("77777777-0000-0000-0000-000000000003", "a", r#"{"s": "é☃"}"#).kind("Bezahlt"),
            message("88888888-0000-0000-0000-000000000002", "b", r#"{"n": 2}"#).kind("Placed"),
            message("66666666-0000-0000-0000-000000000004", "b", r#"{"n": 4}"#).kind("Paid"),
        ])
        .and_then(
            "select count(*) filter (where status = 'succeeded' and processed_at is not null) = 4
                and count(*) filter (where status in ('dlq', 'pending')) = 2 from outbox_events",
        )
        .await;
}

#[tokio::test]
async fn rows_of_pgx_outbox_are_published() {
    preset("pgx-outbox")
        .rows(&[
            r#"insert into outbox_messages (broker, topic, metadata, payload) values
               ('kafka', '{topic}', '{"trace": "abc"}', '{"n": 1}'), ('sns', '{topic}', null, '{"s": "é☃"}')"#,
        ])
        .arrive([
            message("1", None, r#"{"n": 1}"#).header("trace", "abc"),
            message("2", None, r#"{"s": "é☃"}"#),
        ])
        .and_then("select count(published_at) = 2 from outbox_messages")
        .await;
}

#[tokio::test]
async fn rows_of_pg_tide_are_consumed() {
    preset("pg-tide")
        .rows(&[
            "insert into tide.tide_outbox_config (outbox_name) values ('{topic}')",
            r#"insert into tide.tide_outbox_messages (outbox_name, payload, headers) values
               ('{topic}', '{"n": 1}', '{"trace": "abc"}'), ('{topic}', '{"s": "é☃"}', '{}'), ('{topic}', null, null)"#,
            "insert into tide.tide_outbox_messages (outbox_name, payload, consumed_at) values ('{topic}', '{}', '2020-01-01')",
        ])
        .arrive([
            message("1", None, r#"{"n": 1}"#).header("trace", "abc"),
            message("2", None, r#"{"s": "é☃"}"#),
            message("3", None, None),
        ])
        .and_then("select count(consumed_at) = 4 from tide.tide_outbox_messages")
        .await;
}

#[tokio::test]
async fn rows_of_cap_succeed_and_delayed_or_given_up_ones_stay() {
    preset("cap")
        .rows(&[
            r#"insert into cap.published values
               (7001, 'v1', '{topic}', '{"Headers":{"cap-msg-id":"7001"},"Value":{"n":1}}', 0, now(), null, 'Scheduled'),
               (7002, 'v1', '{topic}', '{"Headers":{},"Value":"é☃"}', 3, now(), null, 'Failed'),
               (7003, 'v1', '{topic}', '{"n":3}', 0, now(), now(), 'Queued'),
               (7004, 'v1', '{topic}', 'later', 0, now(), now() + interval '1 hour', 'Delayed'),
               (7005, 'v1', '{topic}', 'given up', 50, now(), now() + interval '15 days', 'Failed')"#,
        ])
        .arrive([
            message("7001", None, r#"{"Headers":{"cap-msg-id":"7001"},"Value":{"n":1}}"#),
            message("7002", None, r#"{"Headers":{},"Value":"é☃"}"#),
            message("7003", None, r#"{"n":3}"#),
        ])
        .and_then(
            r#"select array_agg("StatusName"::text order by "Id") = '{Succeeded,Succeeded,Succeeded,Delayed,Failed}'
                and count(*) filter (where "ExpiresAt" <= now()) = 3 from cap.published"#,
        )
        .await;
}
