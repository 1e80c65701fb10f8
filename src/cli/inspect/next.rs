//! The commands that come next, ready to be pasted into a shell.

use crate::{
    mapping::propose::Source,
    outbox::survey::{Surveyed, TOPIC},
};

const BROKER: &str = "--kafka-brokers localhost:9092";
/// Where a mapping goes that is no preset.
const FILE: &str = "outbox.toml";

pub(super) fn commands(found: &Surveyed) -> Vec<String> {
    let table = format!("--table {}", quoted(&found.names.display()));
    let topic = if found.needs_topic() {
        format!(" --topic {TOPIC}")
    } else {
        String::new()
    };
    match found.proposal.source {
        Source::Own if found.is_made => vec![format!("outboxd run {table} {BROKER}")],
        Source::Own => vec![format!("outboxd run --migrate {table} {BROKER}")],
        Source::Preset(preset) => vec![format!(
            "outboxd run --migrate --preset {} {table}{topic} {BROKER}",
            preset.name
        )],
        Source::Changed(_) | Source::Guess => vec![
            format!("outboxd inspect {table} --write {FILE}"),
            format!("outboxd run --migrate --mapping {FILE}{topic} {BROKER}"),
        ],
    }
}

/// As a shell wants it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if word.chars().all(is_plain) {
        return word.into();
    }
    if word.contains(char::is_control) {
        let escaped = word.escape_default().to_string();
        return format!("$'{}'", escaped.replace("\\u{", "\\u").replace('}', ""));
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn names_are_quoted_where_a_shell_would_read_them() {
        for (name, expected) in [
            ("public.outbox", "public.outbox"),
            ("public.My Outbox", "'public.My Outbox'"),
            ("public.it's; rm", r"'public.it'\''s; rm'"),
            ("public.$(x)", "'public.$(x)'"),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }
}
