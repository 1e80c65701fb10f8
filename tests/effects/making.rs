//! Making the tables.

use crate::{
    common::{database::Database, relay::outboxd},
    lab::database,
};

fn migrate(database: &Database, flags: &[&str]) -> (i32, String) {
    let arguments = [&["migrate", "--database-url", &database.url], flags].concat();
    let (code, _, stderr) = outboxd(&arguments);
    (code, stderr)
}

const FUNCTIONS: &str = "select count(*) from pg_proc where proname ~ '^(idempotency|inbox)_'";

#[tokio::test]
async fn without_being_asked_nothing_of_it_is_made() {
    let database = Database::new().await;
    assert_eq!(database.number(FUNCTIONS).await, 0);
    let tables = "select count(*) from pg_class where relname in ('inbox', 'idempotency_keys')";
    assert_eq!(database.number(tables).await, 0);
}

#[tokio::test]
async fn it_may_be_asked_for_again_and_for_a_second_outbox_beside_the_first() {
    let database = database().await;
    let (code, stderr) = migrate(&database, &["--with", "effects"]);
    assert!(code == 0 && stderr.contains("there already"), "{stderr}");
    let (code, stderr) = migrate(&database, &["--with", "effects", "--table", "second"]);
    assert!(
        code == 0 && stderr.contains("found, and adopted"),
        "{stderr}"
    );
    assert_eq!(database.number(FUNCTIONS).await, 4);
}

#[tokio::test]
async fn the_printed_sql_makes_the_same_in_any_schema_and_may_be_applied_twice() {
    let database = Database::empty().await;
    let table = r#"My "Schema".outbox"#;
    let (code, script, stderr) =
        outboxd(&["migrate", "--print", "--with", "effects", "--table", table]);
    assert_eq!(code, 0, "{stderr}");
    database.execute(&script).await;
    database.execute(&script).await;
    let sql = r#"select count(*) from "My ""Schema""".idempotency_begin('u', 'k', 'h', '1 s', '1 day')
        where outcome = 'started' and "My ""Schema""".inbox_accept('c', 'm', '1 day')"#;
    assert_eq!(database.number(sql).await, 1);
}

#[tokio::test]
async fn a_table_of_something_else_is_neither_adopted_nor_cleaned() {
    let database = Database::empty().await;
    let theirs = "create table inbox (id bigint, subject text, expires_at timestamptz);
                  insert into inbox values (1, 'hello', '2020-01-01')";
    database.execute(theirs).await;
    let (code, stderr) = migrate(&database, &["--with", "effects"]);
    assert_eq!(code, 78, "{stderr}");
    assert!(
        stderr.contains(r#""public"."inbox""#) && stderr.contains("consumer, message_id"),
        "{stderr}"
    );
    assert_eq!(database.number(FUNCTIONS).await, 0);
    assert_eq!(migrate(&database, &[]).0, 0);
    assert_eq!(left_by_prune(&database).await, 1);
    // Whoever applies the SQL by other means is not asked; but it is theirs all the same.
    let script = outboxd(&["migrate", "--print", "--with", "effects"]).1;
    database.execute(&script).await;
    assert_eq!(database.number(FUNCTIONS).await, 4);
    assert_eq!(left_by_prune(&database).await, 1);
}

#[tokio::test]
async fn tables_without_our_keys_are_not_adopted() {
    for (drop, lacks) in [
        (
            "alter table inbox drop constraint inbox_pkey",
            "(consumer, message_id)",
        ),
        (
            "alter table idempotency_keys drop constraint idempotency_keys_token_key",
            "(token)",
        ),
    ] {
        let database = database().await;
        database.execute(drop).await;
        let (code, stderr) = migrate(&database, &["--with", "effects", "--table", "second"]);
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains(lacks), "{stderr}");
    }
}

#[tokio::test]
async fn a_table_like_ours_without_our_function_is_not_cleaned() {
    let database = database().await;
    let expired = "insert into inbox values ('c', 'm', '2020-01-01')";
    database.execute(expired).await;
    database.execute("drop function inbox_accept").await;
    assert_eq!(left_by_prune(&database).await, 1);
    assert_eq!(
        migrate(&database, &["--with", "effects", "--table", "second"]).0,
        0
    );
    assert_eq!(left_by_prune(&database).await, 0);
}

async fn left_by_prune(database: &Database) -> i64 {
    let (code, _, stderr) = outboxd(&["prune", "--database-url", &database.url]);
    assert_eq!(code, 0, "{stderr}");
    database.number("select count(*) from inbox").await
}
