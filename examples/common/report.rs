//! What the examples print in the end.

use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::HumanCount;

/// A table with a column for each broker, of what there is to be said about it.
pub struct Columns<'a, T> {
    table: Table,
    of: &'a [T],
}

/// Columns without rows yet.
pub fn columns<'a, T>(corner: &str, of: &'a [T], title: impl Fn(&T) -> &str) -> Columns<'a, T> {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    let titles = of
        .iter()
        .map(|of| Cell::new(title(of)).add_attribute(Attribute::Bold));
    table.set_header([Cell::new(corner)].into_iter().chain(titles));
    Columns { table, of }
}

impl<T> Columns<'_, T> {
    /// Adds a row.
    pub fn row(&mut self, title: &str, figure: impl Fn(&T) -> Cell) {
        let figures = self
            .of
            .iter()
            .map(|of| figure(of).set_alignment(CellAlignment::Right));
        self.table
            .add_row([Cell::new(title)].into_iter().chain(figures));
    }

    pub fn print(&self) {
        println!("\n{}", self.table);
    }
}

/// A number, to be read by people.
pub fn count(number: usize) -> HumanCount {
    HumanCount(number as u64)
}

/// A number that proves nothing.
pub fn plain(number: usize) -> Cell {
    Cell::new(count(number))
}

/// A number that proves something.
pub fn must_be(promised: usize, number: usize) -> Cell {
    let color = if number == promised {
        Color::Green
    } else {
        Color::Red
    };
    plain(number).fg(color)
}

/// Something is not as promised.
pub fn failed(failures: &[String]) {
    let (red, plain) = if std::io::stderr().is_terminal() {
        ("\x1b[1;31m", "\x1b[0m")
    } else {
        ("", "")
    };
    eprintln!();
    for failure in failures {
        eprintln!("{red}FAILED  {failure}{plain}");
    }
}
