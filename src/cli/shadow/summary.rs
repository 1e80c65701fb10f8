//! What a rehearsal found, for people and for programs.

use serde_json::{Value, json};

use crate::{
    cli::output::printable,
    shadow::{Counts, Example, Group, Kind, Outcome, Part},
};

const LET_ROWS_STAY: &str = "a row that is deleted by the transaction that inserts it, or before it can be read, shows itself to \
     nobody but Debezium: let rows stay (see docs/from-debezium.md), or let the other relay delete later";

/// The counts in one line.
pub(super) fn line(counts: &Counts) -> String {
    let also = |count: u64, what: &str| match count {
        0 => String::new(),
        count => format!(", {count} {what}"),
    };
    format!(
        "{} compared: {} same{}{}{}{}{}{}",
        counts.compared(),
        counts.same,
        also(counts.written_differently, "same but written differently"),
        also(counts.different, "different"),
        also(counts.only_theirs, "only theirs (a message without a row)"),
        also(counts.only_ours, "only ours (a row without a message)"),
        also(counts.unidentified, "without an id"),
        also(counts.not_sent_yet, "not sent yet"),
    )
}

/// Everything, the first differences among it.
pub(super) fn text(outcome: &Outcome, examples: usize, verdict: &str) -> String {
    let counts = &outcome.ledger.counts;
    let mut lines = vec![line(counts)];
    let headers = [
        (counts.missing_headers, "missing in theirs"),
        (counts.different_headers, "different"),
        (counts.further_headers, "only in theirs"),
    ];
    let headers = headers.iter().filter(|(count, _)| *count > 0);
    let headers: Vec<_> = headers
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !headers.is_empty() {
        lines.push(format!("headers: {}", headers.join(", ")));
    }
    if counts.dropped > 0 {
        lines.push(format!(
            "{} rows were forgotten before their message came, for want of memory: were they never sent, it is not told",
            counts.dropped
        ));
    }
    if counts.left_out > 0 {
        lines.push(format!(
            "{} messages were left out: their rows could not be looked up in time (an index on the event's id helps)",
            counts.left_out
        ));
    }
    if outcome.outrun {
        lines.push(
            "rows came faster than they were read: were some never sent, it is not told".into(),
        );
    }
    let groups = &outcome.ledger.groups;
    // Each kind has its share.
    let each = (examples / groups.len().max(1)).max(examples.min(1));
    for (kind, group) in groups {
        lines.push(String::new());
        lines.push(format!("{} ({})", printable(&title(kind)), group.count));
        lines.extend(group.examples.iter().take(each).map(example));
    }
    lines.push(String::new());
    lines.push(verdict.to_owned());
    lines.join("\n")
}

fn title(kind: &Kind) -> String {
    match kind {
        Kind::Unidentified => "message without an id".into(),
        Kind::OnlyTheirs => "only theirs: a message without a row".into(),
        Kind::OnlyOurs => "only ours: a row without a message".into(),
        Kind::Refused => "outboxd could not send it".into(),
        Kind::Part(Part::Exchange) => "exchange differs".into(),
        Kind::Part(Part::Destination) => "destination differs".into(),
        Kind::Part(Part::Key) => "key differs".into(),
        Kind::Part(Part::MissingHeader(name)) => format!("header {name} is missing in theirs"),
        Kind::Part(Part::OtherHeader(name)) => format!("header {name} differs"),
        Kind::Part(Part::FurtherHeader(name)) => format!("header {name} is only in theirs"),
        Kind::Part(Part::Payload) => "payload differs".into(),
        Kind::Duplicate => "they sent it again".into(),
        Kind::OutOfOrder => "they sent it after a later event of its key".into(),
        Kind::OtherPartition => {
            "partition differs: keep order across the cut-over by letting consumers catch up first"
                .into()
        }
    }
}

fn example(example: &Example) -> String {
    let mut text = format!("  {}", example.at);
    if !example.event.is_empty() {
        text = format!("{text}, event {}", example.event);
    }
    if let Some(note) = &example.note {
        text = format!("{text}: {note}");
    }
    let mut text = printable(&text);
    if example.ours.is_some() || example.theirs.is_some() {
        let value = |value: &Option<String>| value.as_deref().map_or("(none)".into(), printable);
        text = format!(
            "{text}\n    outboxd  {}\n    theirs   {}",
            value(&example.ours),
            value(&example.theirs)
        );
    }
    text
}

