//! Writing mappings as TOML.

use std::fmt::Write;

/// A text in quotes: whatever is in a name stays in it.
pub(super) fn quoted(text: &str) -> String {
    if text.contains('"') && !text.contains('\'') && !text.contains(char::is_control) {
        return format!("'{text}'");
    }
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            _ if char.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            _ => quoted.push(char),
        }
    }
    quoted + "\""
}

/// A part that is a text.
pub(super) fn line(part: &str, text: &str) -> String {
    format!("{part} = {}\n", quoted(text))
}

/// The name of a part or column before `=`.
pub(super) fn key(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(is_plain) {
        return name.into();
    }
    quoted(name)
}

/// A comment, whatever is in the text.
pub(super) fn comment(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    format!("# {}\n", text.chars().map(shown).collect::<String>())
}

/// A column in a condition.
pub(super) fn operand(column: &str) -> String {
    let starts = |c: char| c.is_ascii_lowercase() || c == '_';
    let is_plain = column.starts_with(starts)
        && (column.chars()).all(|c| starts(c) || c.is_ascii_digit())
        && !crate::mapping::condition::WORDS.contains(&column);
    if is_plain {
        return column.into();
    }
    format!("\"{}\"", column.replace('"', "\"\""))
}

/// A text in a condition.
pub(super) fn constant(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
