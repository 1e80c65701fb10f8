//! `outboxd check`: preflight of database, tables, privileges, broker and destinations.

use clap::Args;
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    Failed, exit,
    output::{self, printable},
    relay_args::{RelayArgs, RelayConfig},
};
use crate::{
    outbox::{
        Outbox,
        inspect::{self, Fault, Finding, Intent, Severity},
        url,
    },
    sink::Sink,
};

/// Check database, tables, privileges, broker and destinations, and say how to mend each fault
///
/// Takes the settings of `run`. Publishes nothing and changes nothing. Without a broker's settings only
/// the database is checked.
#[derive(Args)]
#[command(after_help = "Exit codes, the first that applies:
  78  tables or values are wrong
  77  a privilege is missing
  69  database, broker or a destination cannot be used at the moment
   0  all is well, or there are only warnings

Examples:
  outboxd check
  outboxd check --retention 0          (a relay that does not prune needs no DELETE)
  outboxd check --json | jq -r '.findings[] | select(.severity == \"error\").remedy'")]
pub struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    relay: RelayArgs,
}

impl CheckArgs {
    /// Runs the command.
    pub async fn run(mut self) -> Result<(), Failed> {
        let with_broker = self.relay.sink.is_set();
        if !with_broker {
            self.relay.sink.sink = Some("stdout".into());
        }
        let config = self
            .relay
            .validate()
            .map_err(|problems| Failed::new(exit::CONFIG, problems.list().join("\n")))?;
        let outbox = config.database.outbox(
            &format!("check@{}", std::process::id()),
            config.settings.publish_timeout,
            config.ordering,
        );
        let mut findings = database(&outbox, &config).await;
        if with_broker {
            let timeout = config.settings.publish_timeout;
            let sink = config
                .sink
                .build(timeout, "check")
                .map_err(|error| Failed::new(exit::CONFIG, error))?;
            broker(&outbox, sink.as_ref(), &mut findings).await;
            sink.close().await;
        } else {
            findings.push(Finding::warn(
                "broker",
                "not checked: no broker is set",
                "set --kafka-brokers or --rabbitmq-url, as for `run`",
            ));
        }
        report(&findings, self.json)
    }
}

async fn database(outbox: &Outbox, config: &RelayConfig) -> Vec<Finding> {
    let url = config.database.url().expose_secret();
    let intent = Intent {
        prunes: config.settings.retention.is_some(),
        publish_timeout: config.settings.publish_timeout,
        port: url::connect_options(url).map_or(0, |options| options.get_port()),
    };
    let mut findings: Vec<Finding> = inspect::encryption(url).into_iter().collect();
    findings.extend(outbox.inspect(intent).await);
    findings
}

/// Asks the broker, and for each destination that events go to.
async fn broker(outbox: &Outbox, sink: &dyn Sink, findings: &mut Vec<Finding>) {
    let unavailable = |subject, what: String, remedy: &str| {
        Finding::error(Fault::Unavailable, subject, what, remedy)
    };
    if let Err(error) = sink.probe().await {
        let remedy = "mend the connection; until then `run` waits, and publishes nothing";
        findings.push(unavailable(
            "broker",
            format!("{}: {error}", sink.name()),
            remedy,
        ));
        return;
    }
    findings.push(Finding::ok("broker", format!("{} answers", sink.name())));
    let destinations = match outbox.link().await {
        Ok(mut link) => outbox.some_destinations(&mut link).await,
        Err(error) => Err(error),
    };
    // Where the table cannot be read, that is a finding already.
    for destination in destinations.unwrap_or_default() {
        findings.push(match sink.probe_destination(&destination).await {
            Ok(()) => Finding::ok("destination", format!("{destination} can be published to")),
            Err(error) => {
                let remedy = "create it, or grant it; until then `run` pauses this destination (see --on-unroutable)";
                unavailable("destination", format!("{destination}: {error}"), remedy)
            }
        });
    }
}

fn report(findings: &[Finding], as_json: bool) -> Result<(), Failed> {
    let worst = findings.iter().map(|finding| finding.severity).max();
    let code = match worst {
        Some(Severity::Error(Fault::Config)) => exit::CONFIG,
        Some(Severity::Error(Fault::Privilege)) => exit::NO_PERMISSION,
        Some(Severity::Error(Fault::Unavailable)) => exit::UNAVAILABLE,
        Some(Severity::Warn | Severity::Ok) | None => exit::OK,
    };
    if as_json {
        let entries = findings.iter().map(|finding| {
            json!({
                "severity": word(finding.severity),
                "subject": finding.subject,
                "what": finding.what,
                "remedy": finding.remedy,
            })
        });
        let status = worst.map_or("ok", word);
        let findings: Vec<_> = entries.collect();
        output::json(&json!({ "status": status, "exit_code": code, "findings": findings }))?;
    } else {
        for finding in findings {
            let what = printable(&finding.what);
            output::text(&format!(
                "{:<5} {}: {what}",
                word(finding.severity),
                finding.subject
            ))?;
            if let Some(remedy) = &finding.remedy {
                output::text(&format!("      -> {}", printable(remedy)))?;
            }
        }
    }
    if code == exit::OK {
        return Ok(());
    }
    let errors = findings
        .iter()
        .filter(|finding| word(finding.severity) == "error")
        .count();
    Err(Failed::new(code, format!("check: {errors} to be mended")))
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warn => "warn",
        Severity::Error(_) => "error",
    }
}
