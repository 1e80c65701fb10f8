//! `outboxd inspect`: which table is an outbox, and what it takes to relay it.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Failed, exit,
    output::{self, printable},
    settings,
};
use crate::{
    mapping::{Proposal, Whose, propose},
    outbox::{
        Names, Outbox, SeenTable, Timeouts, Waiting,
        config::{DatabaseConfig, ServerArgs},
        inspect::{Finding, Intent, Severity},
        tables,
    },
    sink::stdout,
    template::Template,
};

/// Find the outbox in a database, and say what it takes to relay it
///
/// For each table that looks like an outbox: whose it seems to be and how sure that is, what speaks against
/// relaying it as it is and how to mend that, how much waits, the command that relays it, and the first
/// messages as they would go out. Reads catalogs and a few rows, changes nothing, and publishes nothing.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 something was found; 1 nothing looks like an outbox.

Examples:
  outboxd inspect --database-url postgres://me@localhost/shop
  outboxd inspect --table sales.outbox --samples 1
  outboxd inspect --table sales.events --write outbox.toml     (a mapping to go on from)
  outboxd inspect --json | jq -r '.[].run'"
)]
pub struct InspectArgs {
    /// Messages to show of each table
    #[arg(long, value_name = "COUNT", default_value = "10")]
    samples: u32,

    /// Write the proposed mapping to this new file; with --table, where there are several
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// What was found out about a table.
struct Report {
    table: String,
    proposal: Proposal,
    findings: Vec<Finding>,
    waiting: Option<Waiting>,
    grants: String,
    samples: Vec<String>,
}

/// What `check` looks at that says something about the table itself.
const OF_TABLES: [&str; 10] = [
    "table",
    "row security",
    "columns",
    "mapping",
    "order",
    "ids",
    "pending index",
    "triggers",
    "rules",
    "foreign keys",
];
/// What a relay does where nothing tells the order.
const NO_ORDER: &str = "--ordering none";
/// The first rows without an index may be a long way off: not longer than this.
const PATIENCE: Duration = Duration::from_secs(10);

impl InspectArgs {
    /// Runs the command.
    pub async fn run(self) -> Result<(), Failed> {
        if self.server.preset.is_some() || self.server.mapping.is_some() {
            let said = "inspect proposes a preset or a mapping, and takes none: see `outboxd peek` and `outboxd check`";
            return Err(Failed::new(exit::CONFIG, said));
        }
        let config = settings(|problems| self.server.validate(problems))?;
        let name = format!("inspect@{}", std::process::id());
        let timeouts = Timeouts {
            statement: PATIENCE,
            ..config.timeouts(Duration::ZERO)
        };
        let mut seen = tables(&config.database(&name), &timeouts).await?;
        if self.server.table.is_some() {
            seen.retain(|it| format!("{}.{}", it.schema, it.table) == config.names.display());
        }
        let mut reports = Vec::new();
        for table in &seen {
            if let Some(proposal) = propose(&table.schema, &table.table, &table.columns)
                && let Ok(names) = Names::parse(&format!("{}.{}", table.schema, table.table))
            {
                let outbox = outbox(&config, &name, names, &proposal, timeouts);
                reports.push(self.look(&outbox, table, proposal).await);
            }
        }
        reports.sort_by_key(|report| std::cmp::Reverse(report.proposal.confidence));
        self.print(&reports, seen.len())?;
        self.write(&reports)
    }

    async fn look(&self, outbox: &Outbox, table: &SeenTable, proposal: Proposal) -> Report {
        let intent = Intent {
            prunes: false,
            publish_timeout: PATIENCE,
            port: 0,
        };
        let mut findings = outbox.inspect(intent).await;
        let is_privilege = |it: &Finding| {
            matches!(
                it.severity,
                Severity::Error(crate::outbox::inspect::Fault::Privilege)
            )
        };
        findings.retain(|it| {
            it.severity != Severity::Ok && (OF_TABLES.contains(&it.subject) || is_privilege(it))
        });
        let mut report = Report {
            table: format!("{}.{}", table.schema, table.table),
            grants: outbox.grants("outboxd"),
            proposal,
            findings,
            waiting: None,
            samples: Vec::new(),
        };
        if let Err(error) = self.read(outbox, &mut report).await {
            report.findings.push(Finding::database("rows", &error));
        }
        report
    }

    async fn read(
        &self,
        outbox: &Outbox,
        report: &mut Report,
    ) -> Result<(), crate::outbox::DbError> {
        let mut link = outbox.link().await?;
        report.waiting = Some(outbox.waiting(&mut link).await?);
        if self.samples > 0 {
            let events = outbox.samples(&mut link, self.samples).await?;
            report.samples = events
                .iter()
                .map(|event| stdout::line(&event.message))
                .collect();
        }
        link.session.close().await;
        Ok(())
    }

    fn print(&self, reports: &[Report], tables: usize) -> Result<(), Failed> {
        if self.json {
            output::json(&Value::Array(reports.iter().map(Report::json).collect()))?;
        } else {
            for report in reports {
                output::text(&report.text())?;
            }
        }
        if reports.is_empty() {
            let said = format!(
                "none of {tables} tables looks like an outbox: name it with --table and write a mapping \
                 (see `outboxd preset show debezium` for one), or make one with `outboxd migrate`"
            );
            return Err(Failed::new(exit::FAILURE, said));
        }
        Ok(())
    }