/// The same for programs.
pub(super) fn json(outcome: &Outcome, verdict: &str) -> Value {
    let counts = &outcome.ledger.counts;
    let (notes, differences): (Vec<_>, Vec<_>) = outcome
        .ledger
        .groups
        .iter()
        .partition(|(kind, _)| kind.is_note());
    let groups = |groups: Vec<(&Kind, &Group)>| {
        let groups = groups.into_iter().map(|(kind, group)| {
            let examples = group.examples.iter().map(|it| {
                json!({
                    "event_id": it.event, "at": it.at, "ours": it.ours, "theirs": it.theirs, "note": it.note,
                })
            });
            json!({ "kind": title(kind), "count": group.count, "examples": examples.collect::<Vec<_>>() })
        });
        groups.collect::<Vec<_>>()
    };
    json!({
        "ready": counts.is_ready() && outcome.failure.is_none(),
        "verdict": verdict,
        "compared": counts.compared(),
        "same": counts.same,
        "written_differently": counts.written_differently,
        "different": counts.different,
        "only_theirs": counts.only_theirs,
        "only_ours": counts.only_ours,
        "not_sent_yet": counts.not_sent_yet,
        "without_id": counts.unidentified,
        "duplicates": counts.duplicates,
        "out_of_order": counts.out_of_order,
        "other_partition": counts.other_partition,
        "missing_headers": counts.missing_headers,
        "different_headers": counts.different_headers,
        "further_headers": counts.further_headers,
        "messages": counts.messages,
        "rows": counts.rows,
        "rows_forgotten": counts.dropped,
        "left_out": counts.left_out,
        "rows_outran": outcome.outrun,
        "differences": groups(differences),
        "notes": groups(notes),
    })
}

/// Whether to change over, in a sentence or two.
pub(super) fn verdict(outcome: &Outcome, followed: &str) -> String {
    let counts = &outcome.ledger.counts;
    if let Some(failure) = &outcome.failure {
        return format!("Not ready: it ended early ({failure}).");
    }
    if counts.compared() == 0 {
        return format!(
            "Not ready: nothing was compared. {}",
            nothing(counts, followed)
        );
    }
    if !counts.is_ready() {
        return not_ready(counts) + &only_on_top(outcome);
    }
    let written = match counts.written_differently {
        0 => String::new(),
        count => format!(" {count} payloads are the same as JSON only: consumers must parse it."),
    };
    let mut notes = Vec::new();
    for (count, what) in [
        (counts.duplicates, "were sent twice by them"),
        (
            counts.out_of_order,
            "were sent by them in another order than the table's",
        ),
        (
            counts.other_partition,
            "went to another partition than outboxd's",
        ),
    ] {
        if count > 0 {
            notes.push(format!(" {count} {what}."));
        }
    }
    format!(
        "Ready to cut over: outboxd would have sent all {} the same.{written}{}",
        counts.compared(),
        notes.concat()
    )
}

fn nothing(counts: &Counts, followed: &str) -> String {
    if counts.unidentified > 0 {
        return "No message carries an event id: name the header that does with --id-header."
            .into();
    }
    if counts.only_theirs > 0 {
        let seen = if counts.rows == 0 {
            "the table never showed a row"
        } else {
            "none is of a row in the table"
        };
        return format!(
            "{} messages arrived, but {seen}: {LET_ROWS_STAY}.",
            counts.messages
        );
    }
    if counts.rows > 0 {
        return format!(
            "No message arrived from {followed}: does the other relay send there, and was there anything to send?"
        );
    }
    format!("No message arrived from {followed}, and the table is empty.")
}

/// What consumers hardly mind: headers that outboxd sends as well, and no other difference.
fn only_on_top(outcome: &Outcome) -> String {
    let kinds = outcome.ledger.groups.keys().filter(|kind| !kind.is_note());
    let names = kinds.map(|kind| match kind {
        Kind::Part(Part::MissingHeader(name)) => Some(name.as_str()),
        _ => None,
    });
    let names: Option<Vec<_>> = names.collect();
    names.map_or(String::new(), |names| {
        format!(
            " All of it is headers that outboxd would send on top: if no consumer minds, --ignore-header {}.",
            names.join(" --ignore-header ")
        )
    })
}

fn not_ready(counts: &Counts) -> String {
    let mut reasons = Vec::new();
    for (count, what) in [
        (counts.different, "would have been sent differently"),
        (counts.only_ours, "they never sent, and outboxd would have"),
        (counts.unidentified, "carry no event id (see --id-header)"),
    ] {
        if count > 0 {
            reasons.push(format!("{count} {what}"));
        }
    }
    if counts.only_theirs > 0 {
        reasons.push(format!(
            "{} of theirs have no row: {LET_ROWS_STAY}",
            counts.only_theirs
        ));
    }
    format!(
        "Not ready: of {} events, {}.",
        counts.messages.max(counts.compared()),
        reasons.join("; ")
    )
}
