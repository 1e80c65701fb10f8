//! Cleaning: what has expired goes, and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use sqlx::{Connection as _, Executor as _};

use crate::{
    common::{
        database::Database,
        relay::{Relay, outboxd, until},
        unique,
    },
    lab::{Outcome, accept, begin, database, effect, response},
};

const EXPIRED: &str = "
    insert into idempotency_keys (scope, key, request_hash, token, begun_in, locked_until, expires_at, status)
        select 'u', 'old-' || n, 'h', gen_random_uuid(), pg_current_xact_id(),
               now() - interval '2 days', now() - interval '1 second', 200 from generate_series(1, 5000) n;
    insert into inbox select 'payments', 'old-' || n, now() - interval '1 second' from generate_series(1, 5000) n";

/// Left of what [`EXPIRED`] put there.
const OLD: &str = "select (select count(*) from idempotency_keys where key like 'old%')
                        + (select count(*) from inbox where message_id like 'old%')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_deletes_what_has_expired_and_counts_it_even_if_it_keeps_published_rows() {
    let database = database().await;
    let connection = &mut database.connect().await;
    database.execute(EXPIRED).await;
    let token = begin(connection, "young", "h", 30.0).await;
    effect(connection, "young", token.token()).await.unwrap();
    let open = begin(connection, "open", "h", 0.001).await;
    assert!(accept(connection, "young").await.unwrap());
    let flags = [
        "--database-url",
        &database.url,
        "--sink",
        "stdout",
        "--retention",
        "0",
    ];
    let relay = Relay::run(&flags).ready().await;
    until("what has expired is gone", || async {
        database.number(OLD).await == 0
    })
    .await;
    until("both are counted", || async {
        let metrics = relay.metrics().await;
        ["idempotency_keys", "inbox"]
            .iter()
            .all(|table| metrics[&format!("outboxd_pruned_total{{table=\"{table}\"}}")] >= 5000.0)
    })
    .await;
    assert_eq!(begin(connection, "young", "h", 30.0).await, response());
    assert!(!accept(connection, "young").await.unwrap());
    effect(connection, "open", open.token()).await.unwrap();
}

