//! One database connection, every call on it under a deadline.
//!
//! # Design notes
//! * No pool: a relay's tasks own their connections, so that no future which holds one is ever
//!   cancelled half-way (sqlx 0.9's `Pool::begin` is not cancel-safe). After any error or expired
//!   deadline the session is dropped, and PostgreSQL rolls back what was open.
//! * Every statement runs inside an explicit transaction and is never prepared by the protocol's names:
//!   behind a transaction-pooling PgBouncer these may silently be another client's. (What claims prepare
//!   by SQL cannot be: see `claim::prepared`.)

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Either, PgConnection, Postgres,
    postgres::{PgArguments, PgConnectOptions, PgRow},
    query::Query,
};

use super::{error::DbError, table::get};

/// How to connect, and how long anything may take.
#[derive(Clone)]
pub struct Database {
    url: SecretString,
    application_name: String,
    deadline: Duration,
}

impl Database {
    /// `deadline` bounds each call; it should exceed the server-side statement timeout.
    pub fn new(url: SecretString, instance: &str, deadline: Duration) -> Self {
        Self {
            url,
            application_name: format!("outboxd/{instance}"),
            deadline,
        }
    }

    /// How long a call may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Opens a connection. Names are resolved and certificate files read anew each time.
    pub async fn connect(&self) -> Result<Session, DbError> {
        let options = super::url::connect_options(self.url.expose_secret())
            .map_err(DbError::settings)?
            .application_name(&self.application_name)
            // PgBouncer refuses start-up parameters it does not know.
            .extra_float_digits(None)
            // Statements hold destinations, and cost more to log than to run.
            .disable_statement_logging();
        self.connect_with(&options).await
    }

    async fn connect_with(&self, options: &PgConnectOptions) -> Result<Session, DbError> {
        let connecting = PgConnection::connect_with(options);
        let connection = within(self.deadline, "connect", connecting).await?;
        Ok(Session {
            connection,
            deadline: self.deadline,
            prepared: Vec::new(),
        })
    }
}

/// A connection. Drop it after any error: its transaction, if one was open, is rolled back.
pub struct Session {
    connection: PgConnection,
    deadline: Duration,
    /// The names of what was prepared here.
    prepared: Vec<String>,
}

/// A statement with bound arguments, never prepared by name.
pub type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Builds a statement. The text is made of the table's description and our own words only; whatever
/// comes from outside is bound.
pub fn statement<'q>(sql: impl Into<String>) -> Statement<'q> {
    sqlx::query(AssertSqlSafe(sql.into())).persistent(false)
}

impl Session {
    /// Runs statements of one round trip, separated by semicolons; gives the rows of all of them, as
    /// text.
    pub async fn batch(
        &mut self,
        operation: &'static str,
        sql: String,
    ) -> Result<Vec<PgRow>, DbError> {
        let (rows, _) = self.batch_counted(operation, sql).await?;
        Ok(rows)
    }

    /// The same, and how many rows each statement gave or changed.
    pub async fn batch_counted(
        &mut self,
        operation: &'static str,
        sql: String,
    ) -> Result<(Vec<PgRow>, Vec<u64>), DbError> {
        let mut results = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(&mut self.connection);
        let collecting = async {
            let (mut rows, mut counts) = (Vec::new(), Vec::new());
            while let Some(step) = results.try_next().await? {
                match step {
                    Either::Right(row) => rows.push(row),
                    Either::Left(done) => counts.push(done.rows_affected()),
                }
            }
            Ok((rows, counts))
        };
        within(self.deadline, operation, collecting).await
    }

    /// Runs one statement; gives its rows, in the binary format. (That is two round trips, since sqlx
    /// waits for the statement to be parsed before it binds: what is asked for often goes by
    /// [`Session::batch`].)
    pub async fn fetch(
        &mut self,
        operation: &'static str,
        sql: Statement<'_>,
    ) -> Result<Vec<PgRow>, DbError> {
        within(
            self.deadline,
            operation,
            sql.fetch_all(&mut self.connection),
        )
        .await
    }

