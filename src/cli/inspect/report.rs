//! What was found, for people and for machines.

use std::time::Duration;

use serde_json::{Value, json};

use super::next::{FILE, NO_ORDER, run};
use crate::{
    cli::{
        output::{printable, word},
        peek,
    },
    mapping::propose::Source,
    outbox::survey::{Survey, Surveyed},
};

pub(super) fn text(found: &Survey) -> String {
    let tables: Vec<_> = found.tables.iter().map(table).collect();
    tables.join("\n\n")
}

fn table(found: &Surveyed) -> String {
    let proposal = &found.proposal;
    let mut lines = vec![
        format!(
            "{}: {} ({}); {}",
            found.display(),
            whose(proposal.source),
            proposal.certainty.as_str(),
            waits(found)
        ),
        format!("  because of {}", printable(&proposal.why)),
    ];
    for doubt in &proposal.doubts {
        lines.push(format!("  doubt: {}", printable(doubt)));
    }
    for finding in &found.findings {
        lines.push(format!(
            "  {}: {}",
            finding.subject,
            printable(&finding.what)
        ));
        let remedy = finding.remedy.iter();
        lines.extend(remedy.map(|remedy| format!("    -> {}", printable(remedy))));
    }
    if let Source::Guess | Source::Changed(_) = proposal.source {
        let table = word(&found.display());
        lines.push(format!(
            "  the mapping (outboxd inspect --table {table} --write {FILE}):"
        ));
        lines.extend(proposal.text.lines().map(indented));
    }
    lines.push("  to relay it as it is, as a role that may make tables:".into());
    lines.push(indented(run(found)));
    if found.lacks_order {
        lines.push(format!(
            "    (to keep the order of each key, add the column first, and leave out {NO_ORDER})"
        ));
    }
    lines.push("  as a role of its own, once they are made:".into());
    lines.extend(found.grants.lines().map(indented));
    if !found.samples.is_empty() {
        lines.push("  what would be sent:".into());
        let samples = found.samples.iter().map(peek::line);
        lines.extend(samples.map(|line| indented(&line)));
    }
    lines.join("\n")
}

fn indented(line: impl AsRef<str>) -> String {
    format!("    {}", printable(line.as_ref()))
}

fn whose(source: Source) -> String {
    match source {
        Source::Own => "outboxd's own".into(),
        Source::Preset(preset) => format!("preset {}", preset.name),
        Source::Changed(preset) => format!("preset {} with another order", preset.name),
        Source::Guess => "a mapping of its own".into(),
    }
}

fn waits(found: &Surveyed) -> String {
    let Some(backlog) = found.backlog else {
        return "it is unknown how many events wait".into();
    };
    let about = if backlog.is_exact { "" } else { "about " };
    let oldest = backlog.oldest.map_or(String::new(), |seconds| {
        let age = Duration::from_secs_f64(seconds.clamp(0.0, 1e12).floor());
        format!(", the oldest for {}", humantime::format_duration(age))
    });
    format!("{about}{} events wait{oldest}", backlog.events)
}

pub(super) fn json(found: &Survey) -> Value {
    Value::Array(found.tables.iter().map(table_json).collect())
}

fn table_json(found: &Surveyed) -> Value {
    let proposal = &found.proposal;
    let (preset, mapping) = match proposal.source {
        Source::Own => (None, None),
        Source::Preset(preset) => (Some(preset.name), None),
        Source::Changed(preset) => (Some(preset.name), Some(&proposal.text)),
        Source::Guess => (None, Some(&proposal.text)),
    };
    let findings = found.findings.iter();
    let findings =
        findings.map(|it| json!({ "subject": it.subject, "what": it.what, "remedy": it.remedy }));
    let samples = found.samples.iter().map(peek::line);
    let samples = samples.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    json!({
        "table": found.names.display(),
        "preset": preset,
        "mapping": mapping,
        "confidence": proposal.certainty.as_str(),
        "why": proposal.why,
        "doubts": proposal.doubts,
        "findings": findings.collect::<Vec<_>>(),
        "pending_events": found.backlog.map(|backlog| backlog.events),
        "pending_is_exact": found.backlog.map(|backlog| backlog.is_exact),
        "oldest_seconds": found.backlog.and_then(|backlog| backlog.oldest),
        "statements": found.statements,
        "run": run(found),
        "grants": found.grants,
        "samples": samples.collect::<Vec<_>>(),
    })
}
