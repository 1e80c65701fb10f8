//! Settings of the database side.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::{Database, Names, OnPublished, Ordering, Outbox, Timeouts, timeouts, url};
use crate::{settings::Problems, template::Template};

/// Where the outbox is, and where its events go: for commands that look at destinations.
#[derive(Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// Where the outbox is.
    #[command(flatten)]
    pub server: ServerArgs,

    /// Destination of an event whose own topic column is NULL: text with {column} in it
    ///
    /// A Kafka topic, or a RabbitMQ routing key. Example: `events.{aggregate_type}`
    #[arg(
        long,
        env = "OUTBOXD_TOPIC",
        value_name = "TEMPLATE",
        default_value = "{aggregate_type}"
    )]
    pub topic: String,
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
    /// The relay's own tables stand beside it: `TABLE_failures` and `TABLE_instances`.
    #[arg(
        long,
        env = "OUTBOXD_TABLE",
        value_name = "TABLE",
        default_value = "outbox"
    )]
    pub table: String,

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

/// A template without columns, for commands that route no event: it asks nothing of the table.
const NOWHERE: &str = "-";

/// Validated [`DatabaseArgs`].
#[derive(Clone)]
pub struct DatabaseConfig {
    url: SecretString,
    /// Names of the tables.
    pub names: Names,
    topic: Template,
    statement_timeout: Duration,
    lock_timeout: Duration,
}

impl DatabaseArgs {
    /// Checks every value; what is wrong is noted in `problems`.
    pub fn validate(&self, problems: &mut Problems) -> Option<DatabaseConfig> {
        self.server.validate_with(problems, &self.topic)
    }
}

impl ServerArgs {
    /// Checks every value; what is wrong is noted in `problems`. Destinations cannot be asked for.
    pub fn validate(&self, problems: &mut Problems) -> Option<DatabaseConfig> {
        self.validate_with(problems, NOWHERE)
    }

    fn validate_with(&self, problems: &mut Problems, topic: &str) -> Option<DatabaseConfig> {
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
        let names = Names::parse(&self.table)
            .map_err(|error| problems.add(format!("--table {:?}: {error}", self.table)));
        let topic = Template::parse(topic)
            .map_err(|error| problems.add(format!("--topic {topic:?}: {error}")));
        let statement_timeout = problems.timeout("statement-timeout", &self.statement_timeout);
        let lock_timeout = problems.timeout("lock-timeout", &self.lock_timeout);
        Some(DatabaseConfig {
            url: url?,
            names: names.ok()?,
            topic: topic.ok()?,
            statement_timeout,
            lock_timeout,
        })
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

    /// The `--topic` template.
    pub fn topic(&self) -> &Template {
        &self.topic
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
    pub fn outbox(
        &self,
        instance: &str,
        publish: Duration,
        on_published: OnPublished,
        ordering: Ordering,
    ) -> Outbox {
        Outbox::new(
            self.database(instance),
            self.names.clone(),
            self.topic.clone(),
            on_published,
            ordering,
            self.timeouts(publish),
        )
    }

    /// The outbox, for commands that publish nothing.
    pub fn outbox_for_command(&self, command: &str) -> Outbox {
        let name = format!("{command}@{}", std::process::id());
        self.outbox(&name, Duration::ZERO, OnPublished::Mark, Ordering::Key)
    }
}
