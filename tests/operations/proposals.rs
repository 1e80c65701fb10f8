//! `outboxd inspect`: what is proposed for tables of many kinds, and how carefully they are looked at.

use serde_json::Value;

use crate::{
    common::{database::Database, unique},
    lab::outboxd,
    privileges::Role,
};

const DEBEZIUM: &str = include_str!("../presets/tables/debezium.sql");
const HOME_MADE: &str = "create table events_to_send (id bigint generated always as identity primary key, status text not null default 'NEW', topic text not null,
     aggregate_id text, body text, created_at timestamptz not null default now())";

async fn database(sql: &str) -> Database {
    let database = Database::empty().await;
    database.execute(sql).await;
    database
}

fn inspect(database: &Database, more: &[&str]) -> Value {
    let arguments = [&["inspect", "--json"], more].concat();
    outboxd(&database.url, &arguments).exits(0).json()
}

/// The one table that is found.
fn found(database: &Database, more: &[&str]) -> Value {
    let report = inspect(database, more);
    let tables = report.as_array().unwrap();
    assert_eq!(tables.len(), 1, "{report:#}");
    tables[0].clone()
}

fn doubts(table: &Value) -> String {
    let guessed = table["doubts"].as_array().unwrap().iter();
    let found = table["findings"].as_array().unwrap().iter();
    let found = found.map(|it| format!("{}: {} -> {}", it["subject"], it["what"], it["remedy"]));
    let all = guessed.map(ToString::to_string).chain(found);
    all.collect::<Vec<_>>().join("\n")
}

