//! A database, a broker, another relay between them, and outboxd looking on.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
};

use lapin::types::FieldTable;
use serde_json::Value;

use crate::{
    common::{
        broker::{Broker, Kind},
        database::Database,
        rabbitmq, unique,
    },
    poller::{Poller, Twist},
};

pub struct Scene {
    pub database: Database,
    pub broker: Broker,
    /// Kafka topic; or routing key, and the queue that it leads to.
    pub topic: String,
}

impl Scene {
    pub async fn new(kind: Kind) -> Self {
        Self::with(Database::new().await, kind).await
    }

    pub async fn with(database: Database, kind: Kind) -> Self {
        let broker = Broker::shared(kind);
        let topic = unique("shadow");
        match kind {
            Kind::Kafka => broker.create(&topic).await,
            Kind::Rabbitmq => {
                rabbitmq::declare(&broker.address, &topic, FieldTable::default()).await;
                rabbitmq::bind(&broker.address, &topic).await;
            }
        }
        Self {
            database,
            broker,
            topic,
        }
    }

    /// Events of three keys, with a header and a jsonb payload.
    pub async fn insert(&self, count: usize) {
        let sql = format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload, headers)
             select '{}', 'key-' || n % 3, 'Tested', jsonb_build_object('number', n, 'text', 'ü'), '{{\"tenant\": \"acme\"}}'
               from generate_series(1, {count}) n",
            self.topic
        );
        self.database.execute(&sql).await;
    }

    pub async fn poller(&self, twist: Twist) -> Poller {
        Poller::new(&self.database.url, &self.broker, rabbitmq::EXCHANGE, twist).await
    }

    /// Starts `outboxd shadow`, and waits until it follows.
    pub fn shadow(&self, flags: &[&str]) -> Shadow {
        Shadow::start(&self.flags(flags))
    }

    /// The same without waiting.
    pub fn flags(&self, flags: &[&str]) -> Vec<String> {
        let mut all = vec!["--database-url", &self.database.url];
        all.extend(self.broker.flags());
        if self.broker.kind == Kind::Rabbitmq {
            all.extend(["--rabbitmq-exchange", rabbitmq::EXCHANGE]);
        }
        if !flags.contains(&"--follow") {
            all.extend(["--follow", &self.topic]);
        }
        if !flags.contains(&"--for") {
            // A test that fails ends, too.
            all.extend(["--for", "90s"]);
        }
        all.extend(flags);
        all.into_iter().map(str::to_owned).collect()
    }
}

/// `outboxd shadow` at work; killed when dropped.
pub struct Shadow {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
}

/// What it gave.
pub struct Told {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Shadow {
    pub fn start(flags: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outboxd"))
            .arg("shadow")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("following") {
            line.clear();
            let read = errors.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended before it followed");
            eprint!("{line}");
        }
        Self { child, errors }
    }

    /// Stops it as ctrl-c does.
    pub fn stop(self) -> Told {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args(["-INT", &pid]).status().unwrap();
        assert!(done.success());
        self.end()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Told {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let mut pipe = self.child.stdout.take().unwrap();
        pipe.read_to_string(&mut stdout).unwrap();
        self.errors.read_to_string(&mut stderr).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        Told {
            code,
            stdout,
            stderr,
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Told {
    /// Asserts the exit code; gives the JSON.
    pub fn exits(&self, code: i32) -> Value {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Asserts counts; those that are not named are 0, but for how much was read.
pub fn assert_counts(told: &Value, expected: &[(&str, u64)]) {
    for name in [
        "compared",
        "same",
        "written_differently",
        "different",
        "only_theirs",
        "only_ours",
        "not_sent_yet",
        "without_id",
        "duplicates",
        "out_of_order",
        "other_partition",
        "missing_headers",
        "different_headers",
        "further_headers",
        "rows_forgotten",
    ] {
        let count = expected
            .iter()
            .find(|(named, _)| *named == name)
            .map_or(0, |(_, count)| *count);
        assert_eq!(told[name], count, "{name} of {told:#}");
    }
}

/// The kinds of differences and notes, with how many.
pub fn kinds(told: &Value, list: &str) -> Vec<(String, u64)> {
    let kinds = told[list].as_array().unwrap().iter();
    kinds
        .map(|kind| {
            (
                kind["kind"].as_str().unwrap().to_owned(),
                kind["count"].as_u64().unwrap(),
            )
        })
        .collect()
}
