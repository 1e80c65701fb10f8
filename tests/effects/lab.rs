//! What the tests here share: a database with the tables, and the functions as a service calls them.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};

use crate::common::{
    database::Database,
    relay::{outboxd, until},
};

/// Each case, for each of the programs.
macro_rules! suite {
    ($cases:tt $($name:ident: $program:expr,)*) => { $(
        mod $name {
            use super::*;
            suite!(@ $cases $program);
        }
    )* };
    (@ [$($case:ident)*] $program:expr) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            super::$case($program).await;
        }
    )* };
}

/// The example `orders` of this build.
pub fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().join("../examples/orders");
    assert!(path.exists(), "cargo build --example orders comes first");
    path
}

/// A running program; killed when dropped.
pub struct Program(Child);

impl Program {
    /// Starts a subcommand of the example.
    pub fn example(arguments: &[&str]) -> Self {
        Self::start(Command::new(example()).args(arguments))
    }

    /// Starts a script of this folder, with the system's Python: Debian's packages are in it.
    pub fn python(script: &str, arguments: &[&str]) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/effects/");
        let mut command = Command::new("/usr/bin/python3");
        Self::start(command.arg(format!("{folder}{script}")).args(arguments))
    }

    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Panics if it has ended by itself.
    pub fn runs(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until somebody waits for a lock that the test holds.
pub async fn in_mid_effect(database: &Database) {
    until("somebody is in the middle of an effect", || async {
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
        database.number(waiting).await > 0
    })
    .await;
}

/// A new database with `outboxd migrate --with effects` done, and a table of effects.
pub async fn database() -> Database {
    let database = Database::empty().await;
    let arguments = [
        "migrate",
        "--with",
        "effects",
        "--database-url",
        &database.url,
    ];
    let (code, _, stderr) = outboxd(&arguments);
    assert_eq!(code, 0, "{stderr}");
    database.execute("create table effects (of text)").await;
    database
}

/// What `idempotency_begin` gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Started(String),
    InProgress,
    Replay(i32, String, Vec<u8>),
    Mismatch,
}

impl Outcome {
    pub fn token(&self) -> &str {
        match self {
            Self::Started(token) => token,
            other => panic!("{other:?}"),
        }
    }
}

pub fn outcome(row: &PgRow) -> Outcome {
    match row.get("outcome") {
        "started" => Outcome::Started(row.get("token")),
        "in_progress" => Outcome::InProgress,
        "replay" => Outcome::Replay(row.get("status"), row.get("headers"), row.get("body")),
        "mismatch" => Outcome::Mismatch,
        other => panic!("{other}"),
    }
}

/// A request of user `u` with this key and hash, whose lock lasts so many seconds.
pub async fn try_begin(
    connection: &mut PgConnection,
    key: &str,
    hash: &str,
    seconds: f64,
) -> sqlx::Result<Outcome> {
    let row = sqlx::query(
        "select outcome, token::text, status, headers::text, body
           from idempotency_begin('u', $1, $2, make_interval(secs => $3), '1 day')",
    )
    .bind(key)
    .bind(hash)
    .bind(seconds)
    .fetch_one(connection)
    .await?;
    Ok(outcome(&row))
}

pub async fn begin(connection: &mut PgConnection, key: &str, hash: &str, seconds: f64) -> Outcome {
    try_begin(connection, key, hash, seconds).await.unwrap()
}

pub async fn complete(connection: &mut PgConnection, token: &str) -> sqlx::Result<()> {
    sqlx::query(
        "select idempotency_complete($1::text::uuid, 201, '{\"location\": \"/1\"}', 'done')",
    )
    .bind(token)
    .execute(connection)
    .await
    .map(drop)
}

/// The effect's transaction: a row of `effects`, and the response.
pub async fn effect(connection: &mut PgConnection, key: &str, token: &str) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::query("insert into effects values ($1)")
        .bind(key)
        .execute(&mut *transaction)
        .await?;
    complete(&mut transaction, token).await?;
    transaction.commit().await
}

pub async fn release(connection: &mut PgConnection, token: &str) -> bool {
    let row = sqlx::query("select idempotency_release($1::text::uuid)")
        .bind(token)
        .fetch_one(connection)
        .await;
    row.unwrap().get(0)
}

pub async fn accept(connection: &mut PgConnection, message_id: &str) -> sqlx::Result<bool> {
    let row = sqlx::query("select inbox_accept('payments', $1, '1 day')")
        .bind(message_id)
        .fetch_one(connection)
        .await?;
    Ok(row.get(0))
}

/// What the tests' effects store as the response.
pub fn response() -> Outcome {
    Outcome::Replay(201, r#"{"location": "/1"}"#.into(), b"done".to_vec())
}

/// The SQLSTATE of an error.
pub fn code<T: std::fmt::Debug>(result: sqlx::Result<T>) -> String {
    match result.unwrap_err() {
        sqlx::Error::Database(error) => error.code().unwrap().into_owned(),
        other => panic!("{other}"),
    }
}
