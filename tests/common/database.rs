//! A database of a test's own, with the outbox in it.

use std::process::Command;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::{address_in, blocking, env, proxy::Proxy, unique, with_address};

/// A database; dropped with the value.
pub struct Database {
    pub url: String,
    pub name: String,
    server: String,
}

impl Database {
    /// A new database with `outboxd migrate` done.
    pub async fn new() -> Self {
        Self::on(&env("TEST_POSTGRES_URL")).await
    }

    /// The same on a server of one's own.
    pub async fn on(server: &str) -> Self {
        let database = Self::empty_on(server).await;
        let done = Command::new(env!("CARGO_BIN_EXE_outboxd"))
            .args(["migrate", "--database-url", &database.url])
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        database
    }

    /// A new database with nothing in it.
    pub async fn empty() -> Self {
        Self::empty_on(&env("TEST_POSTGRES_URL")).await
    }

    async fn empty_on(server: &str) -> Self {
        let name = unique("outboxd").replace('-', "_");
        execute_on(server, &format!("create database {name}")).await;
        Self {
            url: on_database(server, &name),
            name,
            server: server.to_owned(),
        }
    }

    /// The same database through PgBouncer in transaction mode.
    pub fn through_pgbouncer(&self) -> String {
        self.through(&env("TEST_PGBOUNCER_URL"))
    }

    /// The same database through a pooler of one's own.
    pub fn through(&self, pooler: &str) -> String {
        on_database(pooler, &self.name)
    }

    /// A proxy before the server, and the same database's URL through it.
    pub async fn through_proxy(&self) -> (Proxy, String) {
        let proxy = Proxy::before(address_in(&self.url)).await;
        let url = with_address(&self.url, &proxy.address());
        (proxy, url)
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        execute_on(&self.url, sql).await;
    }

    /// The one number a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        let row = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut self.connect().await)
            .await;
        row.unwrap().get(0)
    }

    /// The one text a query gives.
    pub async fn text(&self, sql: &str) -> String {
        let row = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut self.connect().await)
            .await;
        row.unwrap().get(0)
    }

    /// Inserts `count` events of `topic` over `keys` keys; the payload is the number.
    pub async fn insert(&self, topic: &str, count: usize, keys: usize) {
        self.execute(&format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
             select '{topic}', 'key-' || n % {keys}, 'Tested', to_jsonb(n) from generate_series(1, {count}) n"
        ))
        .await;
    }

    /// Rows not yet published.
    pub async fn pending(&self) -> i64 {
        self.number("select count(*) from outbox where published_at is null")
            .await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("drop database if exists {} with (force)", self.name);
        let server = self.server.clone();
        // A runtime of its own: the test's may be the one that is unwinding.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(execute_on(&server, &sql));
        });
        drop(blocking(|| dropped.join())); // a failing test must not fail twice
    }
}

async fn execute_on(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.unwrap();
}

fn on_database(server: &str, name: &str) -> String {
    let (start, _) = server.rsplit_once('/').unwrap();
    format!("{start}/{name}")
}
