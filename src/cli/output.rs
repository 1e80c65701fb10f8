//! What commands print on standard output.

use std::io::{ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::{Failed, exit};

/// Prints a line, or lines. A reader that has seen enough (`| head`) is no failure.
pub fn text(text: &str) -> Result<(), Failed> {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failed::new(exit::FAILURE, format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints JSON, indented.
pub fn json(value: &Value) -> Result<(), Failed> {
    text(&format!("{value:#}"))
}

/// An empty table, made to fit the terminal.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// A word of a command line, in quotes where a shell would make more of it.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-/:".contains(c);
    if text.chars().all(plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Text from a row, without what could steer a terminal.
pub fn printable(text: &str) -> String {
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escape).collect()
}
