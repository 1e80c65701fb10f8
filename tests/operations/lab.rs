//! What the tests here share: the binary, the library, and failures made by hand.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use outboxd::{
    mapping::{Done, Mapping},
    outbox::{Claim, Database as Server, Link, Names, Ordering, Outbox, Want, timeouts},
    template::Template,
};
use serde_json::Value;

use crate::common::database::Database;

/// What a run of the binary gave.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// Asserts the exit code, and shows everything if it is another.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }
}

/// Runs the binary with nothing of the caller's settings.
pub fn outboxd(url: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OUTBOXD_") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(arguments)
        .env("OUTBOXD_DATABASE_URL", url)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn outbox(url: &str) -> Outbox {
    outbox_of(url, "outbox", false)
}

/// Rows are deleted once published, or marked.
pub fn outbox_of(url: &str, table: &str, deletes: bool) -> Outbox {
    let mut mapping = Mapping::own(Template::parse("{aggregate_type}").unwrap());
    if deletes {
        mapping.done = Done::Delete;
    }
    Outbox::new(
        Server::new(url.into(), "test", Duration::from_secs(30)),
        Names::parse(table).unwrap(),
        mapping,
        Ordering::Key,
        timeouts(
            Duration::from_secs(20),
            Duration::from_secs(5),
            Duration::from_secs(30),
        ),
    )
}

/// Claims everything there is, and leaves the transaction open.
pub async fn claim(outbox: &Outbox, link: &mut Link) -> Claim {
    let want = Want {
        events: 10_000,
        bytes: 1 << 30,
        lanes: 64,
        event_bytes: 1 << 20,
        paused: Vec::new(),
    };
    outbox.claim(link, || want).await.unwrap()
}

/// The ids of what was claimed.
pub fn ids(claim: &Claim) -> Vec<String> {
    claim
        .events
        .iter()
        .map(|event| event.id.to_string())
        .collect()
}

/// Claims and marks everything there is; gives how many events.
pub async fn publish_all(outbox: &Outbox, link: &mut Link) -> usize {
    let claim = claim(outbox, link).await;
    let all: Vec<usize> = (0..claim.events.len()).collect();
    let is_retry = |index: &usize| claim.events[*index].attempts.is_some();
    let retried: Vec<usize> = all.iter().copied().filter(is_retry).collect();
    outbox
        .settle(link, &claim.events, &all, &retried, &[])
        .await
        .unwrap();
    outbox.raise_floors(&claim, &[]);
    all.len()
}

/// One event; gives its id.
pub async fn insert(database: &Database, key: &str) -> i64 {
    database
        .number(&format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
             values ('orders', '{key}', 'Tested', '{{}}') returning id"
        ))
        .await
}

/// The failure of an event, as the relay would write it.
pub async fn fail(database: &Database, id: i64, state: &str, holds: bool) {
    database
        .execute(&format!(
            "insert into outbox_failures (id, event_id, lane, key, destination, state, holds, attempts, next_attempt_at, reason, failed_at) \
             select id, event_id, hashtextextended(aggregate_id, 0) & 63, aggregate_id, aggregate_type, '{state}', {holds}, 3, \
                    case when '{state}' = 'retrying' then now() + interval '1 hour' end, 'refused: a nack', now() from outbox where id = {id}"
        ))
        .await;
}

pub async fn event_id(database: &Database, id: i64) -> String {
    database
        .text(&format!(
            "select event_id::text from outbox where id = {id}"
        ))
        .await
}

pub async fn state(database: &Database, id: i64) -> String {
    database
        .text(&format!(
            "select state from outbox_failures where id = {id}"
        ))
        .await
}
