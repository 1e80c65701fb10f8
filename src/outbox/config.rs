//! Settings of the database side.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::{Database, Names, Ordering, Outbox, Timeouts, timeouts, url};
use crate::{
    mapping::{self, Done, Mapping, Preset},
    settings::Problems,
    template::Template,
};

/// Where the outbox is, and where its events go: for commands that look at destinations.
#[derive(Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// Where the outbox is.
    #[command(flatten)]
    pub server: ServerArgs,

    /// Destination of an event whose own topic column is NULL: text with {column} in it
    ///
    /// A Kafka topic, or a RabbitMQ routing key. Example: `events.{aggregate_type}`. With a mapping, in
    /// place of its destination. [default: `{aggregate_type}`, or what the mapping says]
    #[arg(long, env = "OUTBOXD_TOPIC", value_name = "TEMPLATE")]
    pub topic: Option<String>,
}

/// Where the outbox is. Every command that needs the database takes these.
#[derive(Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct ServerArgs {
    /// PostgreSQL, as <postgres://user:password@host:5432/database?sslmode=verify-full>
    ///
    /// Without sslmode, a local server is spoken to in plain text and any other with verify-full
    /// (sslrootcert names a private CA). A PgBouncer in transaction mode will do.
    #[arg(
        long,
        env = "OUTBOXD_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_url: Option<String>,

    /// File that holds the database URL: a mounted secret
    #[arg(long, env = "OUTBOXD_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,

    /// The outbox table, as table or schema.table (without a schema: public)
    ///
    /// The relay's own tables stand beside it: `TABLE_failures` and `TABLE_instances`. [default:
    /// outbox, or what the mapping says]
    #[arg(long, env = "OUTBOXD_TABLE", value_name = "TABLE")]
    pub table: Option<String>,

    /// The table is not outboxd's own but one of another system's: see `outboxd preset list`
    #[arg(long, env = "OUTBOXD_PRESET", value_name = "NAME")]
    pub preset: Option<String>,

    /// The table is one of your own, and this TOML file says what its columns mean
    ///
    /// `outboxd inspect` proposes one; `outboxd preset show NAME` is an example.
    #[arg(long, env = "OUTBOXD_MAPPING", value_name = "FILE")]
    pub mapping: Option<PathBuf>,

    /// Longest a statement may run
    #[arg(
        long,
        env = "OUTBOXD_STATEMENT_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub statement_timeout: String,

    /// Longest a statement may wait for a lock (behind DDL, say)
    #[arg(
        long,
        env = "OUTBOXD_LOCK_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s"
    )]
    pub lock_timeout: String,
}

const DEFAULT_TOPIC: &str = "{aggregate_type}";
/// A template without columns, for commands that route no event: it asks nothing of the table.
const NOWHERE: &str = "-";

/// Validated [`DatabaseArgs`].
#[derive(Clone)]
pub struct DatabaseConfig {
    url: SecretString,
    /// Names of the tables.
    pub names: Names,
    /// What its columns mean.
    pub mapping: Mapping,
    statement_timeout: Duration,
    lock_timeout: Duration,
}

impl DatabaseArgs {
    /// Checks every value; what is wrong is noted in `problems`.
    pub fn validate(&self, problems: &mut Problems) -> Option<DatabaseConfig> {
        self.server
            .validate_with(problems, self.topic.as_deref(), DEFAULT_TOPIC)
    }
}

impl ServerArgs {
    /// Checks every value; what is wrong is noted in `problems`. Destinations cannot be asked for.
    pub fn validate(&self, problems: &mut Problems) -> Option<DatabaseConfig> {
        self.validate_with(problems, None, NOWHERE)
    }

    /// `topic` is that of `--topic`; `otherwise` where neither that nor a mapping says where events go.
    fn validate_with(
        &self,
        problems: &mut Problems,
        topic: Option<&str>,
        otherwise: &str,
    ) -> Option<DatabaseConfig> {
        let url = problems.secret(
            "database-url",
            self.database_url.as_deref(),
            self.database_url_file.as_deref(),
        );
        let url = if let Some(url) = url {
            if let Err(error) = url::connect_options(url.expose_secret()) {
                problems.add(format!("--database-url: {error}"));
            }
            Some(url)
        } else {
            if self.database_url.is_none() && self.database_url_file.is_none() {
                problems.add(
                    "--database-url (or OUTBOXD_DATABASE_URL, or --database-url-file) is required",
                );
            }
            None
        };
        let mapping = self.mapping(problems, topic, otherwise);
        let otherwise = mapping.as_ref().and_then(|it| it.table.as_deref());
        let table = self.table.as_deref().or(otherwise).unwrap_or("outbox");
        let names = Names::parse(table)
            .map_err(|error| problems.add(format!("--table {table:?}: {error}")));
        let statement_timeout = problems.timeout("statement-timeout", &self.statement_timeout);
        let lock_timeout = problems.timeout("lock-timeout", &self.lock_timeout);
        Some(DatabaseConfig {
            url: url?,
            names: names.ok()?,
            mapping: mapping?,
            statement_timeout,
            lock_timeout,
        })
    }

