//! Mappings that do not fit: each is refused before a row is touched, with its place and what to do.

use crate::{
    common::database::Database,
    lab::{File, run},
};

const TABLE: &str = "create type mood as enum ('new', 'gone');
    create table outbox (id uuid primary key default gen_random_uuid(), seq bigint not null generated always as identity unique,
      twin int not null default 1, agg text, kind text, body jsonb, raw point, note text, names text[], mood mood default 'new',
      status varchar(9) default 'PENDING' check (status in ('PENDING', 'SENT')), done boolean not null default false,
      tries int default 0, sent_at timestamptz, made text, born timestamptz not null default now(), late timestamptz,
      twice int generated always as (tries * 2) stored, loose uuid unique);
    insert into outbox (agg, kind, body) values ('a', 'k', '{}'), ('b', 'k', '{}');
    create unlogged table audit (n int);
    create view seen as select * from outbox";

/// A mapping that fits, but for what is replaced.
const WHOLE: [(&str, &str); 7] = [
    ("id", r#""id""#),
    ("order", r#""seq""#),
    ("key", r#""agg""#),
    ("destination", r#""kind""#),
    ("payload", r#""body""#),
    ("pending", r#""status = 'PENDING'""#),
    ("done", r#"{ status = "SENT" }"#),
];

/// The whole mapping with parts replaced, added or, by an empty text, left out.
fn mapping(changes: &[(&str, &str)]) -> String {
    let whole = WHOLE
        .iter()
        .filter(|(part, _)| !changes.iter().any(|(changed, _)| changed == part));
    let parts = whole.chain(changes).filter(|(_, text)| !text.is_empty());
    let lines = parts.map(|(part, text)| format!("{part} = {text}"));
    lines.collect::<Vec<_>>().join("\n")
}

type Wrong = (&'static [(&'static str, &'static str)], &'static str);

const WRONG: &[Wrong] = &[
    // Parts that are missing, unknown or of another form.
    (&[("id", "")], "`id` is missing"),
    (&[("payload", "")], "`payload` is missing"),
    (&[("done", "")], "`done` is missing"),
    (&[("destination", "")], "neither `destination` nor --topic"),
    (&[("colour", r#""red""#)], "there is no `colour`"),
    (&[("id", "7")], "id: it is of type integer"),
    (
        &[("key", r#""{agg""#)],
        "key: \"{agg\": `{agg` is never closed",
    ),
    (&[("key", r#""a}""#)], "closes nothing"),
    (&[("key", "{ constant = 5 }")], "write a constant as"),
    (&[("destination", "[]")], "the list is empty"),
    (
        &[("done", r#""archive""#)],
        "write \"delete\", or columns to set",
    ),
    (&[("done", "{}")], "write \"delete\", or columns to set"),
    (
        &[("done", "{ status = [1] }")],
        "done.status: write a text, a number",
    ),
    (
        &[("pending", "")],
        "without `pending` every row is to be published",
    ),
    (
        &[("preset", r#""nobodys""#)],
        "there is no preset \"nobodys\"",
    ),
    (
        &[("headers", r#"{ id = "agg" }"#)],
        "headers.id: outboxd sets it itself",
    ),
    (
        &[("headers", "{ \"a\\nb\" = \"agg\" }")],
        "has a NUL, CR or LF",
    ),
    (
        &[
            ("headers_json", r#""body""#),
            ("headers_arrays", r#"["names", "names"]"#),
        ],
        "cannot both be",
    ),
    (&[("headers_arrays", r#"["names"]"#)], "two columns"),
    (&[("table", r#""a.b.c""#)], "--table \"a.b.c\""),
    // Columns that are not there, or of types that cannot be worked with.
    (
        &[("id", r#""uid""#)],
        "id: public.outbox has no column \"uid\"; it has id, seq",
    ),
    (
        &[("key", r#""k-{akk}""#)],
        "key: public.outbox has no column \"akk\"",
    ),
    (
        &[("pending", r#""state = 'x'""#)],
        "pending: public.outbox has no column \"state\"",
    ),
    (
        &[("done", r#"{ state = "x" }"#)],
        "done: public.outbox has no column \"state\"",
    ),
    (
        &[("headers", r#"{ t = "tenant" }"#)],
        "headers: public.outbox has no column \"tenant\"",
    ),
    (
        &[("id", r#""born""#)],
        "id: column born of public.outbox is of type timestamp with time zone",
    ),
    (
        &[("payload", r#""raw""#)],
        "payload: column raw of public.outbox is of type point",
    ),
    (
        &[("time", r#""made""#)],
        "time: column made of public.outbox is of type text",
    ),
    (
        &[("headers_json", r#""names""#)],
        "headers_json: column names of public.outbox is of type text[]",
    ),
    (
        &[("headers_arrays", r#"["names", "agg"]"#)],
        "headers_arrays: column agg of public.outbox is of type text",
    ),
    (
        &[("table", r#""outbax""#)],
        "there is no table public.outbax",
    ),
    // What cannot keep the promise.
    (
        &[("id", r#""twin""#)],
        "id: column twin has no primary key or unique index of its own",
    ),
    (&[("id", r#""loose""#)], "id: column loose may be NULL"),
    // Conditions and marks that PostgreSQL does not take, or that do not do.
    (
        &[("pending", r#""tries = 'many'""#)],
        "pending: invalid input syntax for type integer",
    ),
    (&[("pending", r#""status""#)], "pending: argument of"),
    (&[("pending", r#""status = = 'PENDING'""#)], "pending: "),
    (
        &[("pending", r#""mood = 'blue'""#)],
        "pending: invalid input value for enum mood",
    ),
    (
        &[("done", r#"{ tries = "many" }"#)],
        "done: invalid input syntax for type integer",
    ),
    (
        &[("done", r#"{ status = "SENT-TO-THE-BROKER" }"#)],
        "done: value too long",
    ),
    (
        &[("done", r#"{ status = "PENDING" }"#)],
        "would still be pending",
    ),
    (&[("done", "{ tries = 1 }")], "would still be pending"),
    (
        &[("done", r#"{ status = "GONE" }"#)],
        "it breaks constraint outbox_status_check",
    ),
    (
        &[("done", "{ twice = 1 }"), ("pending", r#""twice = 0""#)],
        "done: column \"twice\" can only be updated to DEFAULT",
    ),
    (
        &[
            ("pending", r#""sent_at is null or sent_at > '2020-01-01'""#),
            ("done", r#"{ sent_at = "now()" }"#),
        ],
        "would still be pending",
    ),
    (
        &[("pending", r#""born <= 'now'""#)],
        "'now' changes with time",
    ),
    // Attempts to smuggle something in.
    (
        &[("pending", r#""true); drop table outbox; --""#)],
        "pending: \"true); drop",
    ),
    (
        &[("pending", r#""status = 'PENDING' or pg_sleep(9) is null""#)],
        "pg_sleep(…) is a function",
    ),
    (
        &[("pending", r#""id in (select id from outbox)""#)],
        "pending: ",
    ),
    (
        &[("id", r#""id\"; drop table outbox; --""#)],
        "has no column \"id\\\"; drop table outbox; --\"",
    ),
    (
        &[("key", r#""{agg\"::text || pg_sleep(9)}""#)],
        "has no column",
    ),
    (
        &[(
            "done",
            r#"{ "status\" = 'SENT'; drop table outbox; --" = 1 }"#,
        )],
        "has no column",
    ),
    (
        &[("table", r#""outbox; drop table outbox""#)],
        "there is no table public.outbox; drop table outbox",
    ),
];

#[tokio::test]
async fn each_wrong_mapping_is_told_before_a_row_is_touched() {
    let database = Database::empty().await;
    database.execute(TABLE).await;
    let rows = "select string_agg(o.ctid || ' ' || o.xmin || ' ' || o.xmax || ' ' || o, ',' order by seq) from outbox o";
    let before = database.text(rows).await;
    for (changes, part) in WRONG {
        let text = mapping(changes);
        let file = File::new(&text);
        let flags = ["--database-url", &database.url, "--mapping", file.path()];
        let broker = [
            "--kafka-brokers",
            "127.0.0.1:1",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "text",
        ];
        for command in ["run", "migrate", "check"] {
            let more = if command == "migrate" {
                &[][..]
            } else {
                &broker
            };
            eprintln!("{command} by\n{text}");
            let ran = run(&[&[command], &flags[..], more].concat()).exits(78);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(
                said.contains(part),
                "{command} of\n{text}\nsays\n{said}\nand not {part}"
            );
        }
    }
    assert_eq!(database.text(rows).await, before);
    let made = "select count(*) from pg_class where relname like 'outbox_%' and relkind = 'r'";
    assert_eq!(database.number(made).await, 0, "something was made");
}

#[tokio::test]
async fn where_nothing_tells_the_order_there_is_none_to_be_kept() {
    let database = Database::empty().await;
    database.execute(TABLE).await;
    for (changes, part) in [
        (("order", ""), "nothing tells which of two events"),
        (
            ("order", r#""nr""#),
            "order: public.outbox has no column \"nr\"",
        ),
        (("order", r#""late""#), "order: column late may be NULL"),
    ] {
        let file = File::new(&mapping(&[changes]));
        let flags = ["--database-url", &database.url, "--mapping", file.path()];
        run(&[&["migrate"], &flags[..]].concat()).exits(0);
        let drain = [
            "drain",
            "--sink",
            "stdout",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "text",
        ];
        let refused = run(&[&drain, &flags[..]].concat()).exits(78).stderr;
        assert!(refused.contains(part), "{refused}");
        let done = run(&[&drain, &flags[..], &["--ordering", "none"]].concat()).exits(0);
        assert_eq!(done.stdout.lines().count(), 2);
        database
            .execute("update outbox set status = 'PENDING'; delete from outbox_instances; drop index outbox_pending")
            .await;
    }
}

#[tokio::test]
async fn the_mapping_they_are_made_of_is_right() {
    let database = Database::empty().await;
    database.execute(TABLE).await;
    let file = File::new(&mapping(&[]));
    let flags = ["--database-url", &database.url, "--mapping", file.path()];
    run(&[&["migrate"], &flags[..]].concat()).exits(0);
    let check = run(&[&["check"], &flags[..]].concat()).exits(0);
    assert!(
        check
            .stdout
            .contains("order: by seq, which each INSERT draws"),
        "{}",
        check.stdout
    );
}

#[tokio::test]
async fn check_says_where_order_cannot_be_promised() {
    let database = Database::empty().await;
    database.execute(TABLE).await;
    let text = mapping(&[("order", r#""born""#)]);
    let file = File::new(&text);
    let flags = ["--database-url", &database.url, "--mapping", file.path()];
    run(&[&["migrate"], &flags[..]].concat()).exits(0);
    let check = run(&[&["check"], &flags[..]].concat()).exits(0).stdout;
    assert!(check.contains("one that is committed late"), "{check}");
    database.execute("drop index outbox_pending").await;
    let check = run(&[&["check"], &flags[..]].concat()).exits(78).stdout;
    assert!(
        check.contains("create index concurrently \"outbox_pending\""),
        "{check}"
    );
    // Its remedy is right as it stands.
    let remedy = check
        .lines()
        .find_map(|line| line.split_once("-> create index"))
        .unwrap()
        .1;
    database.execute(&format!("create index {remedy}")).await;
    run(&[&["check"], &flags[..]].concat()).exits(0);
}

/// Neither what is said in a mapping nor a column's name is taken for a part of the statement.
#[tokio::test]
async fn the_index_is_of_the_mappings_own_words_and_names() {
    let database = Database::empty().await;
    let table = r#"create table events (id uuid primary key, "to.""n" timestamptz not null, k text, status text, payload text)"#;
    database.execute(table).await;
    let mapping = File::new(
        r#"
        table = "events"
        id = "id"
        order = "to.\"n"
        key = "k"
        destination = { constant = "orders" }
        payload = "payload"
        pending = "status = 'run concurrently'"
        done = "delete"
        "#,
    );
    let flags = ["--database-url", &database.url, "--mapping", mapping.path()];
    run(&[&["migrate"], &flags[..]].concat()).exits(0);
    let index = "select pg_get_indexdef(to_regclass('events_pending'))";
    let index = database.text(index).await;
    assert!(
        index.contains("'run concurrently'") && index.contains(r#""to.""n""#),
        "{index}"
    );
}
