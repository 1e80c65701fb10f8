//! What was found, for people and for machines.

use std::time::Duration;

use serde_json::{Value, json};

use super::next::commands;
use crate::{
    cli::{output::printable, peek},
    mapping::propose::Source,
    outbox::survey::{Backlog, Survey, Surveyed},
};

pub(super) fn text(found: &Survey) -> String {
    let mut parts: Vec<String> = found.tables.iter().map(table).collect();
    let passed_over = found.passed_over.iter();
    parts.extend(
        passed_over
            .map(|(table, why)| format!("{}: passed over: {}", printable(table), printable(why))),
    );
    parts.join("\n\n")
}

fn table(found: &Surveyed) -> String {
    let proposal = &found.proposal;
    let mut lines = vec![format!(
        "{}: {}, {} ({})",
        found.display(),
        proposal.certainty.as_str(),
        what(proposal.source),
        printable(&proposal.why)
    )];
    if let Source::Guess | Source::Changed(_) = proposal.source {
        lines.push(part("mapping", proposal.text.lines()));
    }
    if let Some(backlog) = &found.backlog {
        lines.push(part("pending", [waiting(backlog).as_str()]));
    }
    let doubts = found.doubts.iter().flat_map(|doubt| {
        let remedy = doubt.remedy.iter();
        let remedy = remedy.map(|remedy| format!("  -> {}", printable(remedy)));
        std::iter::once(format!("- {}", printable(&doubt.what))).chain(remedy)
    });
    let doubts: Vec<_> = doubts.collect();
    lines.push(part("doubts", doubts.iter().map(String::as_str)));
    let statements = found.statements.iter().map(String::as_str);
    lines.push(part(
        "in psql (an index on a small table `--migrate` makes too)",
        statements,
    ));
    let grants = found.grants.iter().map(String::as_str);
    lines.push(part(
        "for a relay that is not the owner (outboxd migrate --grant-to does it, and makes its tables)",
        grants,
    ));
    let commands = commands(found);
    lines.push(part("next", commands.iter().map(String::as_str)));
    let samples: Vec<_> = found.samples.iter().map(peek::line).collect();
    lines.push(part("messages", samples.iter().map(String::as_str)));
    lines.retain(|part| !part.is_empty());
    lines.join("\n")
}

/// Lines under a heading, if there are any.
fn part<'a>(heading: &str, lines: impl IntoIterator<Item = &'a str>) -> String {
    let lines = lines.into_iter();
    let lines: Vec<_> = lines
        .map(|line| format!("    {}", printable(line)))
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("  {heading}:\n{}", lines.join("\n"))
}

fn what(source: Source) -> String {
    match source {
        Source::Own => "outboxd's own table".into(),
        Source::Preset(preset) => format!("preset {}", preset.name),
        Source::Changed(preset) => format!("preset {} with another order", preset.name),
        Source::Guess => "a mapping of your own".into(),
    }
}

fn waiting(backlog: &Backlog) -> String {
    let about = if backlog.is_exact { "" } else { "about " };
    let oldest = backlog.oldest.map_or(String::new(), |seconds| {
        let age = Duration::from_secs_f64(seconds.clamp(0.0, 1e12).floor());
        format!(", the oldest {} old", humantime::format_duration(age))
    });
    format!("{about}{} rows{oldest}", backlog.events)
}

pub(super) fn json(found: &Survey) -> Value {
    let tables: Vec<_> = found.tables.iter().map(table_json).collect();
    let passed_over = found.passed_over.iter();
    let passed_over = passed_over.map(|(table, why)| json!({ "table": table, "why": why }));
    json!({ "tables": tables, "passed_over": passed_over.collect::<Vec<_>>() })
}

fn table_json(found: &Surveyed) -> Value {
    let proposal = &found.proposal;
    let (kind, preset) = match proposal.source {
        Source::Own => ("own", None),
        Source::Preset(preset) => ("preset", Some(preset.name)),
        Source::Changed(preset) => ("mapping", Some(preset.name)),
        Source::Guess => ("mapping", None),
    };
    let doubts = found.doubts.iter();
    let doubts = doubts.map(|doubt| json!({ "what": doubt.what, "remedy": doubt.remedy }));
    let guessed = proposal.doubts.iter();
    let guessed = guessed.map(|doubt| json!({ "what": doubt, "remedy": null }));
    let pending = found.backlog.map(|backlog| {
        json!({ "rows": backlog.events, "exact": backlog.is_exact, "oldest_seconds": backlog.oldest })
    });
    let samples = found.samples.iter().map(peek::line);
    let samples = samples.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    json!({
        "table": found.names.display(),
        "certainty": proposal.certainty.as_str(),
        "why": proposal.why,
        "proposal": kind,
        "preset": preset,
        "mapping": (kind != "own").then_some(&proposal.text),
        "pending": pending,
        "doubts": guessed.chain(doubts).collect::<Vec<_>>(),
        "statements": found.statements,
        "grants": found.grants,
        "commands": commands(found),
        "samples": samples.collect::<Vec<_>>(),
    })
}