    /// What the table's columns mean; what is wrong is noted in `problems`.
    fn mapping(
        &self,
        problems: &mut Problems,
        topic: Option<&str>,
        otherwise: &str,
    ) -> Option<Mapping> {
        let template = |problems: &mut Problems, text: &str| {
            Template::parse(text)
                .map_err(|error| problems.add(format!("--topic {text:?}: {error}")))
                .ok()
        };
        if self.preset.is_none() && self.mapping.is_none() {
            let topic = template(problems, topic.unwrap_or(otherwise))?;
            return Some(Mapping::own(topic));
        }
        let (origin, text) = match self.mapping_text() {
            Ok(text) => text,
            Err(problem) => {
                problems.add(problem);
                return None;
            }
        };
        let mut mapping = mapping::parse(&origin, &text)
            .map_err(|found| found.into_iter().for_each(|problem| problems.add(problem)))
            .ok()?;
        if let Some(topic) = topic {
            mapping.destination = vec![template(problems, topic)?];
        } else if mapping.destination.is_empty() {
            if otherwise == DEFAULT_TOPIC {
                problems.add(format!(
                    "{origin}: neither `destination` nor --topic says where events go"
                ));
            }
            mapping.destination = vec![Template::constant(NOWHERE)];
        }
        Some(mapping)
    }

    /// A mapping's name and text.
    fn mapping_text(&self) -> Result<(String, String), String> {
        match (&self.preset, &self.mapping) {
            (Some(_), Some(_)) => Err("--preset and --mapping cannot both be given: a mapping may begin with a preset (preset = \"…\")".into()),
            (Some(name), None) => Preset::named(name)
                .map(|preset| (format!("preset {name}"), preset.text.into()))
                .map_err(|error| format!("--preset: {error}")),
            (None, file) => {
                let file = file.clone().unwrap_or_default();
                std::fs::read_to_string(&file)
                    .map(|text| (file.display().to_string(), text))
                    .map_err(|error| format!("--mapping {}: {error}", file.display()))
            }
        }
    }
}

impl DatabaseConfig {
    /// The URL without its password, for logs.
    pub fn display_url(&self) -> String {
        url::display(self.url.expose_secret())
    }

    /// The connection URL.
    pub fn url(&self) -> &SecretString {
        &self.url
    }

    /// Heeds `--on-published`: whether rows are deleted in place of what the mapping does.
    pub fn set_deletes(&mut self, problems: &mut Problems, deletes: bool) {
        if deletes {
            self.mapping.done = Done::Delete;
        } else if self.mapping.done == Done::Delete {
            let place = self.mapping.place("done");
            problems.add(format!(
                "--on-published mark: {place}this mapping has nothing to mark rows with"
            ));
        }
    }

    /// Timeouts of a transaction that may stand open for a publish of that length.
    pub fn timeouts(&self, publish: Duration) -> Timeouts {
        timeouts(self.statement_timeout, self.lock_timeout, publish)
    }

    /// How to connect, as `application_name` `outboxd/<instance>`. Our own deadline is a little later
    /// than the server's, which knows better what it was doing.
    pub fn database(&self, instance: &str) -> Database {
        let deadline = self.statement_timeout.max(self.lock_timeout) + Duration::from_secs(5);
        Database::new(self.url.clone(), instance, deadline)
    }

    /// The outbox, for the relay.
    pub fn outbox(&self, instance: &str, publish: Duration, ordering: Ordering) -> Outbox {
        Outbox::new(
            self.database(instance),
            self.names.clone(),
            self.mapping.clone(),
            ordering,
            self.timeouts(publish),
        )
    }

    /// The outbox, for commands that publish nothing, and so do without an order.
    pub fn outbox_for_command(&self, command: &str) -> Outbox {
        let name = format!("{command}@{}", std::process::id());
        self.outbox(&name, Duration::ZERO, Ordering::None)
    }
}