    /// Runs one statement that gives exactly one row.
    pub async fn fetch_one(
        &mut self,
        operation: &'static str,
        sql: Statement<'_>,
    ) -> Result<PgRow, DbError> {
        within(
            self.deadline,
            operation,
            sql.fetch_one(&mut self.connection),
        )
        .await
    }

    /// Runs one statement; gives the number of rows it changed.
    pub async fn execute(
        &mut self,
        operation: &'static str,
        sql: Statement<'_>,
    ) -> Result<u64, DbError> {
        let done = within(self.deadline, operation, sql.execute(&mut self.connection)).await?;
        Ok(done.rows_affected())
    }

    /// The names of what was prepared in this session; it knows them unless a pooler has passed it on.
    pub(super) fn prepared(&self) -> &[String] {
        &self.prepared
    }

    /// Statements were prepared here under these names.
    pub(super) fn note_prepared(&mut self, names: Vec<String>) {
        self.prepared = names;
    }

    /// Opens a transaction with the timeouts of a short one. Read committed, whatever the server's
    /// default: a later statement must see what was committed after an earlier one.
    pub async fn begin(&mut self, timeouts: &Timeouts) -> Result<(), DbError> {
        self.batch("begin", timeouts.begin_sql()).await.map(drop)
    }

    /// Refuses a database or role that is to take no writes, as far as this session was told when it
    /// began. Our transactions are begun so that a standby refuses them at once, which would override
    /// that default.
    pub async fn heed_read_only(&mut self) -> Result<(), DbError> {
        let sql = "select current_setting('default_transaction_read_only')";
        let row = self.fetch_one("connect", statement(sql)).await?;
        match get::<&str>(&row, 0)? {
            "off" => Ok(()),
            _ => Err(DbError::table(
                "default_transaction_read_only is on: the server, database or role is to take no \
                 writes; nothing is published until it is off",
            )),
        }
    }

    /// Opens a transaction that can change nothing and lock no row.
    pub async fn begin_reading(&mut self, timeouts: &Timeouts) -> Result<(), DbError> {
        let sql = timeouts.begin_sql() + "; set transaction read only";
        self.batch("begin", sql).await.map(drop)
    }

    /// Commits.
    pub async fn commit(&mut self) -> Result<(), DbError> {
        self.batch("commit", "commit".into()).await.map(drop)
    }

    /// Ends the transaction without keeping anything.
    pub async fn rollback(&mut self) -> Result<(), DbError> {
        self.batch("rollback", "rollback".into()).await.map(drop)
    }

    /// Says goodbye to the server, briefly.
    pub async fn close(self) {
        if let Err(error) = within(Duration::from_secs(1), "close", self.connection.close()).await {
            tracing::debug!(%error, "closing a database connection");
        }
    }

    /// The server's version as a number, 150018 for 15.18.
    pub fn server_version(&self) -> u32 {
        self.connection.server_version_num().unwrap_or_default()
    }
}

/// Timeouts that a transaction sets for itself (`SET LOCAL`), so that nothing it holds outlives it
/// by long: not a frozen process, not a lost network, not a lock queue behind DDL.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// `statement_timeout`.
    pub statement: Duration,
    /// `lock_timeout`.
    pub lock: Duration,
    /// `idle_in_transaction_session_timeout`: longer than the longest publish.
    pub idle: Duration,
}

impl Timeouts {
    /// `begin` with these timeouts, as one round trip.
    pub fn begin_sql(&self) -> String {
        format!(
            "begin isolation level read committed read write; set local statement_timeout = {}; \
             set local lock_timeout = {}; set local idle_in_transaction_session_timeout = {}",
            self.statement.as_millis(),
            self.lock.as_millis(),
            self.idle.as_millis()
        )
    }
}

async fn within<T>(
    deadline: Duration,
    operation: &'static str,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, DbError> {
    let started = Instant::now();
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(DbError::sql(operation, error)),
        Err(_) => Err(DbError::deadline(operation, started.elapsed())),
    }
}