/// A file that is not there.
fn file() -> String {
    let name = std::env::temp_dir().join(unique("outboxd-inspect"));
    name.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn debeziums_table_gets_its_preset_an_order_the_next_command_and_samples() {
    let database = database(DEBEZIUM).await;
    database
        .execute("insert into outboxevent select gen_random_uuid(), 'orders', 'a', 'Placed', to_jsonb(n) from generate_series(1, 12) n")
        .await;
    let table = found(&database, &[]);
    assert_eq!(
        (&table["table"], &table["confidence"], &table["preset"]),
        (
            &"public.outboxevent".into(),
            &"certain".into(),
            &"debezium".into()
        )
    );
    assert_eq!(table["pending_events"], 12, "{table:#}");
    assert_eq!(table["samples"].as_array().unwrap().len(), 10);
    assert_eq!(table["samples"][0]["destination"], "outbox.event.orders");
    assert_eq!(
        table["run"],
        "outboxd run --migrate --preset debezium --table public.outboxevent --ordering none --kafka-brokers localhost:9092"
    );
    assert!(doubts(&table).contains("outbox_order"), "{table:#}");
    let statement = table["statements"][0].as_str().unwrap();
    assert!(
        statement.contains("add column \"outbox_order\""),
        "{statement}"
    );
    database.execute(statement).await;
    let table = found(&database, &["--samples", "3"]);
    assert!(!doubts(&table).contains("add column"), "{table:#}");
    let payloads = table["samples"].as_array().unwrap().iter();
    let payloads: Vec<_> = payloads.map(|it| it["payload"].as_i64().unwrap()).collect();
    assert_eq!(payloads, [1, 2, 3], "now there is an order");
    let index = table["statements"][0].as_str().unwrap();
    assert!(index.starts_with("create index concurrently"), "{index}");
    database.execute(index).await;
    assert_eq!(found(&database, &[])["statements"], serde_json::json!([]));
    let text = outboxd(&database.url, &["inspect"]).exits(0).stdout;
    assert!(
        text.starts_with("public.outboxevent: preset debezium (certain); 12 events wait\n"),
        "{text}"
    );
    assert!(
        text.contains("\n    outboxd run --migrate --preset debezium"),
        "{text}"
    );
}

#[tokio::test]
async fn every_presets_table_is_known_for_what_it_is() {
    let folder = format!("{}/tests/presets/tables", env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let preset = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let database = database(&std::fs::read_to_string(&path).unwrap()).await;
        let table = found(&database, &[]);
        assert_eq!(table["preset"], *preset, "{table:#}");
        assert_ne!(table["confidence"], "maybe", "{table:#}");
        files += 1;
    }
    assert!(files > 20);
}

#[tokio::test]
async fn what_is_written_for_a_home_made_table_migrates_and_checks() {
    let database = database(HOME_MADE).await;
    database
        .execute("insert into events_to_send (topic, aggregate_id, body, status) values ('orders', 'a', 'one', 'DONE'), ('orders', 'a', 'two', 'NEW')")
        .await;
    let file = file();
    let table = found(&database, &["--write", &file]);
    assert_eq!(
        (&table["preset"], &table["confidence"]),
        (&Value::Null, &"maybe".into())
    );
    assert_eq!(table["pending_events"], 1, "{table:#}");
    let mapping = table["mapping"].as_str().unwrap();
    assert!(
        mapping.contains("done = { status = \"DONE\" }"),
        "the rows' own word: {mapping}"
    );
    assert_eq!(table["samples"][0]["payload"], "two");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        table["mapping"].as_str().unwrap()
    );
    outboxd(&database.url, &["migrate", "--mapping", &file]).exits(0);
    outboxd(&database.url, &["check", "--mapping", &file]).exits(0);
    let peeked = outboxd(&database.url, &["peek", "--mapping", &file])
        .exits(0)
        .stdout;
    assert!(
        peeked.contains("two") && !peeked.contains("one"),
        "{peeked}"
    );
    let refused = outboxd(&database.url, &["inspect", "--write", &file]).exits(1);
    assert!(refused.stderr.contains(&file), "{}", refused.stderr);
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn outboxds_own_table_needs_no_mapping() {
    let database = Database::new().await;
    database.insert("orders", 3, 2).await;
    let table = found(&database, &[]);
    assert_eq!(
        (&table["mapping"], &table["confidence"]),
        (&Value::Null, &"certain".into())
    );
    assert_eq!(table["samples"].as_array().unwrap().len(), 3);
    assert_eq!(
        table["run"],
        "outboxd run --migrate --table public.outbox --kafka-brokers localhost:9092"
    );
    assert_eq!(doubts(&table), "", "{table:#}");
    let file = file();
    let refused = outboxd(&database.url, &["inspect", "--write", &file]).exits(1);
    assert!(refused.stderr.contains("no mapping"), "{}", refused.stderr);
    assert!(!std::path::Path::new(&file).exists());
}

#[tokio::test]
async fn nothing_is_found_where_nothing_is() {
    let database = Database::empty().await;
    let nothing = outboxd(&database.url, &["inspect"]).exits(1);
    assert!(
        nothing.stderr.contains("outboxd migrate") && nothing.stderr.contains("--table"),
        "{}",
        nothing.stderr
    );
    outboxd(&database.url, &["inspect", "--table", "outbox"]).exits(78);
    database
        .execute("create table users (id bigserial primary key, email text, data jsonb, status text default 'active', created_at timestamptz)")
        .await;
    let report = outboxd(&database.url, &["inspect", "--json"])
        .exits(1)
        .json();
    assert_eq!(report, serde_json::json!([]));
    // Whoever insists is told what would be guessed.
    let table = found(&database, &["--table", "users"]);
    assert_eq!(table["confidence"], "maybe");
    outboxd("postgres://127.0.0.1:1/none", &["inspect"]).exits(69);
    outboxd(&database.url, &["inspect", "--preset", "debezium"]).exits(78);
}

#[tokio::test]
async fn a_role_without_privileges_is_told_which_grant_it_lacks() {
    let database = database(DEBEZIUM).await;
    let role = Role::new(&database).await;
    database
        .execute("revoke all on schema public from public")
        .await;
    let report = outboxd(&role.url, &["inspect", "--json"]).exits(0).json();
    let table = &report[0];
    assert_eq!(table["preset"], "debezium");
    let doubt = table["findings"][0]["remedy"].as_str().unwrap();
    assert!(
        doubt.contains("grant select on \"public\".\"outboxevent\" to"),
        "{doubt}"
    );
    database.execute(doubt).await;
    let report = outboxd(&role.url, &["inspect", "--json"]).exits(0).json();
    let doubts = doubts(&report[0]);
    assert!(
        !doubts.contains("may not read") && !doubts.contains("could not"),
        "{doubts}"
    );
    role.remove(&database).await;
}

#[tokio::test]
async fn doubts_tell_of_policies_triggers_partitions_and_what_may_be_lost() {
    let database = database(
        "create table outbox (id uuid, payload jsonb, topic text, aggregate_id text, sent_at timestamptz, created_at timestamptz) partition by hash (id);
         create table outbox_0 partition of outbox for values with (modulus 1, remainder 0);
         create function nothing() returns trigger language plpgsql as 'begin return new; end';
         create trigger audit after update on outbox for each row execute function nothing();
         insert into outbox select gen_random_uuid(), '{}', 'orders', 'a', null, now() from generate_series(1, 3);
         alter table outbox enable row level security; alter table outbox force row level security",
    )
    .await;
    let role = Role::new(&database).await;
    role.grant(&database, "select on all tables in schema public")
        .await;
    database
        .execute("create policy all_rows on outbox using (true)")
        .await;
    let report = outboxd(&role.url, &["inspect", "--json"]).exits(0).json();
    assert_eq!(report.as_array().unwrap().len(), 1, "{report:#}");
    let table = &report[0];
    let doubts = doubts(table);
    for part in [
        "row security",
        "trigger audit fires on update",
        "partitioned",
        "has no primary key",
        "id may be NULL",
        "created_at may be NULL",
        "created_at is not drawn",
        "have the same \\\"created_at\\\"",
    ] {
        assert!(doubts.contains(part), "{part}: {doubts}");
    }
    assert_eq!(
        table["statements"][0],
        "create unique index concurrently on \"public\".\"outbox\" (\"id\");"
    );
    role.remove(&database).await;
}

#[tokio::test]
async fn a_table_that_is_always_empty_leaves_nothing_to_relay() {
    let database = database(DEBEZIUM).await;
    assert!(!doubts(&found(&database, &[])).contains("it is empty"));
    database
        .execute("insert into outboxevent values (gen_random_uuid(), 'a', 'b', 'c', '{}'); delete from outboxevent")
        .await;
    let doubts = doubts(&found(&database, &[]));
    assert!(
        doubts.contains("it is empty, though 1 rows were inserted"),
        "{doubts}"
    );
}

#[tokio::test]
async fn hostile_names_are_names_and_nothing_else() {
    let database = database(
        r#"create schema "My; Schema";
           create table "My; Schema"."Out""box'; drop table x" ("Id" bigint generated always as identity primary key,
             "Pay""load; --" jsonb not null, "Topic" text not null, "Published At" timestamptz, "it's status" text);
           insert into "My; Schema"."Out""box'; drop table x" ("Pay""load; --", "Topic") values ('{"a": 1}', 'orders');
           create table "out.box" (id bigint primary key, payload jsonb, topic text)"#,
    )
    .await;
    let file = file();
    let report = inspect(
        &database,
        &[
            "--table",
            r#"My; Schema.Out"box'; drop table x"#,
            "--write",
            &file,
        ],
    );
    assert_eq!(report.as_array().unwrap().len(), 1, "{report:#}");
    let table = &report[0];
    assert!(table["mapping"].is_string(), "{table:#}");
    let guessed = std::fs::read_to_string(&file).unwrap();
    assert!(
        guessed.contains("Pay") && guessed.contains("Published At"),
        "{guessed}"
    );
    assert_eq!(table["samples"][0]["payload"]["a"], 1, "{table:#}");
    outboxd(&database.url, &["migrate", "--mapping", &file]).exits(0);
    outboxd(&database.url, &["check", "--mapping", &file]).exits(0);
    std::fs::remove_file(&file).unwrap();
    // A name that --table cannot have is told of.
    let odd = outboxd(&database.url, &["inspect"]).exits(0).stderr;
    assert!(odd.contains("public.out.box is passed over"), "{odd}");
}

#[tokio::test]
async fn several_tables_come_in_the_order_of_certainty_and_one_is_written() {
    let database = database(&format!("{HOME_MADE}; {DEBEZIUM}")).await;
    let report = inspect(&database, &["--samples", "0"]);
    let tables = report.as_array().unwrap().iter();
    let names: Vec<_> = tables
        .map(|table| table["table"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["public.outboxevent", "public.events_to_send"]);
    let file = file();
    let refused = outboxd(&database.url, &["inspect", "--write", &file]).exits(1);
    assert!(refused.stderr.contains("--table"), "{}", refused.stderr);
    outboxd(
        &database.url,
        &["inspect", "--table", "outboxevent", "--write", &file],
    )
    .exits(0);
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        written,
        "preset = \"debezium\"\ntable = \"public.outboxevent\"\n"
    );
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn inspecting_changes_nothing_waits_for_no_writer_and_works_through_pgbouncer() {
    let database = database(HOME_MADE).await;
    database
        .execute("insert into events_to_send (topic, body) values ('orders', 'one')")
        .await;
    let rows = "select string_agg(concat(e, xmin, xmax), '') from events_to_send e";
    let before = database.text(rows).await;
    inspect(&database, &[]);
    assert_eq!(database.text(rows).await, before);
    let mut writer = database.connect().await;
    for sql in [
        "begin",
        "lock table events_to_send in share row exclusive mode",
        "update events_to_send set body = body",
    ] {
        sqlx::raw_sql(sql).execute(&mut writer).await.unwrap();
    }
    let mut through = outboxd(&database.through_pgbouncer(), &["inspect", "--json"])
        .exits(0)
        .json();
    let mut direct = inspect(&database, &[]);
    for report in [&mut through, &mut direct] {
        assert!(report[0]["oldest_seconds"].take().as_f64().unwrap() > 0.0);
    }
    assert_eq!(through, direct);
    assert!(!doubts(&direct[0]).contains("lock"), "{direct:#}");
    sqlx::raw_sql("rollback")
        .execute(&mut writer)
        .await
        .unwrap();
    assert_eq!(through[0]["samples"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_table_under_a_lock_of_ddl_is_a_doubt_and_not_waited_for() {
    let database = database(DEBEZIUM).await;
    let mut ddl = database.connect().await;
    for sql in ["begin", "lock table outboxevent in access exclusive mode"] {
        sqlx::raw_sql(sql).execute(&mut ddl).await.unwrap();
    }
    let table = found(&database, &[]);
    assert_eq!(table["preset"], "debezium");
    assert!(doubts(&table).contains("lock timeout"), "{table:#}");
}

#[tokio::test]
async fn to_read_the_table_is_enough_to_know_whether_the_mapping_fits() {
    let database = database(HOME_MADE).await;
    database
        .execute("insert into events_to_send (topic, body) values ('orders', 'one')")
        .await;
    let role = Role::new(&database).await;
    role.grant(&database, "select on events_to_send").await;
    let report = outboxd(&role.url, &["inspect", "--json"]).exits(0).json();
    let doubts = doubts(&report[0]);
    assert!(
        !doubts.contains("denied") && !doubts.contains("mapping"),
        "{doubts}"
    );
    assert_eq!(report[0]["samples"][0]["payload"], "one");
    role.remove(&database).await;
}

#[tokio::test]
async fn large_tables_are_not_read_through() {
    let database = database(HOME_MADE).await;
    database
        .execute("alter table events_to_send alter column body set storage plain;
                  insert into events_to_send (topic, body, status) select 'orders', repeat('x', 4000), 'DONE' from generate_series(1, 21000);
                  insert into events_to_send (topic, body) select 'orders', n::text from generate_series(1, 12) n; analyze events_to_send")
        .await;
    let read = "select sum(seq_tup_read)::bigint from pg_stat_user_tables where relname = 'events_to_send'";
    database.execute("select pg_stat_reset()").await;
    let table = found(&database, &["--samples", "0"]);
    assert_eq!(table["pending_is_exact"], false, "{table:#}");
    assert!(
        doubts(&table).contains("leaves its making to you"),
        "{table:#}"
    );
    assert!(database.number(read).await < 5_000);
    let index = table["statements"][0].as_str().unwrap();
    database.execute(index).await;
    database.execute("select pg_stat_reset()").await;
    let table = found(&database, &["--samples", "3"]);
    assert!(database.number(read).await < 5_000);
    let payloads = table["samples"].as_array().unwrap().iter();
    let payloads: Vec<_> = payloads.map(|it| it["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads, ["1", "2", "3"], "in order, by the index");
}
