//! What the storm prints.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::HumanCount;

use super::leg::Outcome;

/// What is about to happen.
pub fn introduction(intents: u32, seed: u64, redis: bool) {
    let redis = if redis {
        "one with Redis in front"
    } else {
        "none with Redis: no URL is set"
    };
    println!(
        "For each broker: a database, a relay, two services ({redis}), two consumers.\n\
         Clients want {} orders and ask at once, later and again; 40 % of the answers are thrown away.\n\
         Meanwhile all programs are killed at random. Seed {seed}.",
        HumanCount(intents.into()),
    );
}

/// The figures, a column for each broker.
pub fn table(outcomes: &[Outcome]) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    let titles = outcomes
        .iter()
        .map(|of| Cell::new(of.title).add_attribute(Attribute::Bold));
    table.set_header([Cell::new("")].into_iter().chain(titles));
    let mut row = |title: &str, figure: &dyn Fn(&Outcome) -> Cell| {
        let figures = outcomes
            .iter()
            .map(|of| figure(of).set_alignment(CellAlignment::Right));
        table.add_row([Cell::new(title)].into_iter().chain(figures));
    };
    row("intents", &|of| plain(of.verdict.intents));
    for (title, counter) in REQUESTS {
        row(title, &|of| {
            plain(counter(of).load(Ordering::Relaxed) as usize)
        });
    }
    row("orders", &|of| {
        must_be(of.verdict.intents, of.verdict.orders)
    });
    row("messages in the broker", &|of| {
        plain(figure(of.figures.messages))
    });
    row("payments", &|of| {
        must_be(of.verdict.intents, figure(of.verdict.payments))
    });
    row("answers unlike the first", &|of| {
        must_be(0, of.verdict.differing)
    });
    row("caught at the edge (replays, 409s)", &|of| {
        share(
            edge(of),
            of.figures.counts.sent.load(Ordering::Relaxed) as usize,
        )
    });
    row("duplicates in the broker", &|of| {
        let messages = figure(of.figures.messages);
        share(messages.saturating_sub(of.figures.events), messages)
    });
    row("caught by the inbox", &|of| {
        let skipped = of.figures.skipped;
        share(skipped, skipped + figure(of.verdict.payments))
    });
    for (at, name) in ["relay", "services", "consumers"].into_iter().enumerate() {
        let title = format!("kills: {name}");
        row(&title, &|of| plain(of.figures.kills[at].1 as usize));
    }
    row("seconds", &|of| {
        Cell::new(format!("{:.0}", of.figures.took.as_secs_f64()))
    });
    println!("\n{table}");
}

type Counter = fn(&Outcome) -> &AtomicU32;

const REQUESTS: [(&str, Counter); 8] = [
    ("requests sent", |of| &of.figures.counts.sent),
    ("  answers thrown away", |of| &of.figures.counts.thrown_away),
    ("  201, the first", |of| &of.figures.counts.first),
    ("  201, replayed", |of| &of.figures.counts.replayed),
    ("  409, in progress", |of| &of.figures.counts.in_progress),
    ("  422, key reused", |of| &of.figures.counts.key_reused),
    ("  503", |of| &of.figures.counts.unavailable),
    ("  no answer: service dead", |of| {
        &of.figures.counts.unanswered
    }),
];

fn edge(of: &Outcome) -> usize {
    let counts = &of.figures.counts;
    let replayed = counts.replayed.load(Ordering::Relaxed);
    (replayed + counts.in_progress.load(Ordering::Relaxed)) as usize
}

fn figure(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

fn plain(number: usize) -> Cell {
    Cell::new(HumanCount(number as u64))
}

fn share(number: usize, of: usize) -> Cell {
    let percent = number as f64 * 100.0 / of.max(1) as f64;
    Cell::new(format!("{} ({percent:.1} %)", HumanCount(number as u64)))
}

fn must_be(promised: usize, number: usize) -> Cell {
    let color = if number == promised {
        Color::Green
    } else {
        Color::Red
    };
    plain(number).fg(color)
}

/// All is well.
pub fn kept(took: Duration) {
    println!(
        "\nEach intent: one order, one payment, one answer however often it was asked for. {:.0} s.",
        took.as_secs_f64()
    );
}

/// Something is not.
pub fn failed(wrong: &[String]) {
    let (red, plain) = if std::io::stderr().is_terminal() {
        ("\x1b[1;31m", "\x1b[0m")
    } else {
        ("", "")
    };
    eprintln!();
    for wrong in wrong {
        eprintln!("{red}WRONG  {wrong}{plain}");
    }
}