#[tokio::test]
async fn what_somebody_uses_at_the_moment_is_left_and_nobody_waited_for() {
    let database = database().await;
    let connection = &mut database.connect().await;
    database.execute(EXPIRED).await;
    let mut transaction = connection.begin().await.unwrap();
    let used = "select from idempotency_keys where key = 'old-7' for update";
    transaction.execute(used).await.unwrap();
    let (code, _, stderr) = outboxd(&["prune", "--database-url", &database.url]);
    assert_eq!(code, 0, "{stderr}");
    for deleted in [
        "deleted 4999 expired rows of idempotency_keys",
        "deleted 5000 expired rows of inbox",
    ] {
        assert!(stderr.contains(deleted), "{stderr}");
    }
    transaction.commit().await.unwrap();
    assert_eq!(database.number(OLD).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_locked_as_a_whole_is_left_alone_and_not_felt() {
    let database = database().await;
    database.execute(EXPIRED).await;
    let connection = &mut database.connect().await;
    let mut transaction = connection.begin().await.unwrap();
    let lock = "lock table inbox in access exclusive mode";
    transaction.execute(lock).await.unwrap();
    let flags = ["--database-url", &database.url, "--sink", "stdout"];
    let relay = Relay::run(&flags).ready().await;
    until("the other table is clean", || async {
        let old = "select count(*) from idempotency_keys where key like 'old%'";
        database.number(old).await == 0
    })
    .await;
    let (code, _, stderr) = outboxd(&["prune", "--database-url", &database.url]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("somebody else holds the table"), "{stderr}");
    let errors = "outboxd_database_errors_total{operation=\"clean\"}";
    let errors = relay.metric(errors).await;
    assert!(errors < 0.5, "{errors}: {}", relay.log());
    transaction.commit().await.unwrap();
    until("what has expired is gone", || async {
        database.number(OLD).await == 0
    })
    .await;
}

/// Prunes again and again; until it is dropped, too.
struct Cleaner {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cleaner {
    fn start(database: &Database) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (told, url) = (Arc::clone(&done), database.url.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let (code, _, stderr) = outboxd(&["prune", "--database-url", &url]);
                assert_eq!(code, 0, "{stderr}");
            }
        });
        Self {
            done,
            thread: Some(thread),
        }
    }

    /// Ends it; panics if it has.
    fn stop(mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// Keys that have expired are begun again while cleaners run, who may have the row at that very moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleaning_under_load_loses_no_key_that_is_begun_anew() {
    let database = database().await;
    let cleaner = Cleaner::start(&database);
    let connection = &mut database.connect().await;
    for round in 0..300 {
        let key = unique("k");
        let expired =
            "insert into idempotency_keys (scope, key, request_hash, token, begun_in, locked_until, expires_at)
             values ('u', $1, 'old', gen_random_uuid(), pg_current_xact_id(), now(), now())";
        let query = sqlx::query(expired).bind(&key);
        query.execute(&mut *connection).await.unwrap();
        let token = loop {
            match begin(connection, &key, "h", 30.0).await {
                Outcome::Started(token) => break token,
                Outcome::InProgress => {}
                other => panic!("round {round}: {other:?}"),
            }
        };
        assert_eq!(
            begin(connection, &key, "h", 30.0).await,
            Outcome::InProgress
        );
        effect(connection, &key, &token).await.unwrap();
        assert_eq!(begin(connection, &key, "h", 30.0).await, response());
    }
    cleaner.stop();
    assert_eq!(database.number("select count(*) from effects").await, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_cannot_be_cleaned_does_not_make_the_database_unusable() {
    let database = database().await;
    database.execute(EXPIRED).await;
    let theirs = "create table theirs as select token from idempotency_keys where key = 'old-1';
                  alter table theirs add foreign key (token) references idempotency_keys (token)";
    database.execute(theirs).await;
    let flags = ["--database-url", &database.url, "--sink", "stdout"];
    let relay = Relay::run(&flags).ready().await;
    until("it says why it does not clean", || async {
        relay.log().contains("theirs_token_fkey")
    })
    .await;
    database.insert("orders", 10, 1).await;
    until(
        "events are published, and the other table is clean",
        || async {
            let left = "select count(*) from inbox";
            database.pending().await + database.number(left).await == 0
        },
    )
    .await;
    let up = relay.metric("outboxd_database_up").await;
    assert!(up > 0.5);
    let errors = "outboxd_database_errors_total{operation=\"clean\"}";
    let errors = relay.metric(errors).await;
    assert!((0.5..1.5).contains(&errors), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_grants_delivery_goes_on_and_check_names_them() {
    let database = database().await;
    let role = unique("relay").replace('-', "_");
    database
        .execute(&format!(
            "create role {role} login password 'x'; grant usage on schema public to {role};
             grant select, update (published_at), delete on outbox to {role};
             grant select, insert, update, delete on outbox_failures, outbox_instances to {role}"
        ))
        .await;
    database.execute(EXPIRED).await;
    let url = database
        .url
        .replacen("postgres:postgres@", &format!("{role}:x@"), 1);
    let arguments = ["--database-url", &url, "--sink", "stdout"];
    let relay = Relay::run(&arguments).ready().await;
    until("it says what it may not", || async {
        relay
            .log()
            .contains("grant select, delete, update (expires_at)")
    })
    .await;
    let errors = "outboxd_database_errors_total{operation=\"clean\"}";
    until("it is counted, once for each table", || async {
        (1.5..2.5).contains(&relay.metric(errors).await)
    })
    .await;
    database.insert("orders", 10, 1).await;
    until("events are published", || async {
        database.pending().await == 0
    })
    .await;
    let (code, stdout, _) = outboxd(&[&["check"], &arguments[..]].concat());
    assert_eq!(code, 0, "a warning: {stdout}");
    let grants = ["idempotency_keys", "inbox"].map(|table| {
        format!(r#"grant select, delete, update (expires_at) on "public"."{table}" to "{role}""#)
    });
    for grant in &grants {
        assert!(stdout.contains(grant), "{grant}: {stdout}");
    }
    // One table is cleaned without the other.
    database.execute(&grants[0]).await;
    let (code, _, stderr) = outboxd(&["prune", "--database-url", &url]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("deleted 5000 expired rows of idempotency_keys"),
        "{stderr}"
    );
    assert!(
        stderr.contains(r#"update (expires_at) on "public"."inbox""#),
        "{stderr}"
    );
    database.execute(&grants[1]).await;
    let (_, stdout, _) = outboxd(&[&["check"], &arguments[..]].concat());
    assert!(!stdout.contains("expires_at"), "{stdout}");
    relay.stop().await;
    let _relay = Relay::run(&arguments).ready().await;
    until("what has expired is gone", || async {
        database.number(OLD).await == 0
    })
    .await;
    database
        .execute(&format!("drop owned by {role}; drop role {role}"))
        .await;
}
