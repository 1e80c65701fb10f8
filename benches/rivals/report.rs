//! A table for people, a file for programs.

use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{common::Failure, meter::Figures, rival::Rival, topic::Arrivals};

/// Where the figures go.
const FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench-rivals.json");

const COLUMNS: [&str; 10] = [
    "",
    "events/s",
    "cold start s",
    "then events/s",
    "second half",
    "us: client",
    "PostgreSQL",
    "broker",
    "WAL B",
    "peak MiB",
];

/// Of one measurement.
#[derive(Clone, Copy, Serialize)]
pub struct Outcome {
    /// Speed: from the program's start to the last message.
    #[serde(flatten)]
    pub figures: Figures,
    /// From the program's start to the first message.
    cold_start_seconds: f64,
    /// From the first message to the last.
    steady_events_per_second: f64,
    /// The same, of the second half of the messages: what a warm program does.
    second_half_events_per_second: f64,
    late_events: usize,
    repeated_events: usize,
}

impl Outcome {
    pub fn new(figures: Figures, began: SystemTime, arrivals: Arrivals) -> Result<Self, Failure> {
        let stamps = arrivals.stamps;
        let (Some(first), Some(last)) = (stamps.first(), stamps.last()) else {
            return Err("no messages".into());
        };
        let half = stamps[stamps.len() / 2];
        let began = i64::try_from(began.duration_since(UNIX_EPOCH)?.as_millis())?;
        let seconds = |from: i64, to: i64| (to - from).max(1) as f64 / 1000.0;
        let events = stamps.len() as f64;
        Ok(Self {
            figures: Figures {
                events_per_second: events / seconds(began, *last),
                ..figures
            },
            cold_start_seconds: seconds(began, *first),
            steady_events_per_second: events / seconds(*first, *last),
            second_half_events_per_second: events / 2.0 / seconds(half, *last),
            late_events: arrivals.late,
            repeated_events: arrivals.repeated,
        })
    }

    fn row(&self) -> [String; 9] {
        let figures = &self.figures;
        [
            format!("{:.0}", figures.events_per_second),
            format!("{:.2}", self.cold_start_seconds),
            format!("{:.0}", self.steady_events_per_second),
            format!("{:.0}", self.second_half_events_per_second),
            format!("{:.1}", figures.client_us),
            format!("{:.1}", figures.postgres_us),
            format!("{:.1}", figures.broker_us),
            format!("{:.0}", figures.wal_bytes),
            format!("{:.0}", figures.peak_mib),
        ]
    }
}

/// All measurements of a rival.
#[derive(Serialize)]
pub struct Results {
    name: String,
    promises_order: bool,
    pub outcomes: Vec<Outcome>,
}

impl Results {
    pub fn of(rival: &Rival) -> Self {
        Self {
            name: rival.name(),
            promises_order: rival.promises_order(),
            outcomes: Vec::new(),
        }
    }

    /// The one in the middle, by speed.
    fn median(&self) -> Option<Outcome> {
        let mut all = self.outcomes.clone();
        let speed = |outcome: &Outcome| outcome.figures.events_per_second;
        all.sort_by(|a, b| speed(a).total_cmp(&speed(b)));
        all.get(all.len() / 2).copied()
    }

    /// Once out of order is enough; and that none was late is luck where order is not promised.
    fn keeps_order(&self) -> String {
        let late = self.outcomes.iter().map(|outcome| outcome.late_events);
        match (self.promises_order, late.max().unwrap_or_default()) {
            (true, 0) => "yes".into(),
            (_, late) => format!("no ({late} late)"),
        }
    }
}

/// Medians.
pub fn table(all: &[Results], rows: usize) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(COLUMNS.into_iter().chain(["keeps key order"]));
    for results in all {
        if let Some(median) = results.median() {
            let name = [results.name.clone()].into_iter();
            table.add_row(name.chain(median.row()).chain([results.keeps_order()]));
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!(
        "{rows} events of 1 KiB to Kafka. events/s: from the program's start to the last message; then: from \
         the first message on;\nus: CPU microseconds for each event, the start included.\n{table}"
    );
}

/// Everything, as JSON.
pub fn write(all: &[Results], rows: usize) -> Result<(), Failure> {
    let text = serde_json::json!({ "rows": rows, "rivals": all });
    std::fs::write(FILE, format!("{text:#}\n"))?;
    println!("All measurements: {FILE}");
    Ok(())
}
