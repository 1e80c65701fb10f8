//! Tables of somebody else's, and relays on them.

use std::path::PathBuf;

use crate::common::{
    broker::Broker,
    database::Database,
    relay::{Relay, outboxd},
    unique,
};

/// A mapping in a file; gone with the value.
pub struct File(PathBuf);

impl File {
    pub fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(unique("outboxd-mapping"));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// What tells the order of rows.
#[derive(Debug, Clone, Copy)]
pub enum By {
    /// A uuid tells rows apart, a timestamp orders them.
    Time,
    /// A uuid tells rows apart, a number that is drawn orders them.
    Number,
    /// A text tells rows apart and orders them.
    Text,
    /// A uuid tells rows apart, a text of a fixed length orders them.
    Characters,
    /// An integer that the application gives out does both.
    Given,
}

/// A table that is marked by a word, and a mapping for it.
pub struct Foreign {
    pub database: Database,
    pub mapping: File,
    pub by: By,
}

const BASE: &str = "timestamptz '2026-01-01 00:00:00Z'";

impl Foreign {
    pub async fn new(by: By) -> Self {
        let database = Database::empty().await;
        let (columns, order) = match by {
            By::Time => (
                "ref uuid primary key default gen_random_uuid(), at timestamptz not null",
                "order = \"at\"\ntime = \"at\"",
            ),
            By::Number => (
                "ref uuid primary key default gen_random_uuid(), seq bigint generated always as identity unique",
                "order = \"seq\"",
            ),
            By::Text => ("ref varchar(60) primary key", "order = \"ref\""),
            By::Characters => (
                "ref uuid primary key default gen_random_uuid(), ulid char(26) not null",
                "order = \"ulid\"",
            ),
            By::Given => ("ref integer primary key", ""),
        };
        database
            .execute(&format!(
                "create table \"Events\" ({columns}, n integer not null, \"Agg\" text, topic varchar(200) not null, \
                 body jsonb, state varchar(8) not null default 'NEW' check (state in ('NEW', 'SENT')), sent_at timestamptz)"
            ))
            .await;
        let mapping = File::new(&format!(
            "table = \"Events\"\nid = \"ref\"\n{order}\nkey = \"Agg\"\ndestination = \"topic\"\ntype = {{ constant = \"Tested\" }}\n\
             payload = \"body\"\npending = \"state = 'NEW'\"\ndone = {{ state = \"SENT\", sent_at = \"now()\" }}\n"
        ));
        let foreign = Self {
            database,
            mapping,
            by,
        };
        foreign.outboxd(&["migrate"]).exits(0);
        foreign
    }

    /// Inserts events over so many keys, after `before` others; the payload is the number.
    pub fn insert_sql(&self, topic: &str, before: usize, count: usize, keys: usize) -> String {
        let (columns, values) = match self.by {
            By::Time => ("at, ", format!("{BASE} + n * interval '1 ms', ")),
            By::Number => ("", String::new()),
            // Whatever quotes might be lost.
            By::Text => (
                "ref, ",
                r#"lpad(n::text, 8, '0') || E' \'",{columns}\\', "#.into(),
            ),
            By::Characters => ("ulid, ", "'01' || lpad(n::text, 24, '0'), ".into()),
            By::Given => ("ref, ", "n, ".into()),
        };
        format!(
            "insert into \"Events\" ({columns}n, \"Agg\", topic, body) \
             select {values}n, 'key-' || n % {keys}, '{topic}', to_jsonb(n) from generate_series({before} + 1, {before} + {count}) n order by n"
        )
    }

    pub async fn insert(&self, topic: &str, before: usize, count: usize, keys: usize) {
        let sql = self.insert_sql(topic, before, count, keys);
        self.database.execute(&sql).await;
    }

    pub async fn pending(&self) -> i64 {
        let sql = "select count(*) from \"Events\" where state = 'NEW'";
        self.database.number(sql).await
    }

    pub fn flags(&self) -> [&str; 4] {
        let (url, file) = (&self.database.url, self.mapping.path());
        ["--database-url", url, "--mapping", file]
    }

    /// Runs a command on this table.
    pub fn outboxd(&self, arguments: &[&str]) -> Ran {
        run(&[arguments, &self.flags()].concat())
    }

    pub fn relay(&self, broker: &Broker, more: &[&str]) -> Relay {
        Relay::run(&[&self.flags()[..], &broker.flags(), more].concat())
    }
}

/// What a command gave.
pub struct Ran {
    code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command.
pub fn run(arguments: &[&str]) -> Ran {
    let (code, stdout, stderr) = outboxd(arguments);
    Ran {
        code,
        stdout,
        stderr,
    }
}

impl Ran {
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }
}
