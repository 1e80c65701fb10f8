//! The settings of `run` and `drain`, and how they become a relay.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Args;
use secrecy::SecretString;

use super::logs::{LogArgs, LogConfig};
use crate::{
    cloudevents::config::FormatArgs,
    outbox::{
        Ordering,
        config::{DatabaseArgs, DatabaseConfig},
        url,
    },
    relay::{Relay, RelaySettings},
    retry::RetryPolicy,
    settings::Problems,
    settlement::Policy,
    sink::config::{SinkArgs, SinkConfig},
};

/// Settings of the relay.
#[derive(Clone, Args)]
pub struct RelayArgs {
    /// Where the outbox is.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Where events go.
    #[command(flatten)]
    pub sink: SinkArgs,

    /// What they are there.
    #[command(flatten)]
    pub format: FormatArgs,

    /// How to log.
    #[command(flatten)]
    pub logs: LogArgs,

    /// How events are relayed.
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// How events are relayed.
#[derive(Clone, Args)]
#[command(next_help_heading = "Relay")]
pub struct TuningArgs {
    /// Make the tables first, as `outboxd migrate` does: for a role that may create tables
    #[arg(long, env = "OUTBOXD_MIGRATE")]
    pub migrate: bool,

    /// What happens to a published row: mark (set `published_at`) or delete
    ///
    /// A mapping marks as it says. [default: mark, or what the mapping says]
    #[arg(long, env = "OUTBOXD_ON_PUBLISHED", value_name = "WHAT")]
    pub on_published: Option<String>,

    /// Order to keep: key (per `aggregate_id`) or none
    ///
    /// `none` lets claims compete for rows. The two may not run on one table.
    #[arg(
        long,
        env = "OUTBOXD_ORDERING",
        value_name = "ORDER",
        default_value = "key"
    )]
    pub ordering: String,

    /// When an event is given up on: continue (its key goes on) or hold (its key waits for you)
    #[arg(
        long,
        env = "OUTBOXD_ON_DEAD",
        value_name = "WHAT",
        default_value = "continue"
    )]
    pub on_dead: String,

    /// A destination that does not exist or is forbidden: pause it, or let its events die
    ///
    /// With `pause` its events wait, uncharged, until it can be used.
    #[arg(
        long,
        env = "OUTBOXD_ON_UNROUTABLE",
        value_name = "WHAT",
        default_value = "pause"
    )]
    pub on_unroutable: String,

    /// Events per batch, at most
    #[arg(
        long,
        env = "OUTBOXD_BATCH_SIZE",
        value_name = "EVENTS",
        default_value = "2000"
    )]
    pub batch_size: String,

    /// Bytes per batch, at most (a larger event travels alone): bounds memory, times --workers
    #[arg(
        long,
        env = "OUTBOXD_BATCH_BYTES",
        value_name = "SIZE",
        default_value = "4MiB"
    )]
    pub batch_bytes: String,

    /// Batches at once, at most; each has a database connection while there is a backlog
    #[arg(
        long,
        env = "OUTBOXD_WORKERS",
        value_name = "COUNT",
        default_value = "4"
    )]
    pub workers: String,

    /// Longest wait before an idle table is looked at again
    #[arg(
        long,
        env = "OUTBOXD_POLL_INTERVAL",
        value_name = "DURATION",
        default_value = "500ms"
    )]
    pub poll_interval: String,

    /// Longest a batch may take to be confirmed by the broker
    #[arg(
        long,
        env = "OUTBOXD_PUBLISH_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub publish_timeout: String,

    /// Longest to wait, once told to stop, for what is in flight; longer than --publish-timeout
    #[arg(
        long,
        env = "OUTBOXD_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "40s"
    )]
    pub shutdown_timeout: String,

    /// Refusals by the broker of one event after which it is given up on
    #[arg(
        long,
        env = "OUTBOXD_MAX_ATTEMPTS",
        value_name = "COUNT",
        default_value = "20"
    )]
    pub max_attempts: String,

    /// Wait after an event's first refusal; doubles each time
    #[arg(
        long,
        env = "OUTBOXD_BACKOFF_INITIAL",
        value_name = "DURATION",
        default_value = "1s"
    )]
    pub backoff_initial: String,

    /// Longest wait between two attempts
    #[arg(
        long,
        env = "OUTBOXD_BACKOFF_MAX",
        value_name = "DURATION",
        default_value = "60s"
    )]
    pub backoff_max: String,

    /// How long published rows are kept; 0 never prunes
    ///
    /// Rows of a table with a mapping stay: its owner deletes them.
    #[arg(
        long,
        env = "OUTBOXD_RETENTION",
        value_name = "DURATION",
        default_value = "24h"
    )]
    pub retention: String,

    /// Address of the status page, /metrics, /livez, /readyz and POST /wake
    ///
    /// From other machines: [::]:9470, which is IPv6 and IPv4.
    #[arg(
        long,
        env = "OUTBOXD_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9470"
    )]
    pub listen: String,

    /// This relay's name among its replicas, the same after a restart [default: host name and port]
    #[arg(long, env = "OUTBOXD_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,

    /// Direct connection (no PgBouncer) to LISTEN on, with the trigger of `migrate --with notify`
    #[arg(
        long,
        env = "OUTBOXD_NOTIFY_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub notify_database_url: Option<String>,

    /// File that holds that URL
    #[arg(long, env = "OUTBOXD_NOTIFY_DATABASE_URL_FILE", value_name = "FILE")]
    pub notify_database_url_file: Option<PathBuf>,
}

