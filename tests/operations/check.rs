//! `outboxd check`: tables and server.

use serde_json::Value;

use crate::{
    common::{database::Database, env, unique},
    lab::outboxd,
};

/// The findings of one subject that are not `ok`.
fn findings(report: &Value, subject: &str) -> Vec<Value> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["subject"] == subject && finding["severity"] != "ok")
        .cloned()
        .collect()
}

/// Runs `check` and gives the one finding of that subject.
fn finding(database: &Database, code: i32, subject: &str) -> (String, String) {
    let report = outboxd(&database.url, &["check", "--json"])
        .exits(code)
        .json();
    assert_eq!(report["exit_code"], code);
    let found = findings(&report, subject);
    assert_eq!(found.len(), 1, "{subject}: {report:#}");
    let text = |name: &str| found[0][name].as_str().unwrap().to_owned();
    (text("what"), text("remedy"))
}

#[tokio::test]
async fn a_migrated_table_has_nothing_to_be_mended_directly_and_through_pgbouncer() {
    let database = Database::new().await;
    for url in [&database.url, &database.through_pgbouncer()] {
        let report = outboxd(url, &["check", "--json"]).exits(0).json();
        assert_eq!(
            findings(&report, "broker").len(),
            1,
            "it says that no broker was checked"
        );
        let wrong = report["findings"].as_array().unwrap().iter();
        assert_eq!(
            wrong
                .filter(|finding| finding["severity"] == "error")
                .count(),
            0,
            "{report:#}"
        );
    }
    let text = outboxd(&database.url, &["check"]).exits(0).stdout;
    assert!(text.contains("ok    pending index: claims read"), "{text}");
}

#[tokio::test]
async fn missing_tables_are_78() {
    let database = Database::empty().await;
    let (what, remedy) = finding(&database, 78, "table");
    assert!(
        what.contains("no table public.outbox") && remedy.contains("outboxd migrate"),
        "{what} {remedy}"
    );
    let database = Database::new().await;
    database.execute("drop table outbox_instances").await;
    let (what, remedy) = finding(&database, 78, "relay's tables");
    assert!(
        what.contains("outbox_instances") && remedy.contains("outboxd migrate"),
        "{what} {remedy}"
    );
}

#[tokio::test]
async fn a_database_that_is_away_is_69_and_wrong_values_are_78() {
    outboxd("postgres://127.0.0.1:1/none", &["check"]).exits(69);
    outboxd("mysql://h/x", &["check"]).exits(78);
    outboxd(
        "postgres://127.0.0.1/x",
        &["check", "--ordering", "sideways"],
    )
    .exits(78);
    outboxd("postgres://127.0.0.1/x", &["check", "--nonsense"]).exits(64);
    let (server, nobody) = (env("TEST_POSTGRES_URL"), unique("nobody").replace('-', "_"));
    let (start, _) = server.rsplit_once('/').unwrap();
    outboxd(&format!("{start}/{nobody}"), &["check"]).exits(78);
}

#[tokio::test]
async fn ids_drawn_ahead_backwards_or_by_the_application_are_refused() {
    let database = Database::new().await;
    for (change, part) in [
        ("alter sequence outbox_id_seq cache 100", "cache 100"),
        ("alter sequence outbox_id_seq cache 1 cycle", "backwards"),
        (
            "alter table outbox alter column id drop identity",
            "not drawn from a sequence",
        ),
    ] {
        database.execute(change).await;
        let (what, remedy) = finding(&database, 78, "ids");
        assert!(what.contains(part), "{what}");
        if part != "not drawn from a sequence" {
            database.execute(&remedy).await;
        }
    }
    database.execute("create sequence own increment 50; alter table outbox alter column id set default nextval('own')").await;
    let (what, _) = finding(&database, 0, "ids");
    assert!(what.contains("counts by 50"), "{what}");
    database
        .execute("alter table outbox drop constraint outbox_pkey")
        .await;
    let report = outboxd(&database.url, &["check", "--json"])
        .exits(78)
        .json();
    assert!(
        report
            .to_string()
            .contains("no primary key or unique index"),
        "{report:#}"
    );
}

#[tokio::test]
async fn the_remedy_for_a_missing_or_invalid_pending_index_works() {
    let database = Database::new().await;
    database.execute("drop index outbox_pending; create index close on outbox ((hashtextextended(aggregate_id, 0) & 63), id) where published_at is null").await;
    let (_, remedy) = finding(&database, 78, "pending index");
    database.execute(&remedy).await;
    outboxd(&database.url, &["check"]).exits(0);
    database
        .execute(
            "update pg_index set indisvalid = false where indexrelid = 'outbox_pending'::regclass",
        )
        .await;
    let report = outboxd(&database.url, &["check", "--json"])
        .exits(78)
        .json();
    for finding in findings(&report, "pending index") {
        database.execute(finding["remedy"].as_str().unwrap()).await;
    }
    outboxd(&database.url, &["check"]).exits(0);
}

