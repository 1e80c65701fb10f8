//! `outboxd shadow`: a rehearsal before the cut-over from another relay.

mod summary;

use std::{
    cell::Cell,
    io::IsTerminal,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failed, exit, output, run::stop_on_signals, settings};
use crate::{
    cloudevents::config::FormatArgs,
    outbox::{
        Ordering,
        config::{DatabaseArgs, DatabaseConfig},
    },
    settings::Problems,
    shadow::{Broker, Counts, Plan, Rules, ShadowError, Start, Watcher, shadow},
    sink::config::{SinkArgs, SinkConfig},
};

/// Compare what another relay sends with what outboxd would send, and publish nothing
///
/// A rehearsal before you change over. The other relay stays at work (a poller, Debezium, ...); this
/// follows what it sends, reads the table beside it, and tells for each event whether outboxd would have
/// sent the same destination, key, headers and payload. It takes no lock, and changes nothing in the
/// database or at the broker. Events are matched by their id.
///
/// JSON is compared as JSON: where only spaces or the order of members differ, it counts as the same.
/// When a message was sent, and how the broker stores it, are not compared.
#[derive(Args)]
#[command(
    after_help = "Kafka: name the topics that the other relay sends to. No consumer group is joined, and nothing is
committed.

RabbitMQ: a queue's messages cannot be read without taking them, so give shadow a queue of its own (this one
goes by itself an hour after its last use):
  rabbitmqadmin declare queue name=outboxd-shadow arguments='{\"x-expires\":3600000,\"x-max-length\":1000000}'
  rabbitmqadmin declare binding source=EXCHANGE destination=outboxd-shadow routing_key='#'
('#' binds everything of a topic exchange; of a direct exchange, bind each routing key. What is sent to the
default exchange reaches its one queue only, and cannot be followed.)
Properties and the key are compared as headers, by their names: message_id, type, content_type, aggregate_id.

Exit codes: 0 if something was compared and everything was the same, 1 if not.

Examples:
  outboxd shadow --preset debezium --kafka-brokers localhost:9092 --follow outbox.event.orders --for 1h
  outboxd shadow --kafka-brokers localhost:9092 --follow orders --follow payments --events 10000
  outboxd shadow --rabbitmq-url amqp://rabbit --rabbitmq-exchange shop --follow outboxd-shadow
  outboxd shadow ... --ignore-header __debezium.context.connectorName --json"
)]
pub struct ShadowArgs {
    /// Kafka topic that the other relay sends to, or RabbitMQ queue (see below); may be repeated
    #[arg(long, value_name = "NAME", required = true)]
    follow: Vec<String>,

    /// End after so long [default: at ctrl-c]
    #[arg(long = "for", value_name = "DURATION")]
    time: Option<String>,

    /// End when so many events were compared
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,

    /// Kafka: begin with the oldest message there is, not with what is sent from now on
    ///
    /// Needs the rows to be still there. (A queue is read from its first message in any case.)
    #[arg(long)]
    from_beginning: bool,

    /// Header that carries the event id [default: id; RabbitMQ: the property `message_id`]
    #[arg(long, value_name = "NAME")]
    id_header: Option<String>,

    /// Header that does not count; may be repeated
    ///
    /// For those that the other relay adds and that no consumer reads.
    #[arg(long, value_name = "NAME")]
    ignore_header: Vec<String>,

    /// How long a row may wait for its message until it counts as never sent
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    grace: String,

    /// How many differences to show
    #[arg(long, value_name = "COUNT", default_value = "10")]
    differences: u32,

    /// Show payloads that differ, as a whole; else their sizes, and where they differ
    #[arg(long)]
    show_payloads: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    sink: SinkArgs,
}

impl ShadowArgs {
    /// Runs the command.
    pub async fn run(self) -> Result<(), Failed> {
        let (as_json, examples) = (self.json, self.differences as usize);
        let follow = self.follow.join(", ");
        let (database, plan) = settings(|problems| self.validate(problems))?;
        let name = format!("shadow@{}", std::process::id());
        // In whatever order rows are sent: they are sent by another.
        let outbox = database.outbox(&name, Duration::ZERO, Ordering::None);
        let line = Line::new();
        let ended = shadow(&outbox, plan, &line, stop_on_signals()).await;
        line.bar.finish_and_clear();
        let outcome = ended.map_err(|error| match error {
            ShadowError::Database(error) => error.into(),
            ShadowError::Broker(error) => Failed::new(exit::UNAVAILABLE, error),
        })?;
        let verdict = summary::verdict(&outcome, &follow);
        if as_json {
            output::json(&summary::json(&outcome, &verdict))?;
        } else {
            output::text(&summary::text(&outcome, examples, &verdict))?;
        }
        match (&outcome.failure, outcome.ledger.counts.is_ready()) {
            (Some(failure), _) => Err(Failed::new(exit::UNAVAILABLE, failure)),
            (None, true) => Ok(()),
            (None, false) => Err(Failed::new(exit::FAILURE, "shadow: not ready to cut over")),
        }
    }

    fn validate(self, problems: &mut Problems) -> Option<(DatabaseConfig, Plan)> {
        let database = self.database.validate(problems);
        let has_types = (database.as_ref()).is_none_or(|it| it.mapping.event_type.is_some());
        let prefix = self.sink.attribute_prefix();
        let format = self.format.validate(problems, prefix, has_types);
        let sink = self.sink.validate(problems, Duration::from_secs(30));
        let time = self
            .time
            .map(|time| problems.positive_duration("for", &time));
        let grace = problems.duration("grace", &self.grace);
        let (broker, id_header) = match sink {
            Some(SinkConfig::Kafka(config)) => (Broker::Kafka(config), "id"),
            Some(SinkConfig::Rabbitmq(config)) => (Broker::Rabbitmq(config), "message_id"),
            Some(SinkConfig::Stdout) => {
                problems.add("--sink stdout: shadow follows Kafka or RabbitMQ");
                return None;
            }
            None => return None,
        };
        let is_kafka = matches!(broker, Broker::Kafka(_));
        if self.from_beginning && !is_kafka {
            problems.add("--from-beginning is for Kafka: a queue is read from its first message");
        }
        let start = if self.from_beginning {
            Start::Beginning
        } else {
            Start::Now
        };
        let plan = Plan {
            broker,
            format,
            follow: self.follow,
            start,
            time,
            events: self.events,
            grace,
            rules: Rules {
                id_header: self.id_header.unwrap_or_else(|| id_header.into()),
                ignored_headers: self.ignore_header,
                examples: self.differences as usize,
                shows_payloads: self.show_payloads,
            },
        };
        Some((database?, plan))
    }
}

/// How far it is, on a terminal's last line.
struct Line {
    bar: ProgressBar,
    drawn: Cell<Option<Instant>>,
}

impl Line {
    const EVERY: Duration = Duration::from_secs(1);

    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{elapsed_precise} {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            ProgressBar::new_spinner().with_style(style)
        } else {
            ProgressBar::hidden()
        };
        Self {
            bar,
            drawn: Cell::default(),
        }
    }
}

impl Watcher for Line {
    fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("outboxd: {text}"));
    }

    fn progress(&self, counts: &Counts) {
        if self
            .drawn
            .get()
            .is_some_and(|drawn| drawn.elapsed() < Self::EVERY)
        {
            return;
        }
        self.drawn.set(Some(Instant::now()));
        self.bar.set_message(summary::line(counts));
        self.bar.tick();
    }
}