/// Everything validated.
pub struct RelayConfig {
    /// The database.
    pub database: DatabaseConfig,
    /// The sink.
    pub sink: SinkConfig,
    /// Logging; taken when it starts.
    pub logs: Option<LogConfig>,
    /// Where to serve HTTP.
    pub listen: SocketAddr,
    /// Where to LISTEN.
    pub notify: Option<SecretString>,
    /// What order is kept.
    pub ordering: Ordering,
    /// Whether the relay's name may be that of another machine's.
    pub is_unnamed: bool,
    /// The rest.
    pub settings: RelaySettings,
}

impl RelayArgs {
    /// Checks every value.
    ///
    /// # Errors
    /// All that is wrong, at once.
    pub fn validate(self) -> Result<RelayConfig, Problems> {
        let mut problems = Problems::default();
        let p = &mut problems;
        let mut database = self.database.validate(p);
        let logs = self.logs.validate(p);
        let tuning = self.tuning;
        let publish_timeout = p.timeout("publish-timeout", &tuning.publish_timeout);
        let shutdown_timeout = p.positive_duration("shutdown-timeout", &tuning.shutdown_timeout);
        if shutdown_timeout <= publish_timeout && !shutdown_timeout.is_zero() {
            p.add("--shutdown-timeout must be longer than --publish-timeout: what is in flight may take that long");
        }
        let listen = tuning.listen.parse::<SocketAddr>().map_err(|error| {
            p.add(format!(
                "--listen {:?}: {error}; write it like 127.0.0.1:9470",
                tuning.listen
            ));
        });
        let notify = p.secret(
            "notify-database-url",
            tuning.notify_database_url.as_deref(),
            tuning.notify_database_url_file.as_deref(),
        );
        if let Some(url) = &notify
            && let Err(error) = url::connect_options(secrecy::ExposeSecret::expose_secret(url))
        {
            p.add(format!("--notify-database-url: {error}"));
        }
        let deletes = tuning
            .on_published
            .as_deref()
            .map(|what| p.choice("on-published", what, &[("mark", false), ("delete", true)]));
        if let (Some(database), Some(deletes)) = (&mut database, deletes) {
            database.set_deletes(p, deletes);
        }
        let ordering = p.choice(
            "ordering",
            &tuning.ordering,
            &[("key", Ordering::Key), ("none", Ordering::None)],
        );
        let policy = tuning.policy(p, ordering);
        let typed = |database: &DatabaseConfig| database.mapping.event_type.is_some();
        let has_types = database.as_ref().is_none_or(typed);
        let format = (self.format).validate(p, self.sink.attribute_prefix(), has_types);
        let sink = self.sink.validate(p, publish_timeout);
        let retention = p.duration("retention", &tuning.retention);
        let host = host_name();
        let is_unnamed = tuning.instance.is_none() && is_anybody(&host);
        let settings = RelaySettings {
            instance: tuning
                .instance
                .unwrap_or_else(|| default_instance(&host, listen.ok())),
            workers: p.number("workers", &tuning.workers, 1) as usize,
            batch_size: p.number("batch-size", &tuning.batch_size, 1) as usize,
            batch_bytes: p.size("batch-bytes", &tuning.batch_bytes),
            poll_interval: p.positive_duration("poll-interval", &tuning.poll_interval),
            publish_timeout,
            shutdown_timeout,
            retention: (!retention.is_zero()).then_some(retention),
            migrates: tuning.migrate,
            format,
            policy,
        };
        match (problems.is_empty(), database, sink, logs, listen) {
            (true, Some(database), Some(sink), logs @ Some(_), Ok(listen)) => Ok(RelayConfig {
                database,
                sink,
                logs,
                listen,
                notify,
                ordering,
                is_unnamed,
                settings,
            }),
            _ => Err(problems),
        }
    }
}