#[tokio::test]
async fn columns_that_are_missing_or_cannot_be_sent_are_named() {
    let database = Database::new().await;
    database
        .execute("alter table outbox alter column event_id drop not null")
        .await;
    let (what, remedy) = finding(&database, 78, "columns");
    assert!(what.contains("event_id may be NULL"), "{what}");
    database.execute(&remedy).await;
    database
        .execute("alter table outbox alter column payload type xml using null")
        .await;
    let (what, _) = finding(&database, 78, "columns");
    assert!(
        what.contains("payload of public.outbox is of type xml"),
        "{what}"
    );
    database
        .execute("alter table outbox drop column headers")
        .await;
    let (what, _) = finding(&database, 78, "columns");
    assert!(what.contains("has no column headers"), "{what}");
    let report = outboxd(&database.url, &["check", "--topic", "{region}"]).exits(78);
    assert!(report.stdout.contains("region"), "{}", report.stdout);
}

#[tokio::test]
async fn whoever_meddles_with_marking_is_named() {
    let database = Database::new().await;
    database
        .execute(
            "create function nothing() returns trigger language plpgsql as $$ begin return null; end $$; \
             create trigger meddler before update on outbox for each row execute function nothing(); \
             create trigger harmless before update of topic on outbox for each row execute function nothing(); \
             create trigger writers before insert on outbox for each row execute function nothing()",
        )
        .await;
    let (what, _) = finding(&database, 0, "triggers");
    assert!(what.contains("trigger meddler"), "{what}");
    database
        .execute("create rule rewriter as on update to outbox do instead nothing")
        .await;
    let (what, remedy) = finding(&database, 78, "rules");
    assert!(what.contains("rewriter"), "{what}");
    database.execute(&remedy).await;
    database
        .execute("create table audit (outbox_id bigint references outbox)")
        .await;
    let (what, _) = finding(&database, 0, "foreign keys");
    assert!(what.contains("audit"), "{what}");
    outboxd(&database.url, &["check", "--retention", "0"]).exits(0);
}

#[tokio::test]
async fn tables_that_lose_rows_or_are_not_vacuumed_are_told() {
    let database = Database::new().await;
    database
        .execute("alter table outbox set unlogged, set (autovacuum_enabled = false)")
        .await;
    let (what, remedy) = finding(&database, 78, "table");
    assert!(what.contains("unlogged"), "{what}");
    database.execute(&remedy).await;
    let (_, remedy) = finding(&database, 0, "autovacuum");
    database.execute(&remedy).await;
    database
        .execute(&format!(
            "alter database {} set synchronous_commit = off",
            database.name
        ))
        .await;
    let (what, _) = finding(&database, 0, "durability");
    assert!(
        what.contains("in database") || what.contains("the server"),
        "{what}"
    );
}

#[tokio::test]
async fn a_relay_with_the_other_ordering_is_told() {
    let database = Database::new().await;
    database
        .execute("insert into outbox_instances (instance, version, ordering, started_at, seen_at, clean) values ('b', '1', 'none', now(), now(), false)")
        .await;
    let (what, _) = finding(&database, 78, "relays");
    assert!(what.contains("relay b"), "{what}");
    outboxd(&database.url, &["check", "--ordering", "none"]).exits(0);
}

#[tokio::test]
async fn brokers_and_destinations_are_asked() {
    let database = Database::new().await;
    let topic = unique("nowhere");
    database.insert(&topic, 3, 3).await;
    let brokers = env("TEST_KAFKA_BROKERS");
    let report = outboxd(
        &database.url,
        &["check", "--kafka-brokers", &brokers, "--json"],
    )
    .exits(69)
    .json();
    let found = findings(&report, "destination");
    assert_eq!(found.len(), 1, "{report:#}");
    assert!(
        found[0]["what"].as_str().unwrap().contains(&topic),
        "{report:#}"
    );
    outboxd(
        &database.url,
        &[
            "check",
            "--rabbitmq-url",
            &env("TEST_RABBITMQ_URL"),
            "--json",
        ],
    );
    let away = outboxd(
        &database.url,
        &[
            "check",
            "--kafka-brokers",
            "127.0.0.1:1",
            "--json",
            "--publish-timeout",
            "2s",
            "--shutdown-timeout",
            "3s",
        ],
    );
    assert_eq!(findings(&away.exits(69).json(), "broker").len(), 1);
}
