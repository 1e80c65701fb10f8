//! `outboxd migrate`.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{
    common::database::Database,
    lab::{insert, outbox, outbox_of, outboxd, publish_all},
};

const TABLES: &str = "select count(*) from pg_class where relkind = 'r' and relname like 'outbox%' and relnamespace = 'public'::regnamespace";

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let database = Database::empty().await;
    let first = outboxd(&database.url, &["migrate"]).exits(0);
    assert!(
        first.stderr.contains("table public.outbox: created"),
        "{}",
        first.stderr
    );
    let applied = "select string_agg(table_name || version || checksum || applied_at, ',' order by version) from outboxd_migrations";
    let before = database.text(applied).await;
    let second = outboxd(&database.url, &["migrate"]).exits(0);
    assert!(
        second.stderr.contains("table public.outbox: there already"),
        "{}",
        second.stderr
    );
    assert_eq!(database.text(applied).await, before);
    assert_eq!(database.number(TABLES).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_migrators_at_once_all_succeed() {
    let database = Database::empty().await;
    let migrators: Vec<_> = (0..8)
        .map(|_| {
            let url = database.url.clone();
            tokio::task::spawn_blocking(move || {
                outboxd(
                    &url,
                    &["migrate", "--table", "sales.outbox", "--with", "notify"],
                )
            })
        })
        .collect();
    for migrator in migrators {
        migrator.await.unwrap().exits(0);
    }
    assert_eq!(
        database
            .number("select count(*) from sales.outboxd_migrations")
            .await,
        4
    );
}

#[tokio::test]
async fn odd_names_in_a_new_schema_are_quoted_everywhere() {
    let database = Database::empty().await;
    let table = r#"My "Schema".out'b {x}; drop"#;
    outboxd(
        &database.url,
        &["migrate", "--table", table, "--with", "notify"],
    )
    .exits(0);
    outboxd(
        &database.url,
        &["migrate", "--table", r#"My "Schema".second"#],
    )
    .exits(0);
    outboxd(&database.url, &["check", "--table", table]).exits(0);
    let quoted = r#""My ""Schema""".""#.trim_end_matches('"').to_owned() + r#""out'b {x}; drop""#;
    database
        .execute(&format!(
            "insert into {quoted} (aggregate_type, aggregate_id, event_type) values ('a', 'k', 'T')"
        ))
        .await;
    let outbox = outbox_of(&database.url, table, false);
    let mut link = outbox.link().await.unwrap();
    assert_eq!(publish_all(&outbox, &mut link).await, 1);
    outbox.verify(&mut link).await.unwrap();
    outbox.sample(&mut link).await.unwrap();
    for command in [
        vec!["status"],
        vec!["peek"],
        vec!["dead", "list"],
        vec!["prune"],
    ] {
        let arguments = [command, vec!["--table", table]].concat();
        outboxd(&database.url, &arguments).exits(0);
    }
}

#[tokio::test]
async fn printed_sql_applies_as_it_is_and_is_adopted() {
    let database = Database::empty().await;
    let printed = outboxd(
        "not looked at",
        &[
            "migrate",
            "--print",
            "--table",
            "sales.outbox",
            "--with",
            "notify",
        ],
    )
    .exits(0);
    assert!(
        printed.stdout.contains("-- The key"),
        "comments are left out"
    );
    // In one transaction, as Flyway does it; and a second time.
    for _ in 0..2 {
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        let sql = format!("begin; {}; commit", printed.stdout);
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    outboxd(&database.url, &["check", "--table", "sales.outbox"]).exits(0);
    let adopted = outboxd(&database.url, &["migrate", "--table", "sales.outbox"]).exits(0);
    assert_eq!(
        adopted.stderr.matches("found, and adopted").count(),
        3,
        "{}",
        adopted.stderr
    );
    outboxd(&database.url, &["check", "--table", "sales.outbox"]).exits(0);
}

#[tokio::test]
async fn printing_needs_no_database() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_outboxd"))
        .args(["migrate", "--print"])
        .env_remove("OUTBOXD_DATABASE_URL")
        .output()
        .unwrap();
    assert!(printed.status.success());
}

#[tokio::test]
async fn somebody_elses_table_gets_only_what_it_lacks() {
    let database = Database::empty().await;
    database
        .execute(
            "create table outbox (id bigserial primary key, event_id text not null, aggregate_type varchar(80), aggregate_id varchar(80), \
             event_type varchar(80), topic text, payload bytea, headers json, created_at timestamp default now(), published_at timestamptz, more text)",
        )
        .await;
    let adopted = outboxd(&database.url, &["migrate"]).exits(0);
    assert!(
        adopted
            .stderr
            .contains("table public.outbox: found, and adopted"),
        "{}",
        adopted.stderr
    );
    assert!(
        adopted
            .stderr
            .contains("index of pending rows on public.outbox: created"),
        "{}",
        adopted.stderr
    );
    outboxd(&database.url, &["check"]).exits(0);
    database
        .execute("insert into outbox (event_id, aggregate_type, aggregate_id, event_type, payload) values ('e', 'a', 'k', 'T', '\\x00ff')")
        .await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    assert_eq!(publish_all(&outbox, &mut link).await, 1);
}

#[tokio::test]
async fn a_table_that_will_not_do_is_refused_and_nothing_is_left_behind() {
    let database = Database::empty().await;
    database
        .execute("create table outbox (id bigserial primary key, payload jsonb)")
        .await;
    let refused = outboxd(&database.url, &["migrate"]).exits(78);
    assert!(
        refused.stderr.contains("has no column event_id"),
        "{}",
        refused.stderr
    );
    assert_eq!(database.number(TABLES).await, 1);
    database
        .execute(
            "drop table outbox; create table outbox (id bigserial primary key, event_id uuid, aggregate_type text, aggregate_id uuid, \
             event_type text, topic text, payload jsonb, headers jsonb, created_at timestamptz, published_at timestamptz)",
        )
        .await;
    let refused = outboxd(&database.url, &["migrate"]).exits(78);
    assert!(
        refused
            .stderr
            .contains("column aggregate_id of public.outbox is of type uuid"),
        "{}",
        refused.stderr
    );
    assert_eq!(database.number(TABLES).await, 1);
}

#[tokio::test]
async fn a_large_table_without_its_index_is_not_locked_for_building_it() {
    let database = Database::new().await;
    database
        .execute(
            "drop index outbox_pending; delete from outboxd_migrations; \
             insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
             select 'a', n::text, 'T', to_jsonb(repeat(md5(n::text), 60)) from generate_series(1, 45000) n",
        )
        .await;
    let refused = outboxd(&database.url, &["migrate"]).exits(78);
    let statement = refused.stderr.split("migrate again: ").nth(1).unwrap();
    assert!(
        statement.starts_with("create index concurrently"),
        "{statement}"
    );
    database.execute(statement).await;
    outboxd(&database.url, &["migrate"]).exits(0);
    outboxd(&database.url, &["check"]).exits(0);
}

#[tokio::test]
async fn a_migration_changed_since_is_refused() {
    let database = Database::new().await;
    database
        .execute("update outboxd_migrations set checksum = 'other' where version = 3")
        .await;
    let refused = outboxd(&database.url, &["migrate"]).exits(78);
    assert!(
        refused
            .stderr
            .contains("migration 3 (relay) of public.outbox was applied with another text"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn a_relay_refuses_another_number_of_lanes_and_missing_tables_of_its_own() {
    let database = Database::new().await;
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    outbox.verify(&mut link).await.unwrap();
    database
        .execute("create index other on outbox ((hashtextextended(coalesce(aggregate_id, id::text), 0) & 127), id) where published_at is null")
        .await;
    let error = outbox.verify(&mut link).await.unwrap_err();
    assert!(
        error.is_schema() && error.to_string().contains("into 128 lanes"),
        "{error}"
    );
    database
        .execute("drop index other; drop table outbox_failures")
        .await;
    let mut link = outbox.link().await.unwrap();
    let error = outbox.verify(&mut link).await.unwrap_err();
    assert!(
        error.is_schema() && error.to_string().contains("outboxd migrate"),
        "{error}"
    );
}

#[tokio::test]
async fn the_trigger_notifies_with_the_tables_name() {
    let database = Database::new().await;
    outboxd(&database.url, &["migrate", "--with", "notify"]).exits(0);
    let mut listener = sqlx::postgres::PgListener::connect(&database.url)
        .await
        .unwrap();
    listener.listen("outboxd").await.unwrap();
    insert(&database, "k").await;
    assert_eq!(listener.recv().await.unwrap().payload(), "public.outbox");
}
