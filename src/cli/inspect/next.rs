//! The command to go on with, ready to be pasted into a shell: it works on the table as it is.

use crate::{
    cli::output::word,
    mapping::propose::Source,
    outbox::survey::{Surveyed, TOPIC},
};

/// Where a mapping goes that is no preset.
pub(super) const FILE: &str = "outbox.toml";
/// What a relay does where nothing tells the order.
pub(super) const NO_ORDER: &str = "--ordering none";

pub(super) fn run(found: &Surveyed) -> String {
    let table = word(&found.names.display());
    let how = match found.proposal.source {
        Source::Own => format!("--table {table}"),
        Source::Preset(preset) => format!("--preset {} --table {table}", preset.name),
        Source::Changed(_) | Source::Guess => format!("--mapping {FILE}"),
    };
    let topic = format!("--topic {TOPIC}");
    let mut words = vec!["outboxd run --migrate", &how];
    if found.lacks_order {
        words.push(NO_ORDER);
    }
    if found.needs_topic() {
        words.push(&topic);
    }
    words.push("--kafka-brokers localhost:9092");
    words.join(" ")
}