    fn write(&self, reports: &[Report]) -> Result<(), Failed> {
        let (Some(file), [report, others @ ..]) = (&self.write, reports) else {
            return Ok(());
        };
        let failed =
            |why: String| Failed::new(exit::FAILURE, format!("--write {}: {why}", file.display()));
        if !others.is_empty() {
            return Err(failed(
                "several tables look like an outbox: name one with --table".into(),
            ));
        }
        let text = match &report.proposal.whose {
            Whose::Own => return Err(failed("outboxd's own table needs no mapping".into())),
            Whose::Preset(name) => format!(
                "preset = \"{name}\"\ntable = {}\n",
                Value::from(report.table.as_str())
            ),
            Whose::Other(text) => text.clone(),
        };
        let written = std::fs::File::create_new(file)
            .and_then(|mut new| std::io::Write::write_all(&mut new, text.as_bytes()));
        written.map_err(|error| failed(error.to_string()))
    }
}

fn outbox(
    config: &DatabaseConfig,
    name: &str,
    names: Names,
    proposal: &Proposal,
    timeouts: Timeouts,
) -> Outbox {
    let mut mapping = proposal.mapping.clone();
    if mapping.destination.is_empty() {
        mapping.destination.push(Template::constant("?"));
    }
    Outbox::proposed(config.database(name), names, mapping, timeouts)
}

impl Report {
    fn whose(&self) -> String {
        match &self.proposal.whose {
            Whose::Own => "outboxd's own".into(),
            Whose::Preset(name) => format!("preset {name}"),
            Whose::Other(_) => "a mapping of its own".into(),
        }
    }

    /// Whether nothing tells the order of a key's events.
    fn has_no_order(&self) -> bool {
        let about = |it: &Finding| {
            it.remedy
                .as_ref()
                .is_some_and(|remedy| remedy.contains(NO_ORDER))
        };
        self.findings.iter().any(about)
    }

    /// The one command to go on with.
    fn run(&self) -> String {
        let table = output::word(&self.table);
        let how = match &self.proposal.whose {
            Whose::Own => format!("--table {table}"),
            Whose::Preset(name) => format!("--preset {name} --table {table}"),
            Whose::Other(_) => "--mapping outbox.toml".into(),
        };
        let mut words = vec!["outboxd run --migrate", &how];
        if self.has_no_order() {
            words.push(NO_ORDER);
        }
        if self.proposal.mapping.destination.is_empty() {
            words.push("--topic events");
        }
        words.push("--kafka-brokers localhost:9092");
        words.join(" ")
    }

    fn waits(&self) -> String {
        let Some(waiting) = self.waiting else {
            return "unknown".into();
        };
        let events = waiting
            .events
            .map_or("more than 100000".into(), |events| events.to_string());
        let oldest = waiting.oldest.map(|age| Duration::from_secs(age.as_secs()));
        let oldest = oldest.filter(|_| waiting.events != Some(0));
        let oldest =
            oldest.map(|age| format!(", the oldest for {}", humantime::format_duration(age)));
        format!("{events} events wait{}", oldest.unwrap_or_default())
    }

    fn text(&self) -> String {
        let confidence = self.proposal.confidence.as_str();
        let mut lines = vec![format!(
            "{}: {} ({confidence}); {}",
            printable(&self.table),
            self.whose(),
            self.waits()
        )];
        for doubt in &self.proposal.doubts {
            lines.push(format!("  doubt: {}", printable(doubt)));
        }
        for finding in &self.findings {
            lines.push(format!(
                "  {}: {}",
                finding.subject,
                printable(&finding.what)
            ));
            lines.extend(
                finding
                    .remedy
                    .iter()
                    .map(|remedy| format!("    -> {}", printable(remedy))),
            );
        }
        if let Whose::Other(text) = &self.proposal.whose {
            lines.push("  the mapping (--write outbox.toml):".into());
            lines.extend(text.lines().map(|line| format!("    {}", printable(line))));
        }
        lines.push("  to relay it, as a role that may make tables:".into());
        lines.push(format!("    {}", self.run()));
        if self.has_no_order() {
            lines.push(format!("    (to keep the order of each key, add the column first, and leave out {NO_ORDER})"));
        }
        lines.push("  as a role of its own, once they are made:".into());
        lines.extend(
            self.grants
                .lines()
                .map(|line| format!("    {}", printable(line))),
        );
        if !self.samples.is_empty() {
            lines.push("  what would be sent:".into());
            lines.extend(self.samples.iter().map(|line| format!("    {line}")));
        }
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let waiting = self.waiting;
        let findings = self
            .findings
            .iter()
            .map(|it| json!({"subject": it.subject, "what": it.what, "remedy": it.remedy}));
        let samples = self
            .samples
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let (preset, mapping) = match &self.proposal.whose {
            Whose::Own => (None, None),
            Whose::Preset(name) => (Some(*name), None),
            Whose::Other(text) => (None, Some(text)),
        };
        json!({
            "table": self.table,
            "preset": preset,
            "mapping": mapping,
            "confidence": self.proposal.confidence.as_str(),
            "doubts": self.proposal.doubts,
            "findings": findings.collect::<Vec<_>>(),
            "pending_events": waiting.and_then(|waiting| waiting.events),
            "oldest_seconds": waiting.and_then(|waiting| waiting.oldest).map(|age| age.as_secs()),
            "run": self.run(),
            "grants": self.grants,
            "samples": samples.collect::<Vec<_>>(),
        })
    }
}
