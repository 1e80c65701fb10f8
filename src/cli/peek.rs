//! `outboxd peek`: what would be published next.

use clap::Args;
use serde_json::Value;

use super::{Failed, output, settings};
use crate::{
    cloudevents::config::FormatArgs,
    event::Event,
    outbox::config::DatabaseArgs,
    sink::{config::SinkArgs, stdout},
};

/// Show what would be published next, as JSON lines, and settle nothing
///
/// One object a line, in the order of their ids: what `run` would send now, retries that are due
/// included. Takes no lock, so a relay may publish the same events meanwhile. An event that cannot be
/// sent shows its reason under "error". The broker is not asked: its settings only say how attributes
/// of CloudEvents are called.
#[derive(Args)]
#[command(after_help = "Examples:
  outboxd peek
  outboxd peek --limit 1 | jq .payload
  outboxd peek --message-format cloudevents-structured --cloudevents-source /orders
  outboxd peek --topic 'events.{aggregate_type}' | jq -r .destination     (tries out a template)")]
pub struct PeekArgs {
    /// Events to show
    #[arg(long, value_name = "COUNT", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    format: FormatArgs,

    /// Only for what attributes are called there: peek speaks to no broker.
    #[command(flatten)]
    sink: SinkArgs,
}

impl PeekArgs {
    /// Runs the command.
    pub async fn run(self) -> Result<(), Failed> {
        let prefix = self.sink.attribute_prefix();
        let (config, format) = settings(|problems| {
            let database = self.database.validate(problems)?;
            let has_types = database.mapping.event_type.is_some();
            let format = self.format.validate(problems, prefix, has_types);
            Some((database, format))
        })?;
        let outbox = config.outbox_for_command("peek");
        let mut link = outbox.link().await?;
        outbox.verify_mapping(&mut link).await?;
        let mut events = outbox.peek(&mut link, self.limit.into()).await?;
        if let Some(format) = &format {
            format.apply(&mut events);
        }
        link.session.close().await;
        if events.is_empty() {
            eprintln!("outboxd: nothing would be published now; `outboxd status` tells what waits");
            return Ok(());
        }
        let lines: Vec<String> = events.iter().map(line).collect();
        output::text(&lines.join("\n"))
    }
}

/// The line of the stdout sink, after the row's id and the reason why it cannot be sent, if so. Spliced:
/// parsing the payload would round its numbers.
pub(super) fn line(event: &Event) -> String {
    let message = stdout::line(&event.message);
    let error = event.invalid.as_ref().map(ToString::to_string);
    let error = error.map_or(String::new(), |error| {
        format!("\"error\":{},", Value::from(error))
    });
    format!(
        "{{\"row\":{},{error}{}",
        Value::from(&event.id),
        message.trim_start_matches('{')
    )
}