impl TuningArgs {
    fn policy(&self, p: &mut Problems, ordering: Ordering) -> Policy {
        let retry = RetryPolicy {
            max_attempts: p.number("max-attempts", &self.max_attempts, 1),
            initial: p.positive_duration("backoff-initial", &self.backoff_initial),
            max: p.positive_duration("backoff-max", &self.backoff_max),
        };
        Policy {
            retry,
            dead_holds: p.choice(
                "on-dead",
                &self.on_dead,
                &[("continue", false), ("hold", true)],
            ),
            unroutable_dies: p.choice(
                "on-unroutable",
                &self.on_unroutable,
                &[("pause", false), ("dead", true)],
            ),
            ordered: ordering == Ordering::Key,
        }
    }
}

impl RelayConfig {
    /// Puts the relay together. Connects to nothing yet.
    ///
    /// # Errors
    /// When a client cannot be made of the settings.
    pub fn relay(self) -> Result<Arc<Relay>, String> {
        let settings = self.settings;
        let sink = self
            .sink
            .build(settings.publish_timeout, &settings.instance)?;
        let outbox =
            self.database
                .outbox(&settings.instance, settings.publish_timeout, self.ordering);
        Relay::new(outbox, sink, settings)
            .map(Arc::new)
            .map_err(|error| error.to_string())
    }

    /// Says what will run, secrets hidden.
    pub fn log(&self) {
        let settings = &self.settings;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            instance = %settings.instance,
            database = %self.database.display_url(),
            table = %self.database.names.display(),
            sink = %self.sink.describe(),
            listen = %self.listen,
            notify = self.notify.is_some(),
            on_published = ?self.database.mapping.done,
            ordering = ?self.ordering,
            settings = ?settings,
            "outboxd starts"
        );
        if self.is_unnamed {
            tracing::warn!(
                instance = %settings.instance,
                "this machine has no name of its own: set --instance, or relays of two such machines pass for one"
            );
        }
    }
}

/// Unique among the relays of a host, and the same after a restart: a crash loop must be recognised.
fn default_instance(host: &str, listen: Option<SocketAddr>) -> String {
    let port = match listen.map_or(0, |listen| listen.port()) {
        0 => format!("pid-{}", std::process::id()),
        port => port.to_string(),
    };
    format!("{host}:{port}")
}

/// Asked of the kernel: sandboxes and minimal roots have no /proc to read it in.
fn host_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

/// Whether other machines have this name too.
fn is_anybody(host: &str) -> bool {
    matches!(host, "" | "(none)" | "localhost") || host.starts_with("localhost.")
}
