//! `outboxd status`: backlog, lag, failures, and who is at work.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{
    Failed,
    output::{self, printable},
    settings,
};
use crate::outbox::{Overview, Sample, config::ServerArgs};

/// Show backlog, lag, failures, paused destinations and relays
///
/// Asks the database only: it works while no relay runs. Of pending events, up to 100,000 are counted
/// and more are estimated.
#[derive(Args)]
#[command(after_help = "Examples:
  outboxd status
  outboxd status --json | jq .lag_seconds")]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

impl StatusArgs {
    /// Runs the command.
    pub async fn run(self) -> Result<(), Failed> {
        let config = settings(|problems| self.server.validate(problems))?;
        let outbox = config.outbox_for_command("status");
        let mut link = outbox.link().await?;
        let sample = outbox.sample(&mut link).await?;
        let overview = outbox.overview(&mut link).await?;
        link.session.close().await;
        if self.json {
            return output::json(&to_json(&sample, &overview));
        }
        output::text(&summary(&config.names.display(), &sample, &overview))?;
        if !overview.failures.is_empty() {
            output::text(&failures(&overview))?;
        }
        output::text(&relays(&overview))
    }
}

fn to_json(sample: &Sample, overview: &Overview) -> Value {
    let relays = overview.relays.iter().map(|relay| {
        json!({
            "instance": relay.instance,
            "version": relay.version,
            "ordering": relay.ordering,
            "seen_seconds": relay.seen_seconds,
            "live": relay.live,
            "clean": relay.clean,
            "paused": relay.paused,
        })
    });
    let failures = overview.failures.iter().map(|count| {
        json!({ "destination": count.destination, "state": count.state, "events": count.events })
    });
    json!({
        "pending_events": sample.pending_events,
        "lag_seconds": sample.lag.as_secs_f64(),
        "retrying_events": sample.retrying_events,
        "held_keys": sample.held_keys,
        "dead_letters": sample.dead_letters,
        "paused_destinations": overview.paused().into_keys().collect::<Vec<_>>(),
        "lanes": { "pending": overview.lanes_pending, "claimed": overview.lanes_claimed },
        "failures": failures.collect::<Vec<_>>(),
        "instances": relays.collect::<Vec<_>>(),
    })
}

fn summary(table: &str, sample: &Sample, overview: &Overview) -> String {
    let mut lines = output::table(["OUTBOX", table]);
    let lag = Duration::from_millis(u64::try_from(sample.lag.as_millis()).unwrap_or(u64::MAX));
    let in_lanes = format!(
        "{} with pending events, {} being published",
        overview.lanes_pending, overview.lanes_claimed
    );
    lines.add_row(["pending events", &sample.pending_events.to_string()]);
    lines.add_row(["lag", &humantime::format_duration(lag).to_string()]);
    lines.add_row(["retrying events", &sample.retrying_events.to_string()]);
    lines.add_row(["held keys", &sample.held_keys.to_string()]);
    lines.add_row(["dead letters", &sample.dead_letters.to_string()]);
    lines.add_row(["lanes", &in_lanes]);
    for (destination, why) in overview.paused() {
        let pause = format!("{}: {}", printable(destination), printable(why));
        lines.add_row(["paused", &pause]);
    }
    format!("{lines}\n")
}

fn failures(overview: &Overview) -> String {
    let mut lines = output::table(["DESTINATION", "STATE", "EVENTS"]);
    for count in &overview.failures {
        lines.add_row([
            printable(&count.destination),
            count.state.clone(),
            count.events.to_string(),
        ]);
    }
    format!("\n{lines}\n")
}

fn relays(overview: &Overview) -> String {
    if overview.relays.is_empty() {
        return "\nNo relay has ever run on this table.".into();
    }
    let mut lines = output::table(["RELAY", "VERSION", "ORDERING", "SEEN", "STATE"]);
    for relay in &overview.relays {
        let seen = Duration::from_secs_f64(relay.seen_seconds.floor());
        let state = match (relay.live, relay.clean) {
            (true, _) => "live",
            (false, true) => "stopped",
            (false, false) => "gone without a stop",
        };
        lines.add_row([
            printable(&relay.instance),
            relay.version.clone(),
            relay.ordering.clone(),
            format!("{} ago", humantime::format_duration(seen)),
            state.into(),
        ]);
    }
    format!("\n{lines}")
}
