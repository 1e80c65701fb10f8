//! `outboxd inspect` and `outboxd preset`.

use crate::{
    common::{database::Database, unique},
    lab::outboxd,
};

const DEBEZIUM: &str = "create table outboxevent (id uuid primary key default gen_random_uuid(), aggregatetype varchar(255) not null, \
    aggregateid varchar(255) not null, type varchar(255) not null, payload jsonb); \
    insert into outboxevent (aggregatetype, aggregateid, type, payload) values ('order', '42', 'OrderPlaced', '{\"total\": 42}')";

/// The arguments of the command that a report says to go on with, to standard output instead of a broker.
fn commanded(said: &str) -> Vec<String> {
    let line = said
        .lines()
        .find(|line| line.contains("outboxd run "))
        .unwrap();
    let (command, _) = line.trim().split_once(" --kafka-brokers").unwrap();
    let words = command.replacen("outboxd run", "drain", 1);
    let words = words.split(' ').chain(["--sink", "stdout"]);
    words
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

#[tokio::test]
async fn a_newcomer_relays_debeziums_table_by_two_commands() {
    let database = Database::empty().await;
    database.execute(DEBEZIUM).await;
    let said = outboxd(&database.url, &["inspect"]).exits(0).stdout;
    for part in [
        "public.outboxevent: preset debezium (certain); 1 events wait",
        "add column \"outbox_order\" bigint generated always as identity unique",
        "create index concurrently \"outboxevent_pending\"",
        "grant delete on \"public\".\"outboxevent\" to \"outboxd\"",
        "\"destination\":\"outbox.event.order\",\"key\":\"42\",\"type\":\"OrderPlaced\"",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let command = commanded(&said);
    assert!(command.join(" ").contains("--ordering none"), "{command:?}");
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    let sent = outboxd(&database.url, &command).exits(0).stdout;
    assert!(sent.contains("\"payload\":{\"total\": 42}"), "{sent}");
    assert_eq!(database.number("select count(*) from outboxevent").await, 0);
}

#[tokio::test]
async fn with_the_column_that_is_advised_the_order_is_kept() {
    let database = Database::empty().await;
    database.execute(DEBEZIUM).await;
    let said = outboxd(&database.url, &["inspect"]).exits(0).stdout;
    let add = said
        .lines()
        .find_map(|line| line.split_once("add it: "))
        .unwrap()
        .1;
    database.execute(add.split_once(';').unwrap().0).await;
    let said = outboxd(&database.url, &["inspect"]).exits(0).stdout;
    assert!(!said.contains("--ordering none"), "{said}");
    let command = commanded(&said);
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    outboxd(&database.url, &command).exits(0);
    outboxd(&database.url, &["check", "--preset", "debezium"]).exits(0);
}

#[tokio::test]
async fn a_table_of_ones_own_is_given_a_mapping_to_go_on_from() {
    let database = Database::empty().await;
    database
        .execute(
            "create schema \"My Schema\"; create table \"My Schema\".\"out'box; \"\"x\" (\"Id\" bigint generated always as identity primary key, \
             topic text, \"key\" text, body text, published_at timestamptz, created_at timestamptz default now()); \
             insert into \"My Schema\".\"out'box; \"\"x\" (topic, key, body) values ('orders', 'k', 'hello'); \
             create table users (id bigserial primary key, name text, status text)",
        )
        .await;
    let file = std::env::temp_dir().join(unique("outboxd-proposal"));
    let path = file.to_str().unwrap();
    let said = outboxd(&database.url, &["inspect", "--write", path])
        .exits(0)
        .stdout;
    assert!(said.contains("a mapping of its own"), "{said}");
    assert!(!said.contains("users"), "{said}");
    outboxd(&database.url, &["migrate", "--mapping", path]).exits(0);
    outboxd(&database.url, &["check", "--mapping", path]).exits(0);
    let sent = outboxd(
        &database.url,
        &["drain", "--mapping", path, "--sink", "stdout"],
    );
    assert!(sent.exits(0).stdout.contains("\"payload\":\"hello\""));
    let again = outboxd(&database.url, &["inspect", "--write", path]).exits(1);
    assert!(again.stderr.contains("exists"), "{}", again.stderr);
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn what_speaks_against_a_table_is_told_with_the_remedy() {
    let database = Database::empty().await;
    database.execute(DEBEZIUM).await;
    let role = unique("reader").replace('-', "_");
    database
        .execute(&format!(
            "create role {role} login password 'r'; grant select on outboxevent to {role}; alter table outboxevent enable row level security; \
             create function f() returns trigger language plpgsql as 'begin return null; end'; \
             create trigger guard before delete on outboxevent for each row execute function f()"
        ))
        .await;
    let (_, rest) = database.url.split_once('@').unwrap();
    let url = format!("postgres://{role}:r@{rest}");
    let said = outboxd(&url, &["inspect", "--samples", "0"])
        .exits(0)
        .stdout;
    for part in [
        "row security: policies of public.outboxevent apply",
        "trigger guard fires",
        "grant delete on",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    database
        .execute(&format!("drop owned by {role}; drop role {role}"))
        .await;
}

#[tokio::test]
async fn a_database_without_an_outbox_is_told_what_to_do() {
    let database = Database::empty().await;
    let nothing = outboxd(&database.url, &["inspect"]).exits(1).stderr;
    assert!(nothing.contains("none of 0 tables"), "{nothing}");
    database
        .execute("create table users (id bigserial primary key, name text, body text)")
        .await;
    let nothing = outboxd(&database.url, &["inspect"]).exits(1).stderr;
    assert!(
        nothing.contains("none of 1 tables") && nothing.contains("outboxd migrate"),
        "{nothing}"
    );
}

#[tokio::test]
async fn outboxds_own_table_is_known_and_json_tells_all() {
    let database = Database::new().await;
    database.insert("orders", 12, 3).await;
    let found = outboxd(&database.url, &["inspect", "--json"])
        .exits(0)
        .json();
    let [own] = &found.as_array().unwrap()[..] else {
        panic!("{found}")
    };
    assert_eq!(own["table"], "public.outbox");
    assert_eq!(own["confidence"], "certain");
    assert_eq!(own["pending_events"], 12);
    assert_eq!(own["samples"].as_array().unwrap().len(), 10);
    assert_eq!(own["findings"].as_array().unwrap().len(), 0, "{own}");
}

#[tokio::test]
async fn presets_are_listed_and_shown() {
    let list = outboxd("postgres://nowhere", &["preset", "list"])
        .exits(0)
        .stdout;
    assert!(
        list.contains("go-outbox") && list.contains("debezium"),
        "{list}"
    );
    let shown = outboxd("postgres://nowhere", &["preset", "show", "debezium"])
        .exits(0)
        .stdout;
    assert!(
        shown.contains("destination = \"outbox.event.{aggregatetype}\""),
        "{shown}"
    );
    let unknown = outboxd("postgres://nowhere", &["preset", "show", "x"])
        .exits(78)
        .stderr;
    assert!(
        unknown.contains("there is no preset \"x\"; there are"),
        "{unknown}"
    );
}
