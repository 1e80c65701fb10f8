//! What the storm prints.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use comfy_table::Cell;

use super::{crew::Kills, leg::Outcome};
use crate::common::report::{columns, count, must_be, plain};

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
        count(intents as usize),
    );
}

/// The figures, a column for each broker.
pub fn table(outcomes: &[Outcome]) {
    let mut table = columns("", outcomes, |of| of.title);
    table.row("intents", |of| plain(of.verdict.intents));
    for (title, counter) in REQUESTS {
        table.row(title, |of| {
            plain(counter(of).load(Ordering::Relaxed) as usize)
        });
    }
    table.row("orders", |of| {
        must_be(of.verdict.intents, of.verdict.orders)
    });
    table.row("events", |of| {
        must_be(of.verdict.intents, figure(of.verdict.events))
    });
    table.row("messages in the broker", |of| {
        plain(figure(of.figures.messages))
    });
    table.row("payments", |of| {
        must_be(of.verdict.intents, figure(of.verdict.payments))
    });
    table.row("answers unlike the first", |of| {
        must_be(0, of.verdict.differing)
    });
    table.row("caught at the edge (replays, 409s)", |of| {
        share(
            edge(of),
            of.figures.counts.sent.load(Ordering::Relaxed) as usize,
        )
    });
    table.row("duplicates in the broker", |of| {
        let messages = figure(of.figures.messages);
        share(messages.saturating_sub(figure(of.verdict.events)), messages)
    });
    table.row("caught by the inbox", |of| {
        let skipped = of.figures.skipped;
        share(skipped, skipped + figure(of.verdict.payments))
    });
    for (title, kills) in KILLS {
        table.row(title, |of| plain(kills(&of.figures.kills) as usize));
    }
    table.row("seconds", |of| {
        Cell::new(format!("{:.0}", of.figures.took.as_secs_f64()))
    });
    table.print();
    println!("{LEGEND}");
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

type Killed = fn(&Kills) -> u32;

const KILLS: [(&str, Killed); 3] = [
    ("kills: relay", |kills| kills.relay),
    ("kills: services", |kills| kills.services),
    ("kills: consumers", |kills| kills.payments),
];

fn edge(of: &Outcome) -> usize {
    let counts = &of.figures.counts;
    let replayed = counts.replayed.load(Ordering::Relaxed);
    (replayed + counts.in_progress.load(Ordering::Relaxed)) as usize
}

fn figure(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

fn share(number: usize, of: usize) -> Cell {
    let percent = number as f64 * 100.0 / of.max(1) as f64;
    Cell::new(format!("{} ({percent:.1} %)", count(number)))
}

/// What the figures leave open.
const LEGEND: &str = "
The 201s that were the first and are missing here are among the answers thrown away. The inbox also catches
what the broker delivers again to a consumer that was killed before it could acknowledge.";

/// All is well.
pub fn kept(took: Duration) {
    println!(
        "\nEach intent: one order, one payment, one answer however often it was asked for. {:.0} s.",
        took.as_secs_f64()
    );
}
