//! A table for people, a file for programs.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{common::Failure, meter::Figures};

/// Where the figures go.
const FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench.json");

/// All measurements of a cell.
#[derive(Serialize)]
pub struct Results {
    pub name: String,
    /// By what was measured.
    pub figures: BTreeMap<&'static str, Vec<Figures>>,
}

impl Results {
    pub fn new(name: String) -> Self {
        let figures = BTreeMap::new();
        Self { name, figures }
    }

    pub fn add(&mut self, what: &'static str, figures: Figures) {
        self.figures.entry(what).or_default().push(figures);
    }

    /// The one in the middle, by speed.
    fn median(&self, what: &str) -> Figures {
        let mut all = self.figures.get(what).cloned().unwrap_or_default();
        all.sort_by(|a, b| a.events_per_second.total_cmp(&b.events_per_second));
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    /// From the slowest to the fastest, in percent of the median.
    fn spread(&self, what: &str) -> f64 {
        let speeds = self.figures.get(what).into_iter().flatten();
        let speeds: Vec<f64> = speeds.map(|figures| figures.events_per_second).collect();
        let fastest = speeds.iter().copied().fold(0.0, f64::max);
        let slowest = speeds.iter().copied().fold(f64::INFINITY, f64::min);
        (fastest - slowest) * 100.0 / self.median(what).events_per_second
    }

    /// What nothing can exceed that reads, publishes and settles on these cores.
    fn bound(&self) -> f64 {
        let parts = ["R", "P", "A"].map(|part| self.median(part));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let together = cores as f64 / parts.iter().map(Figures::cpu).sum::<f64>();
        let [read, publish, _] = parts.map(|part| part.events_per_second);
        read.min(publish).min(together)
    }
}

/// Medians.
pub fn table(all: &[Results], rows: usize) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "cell",
        "R",
        "P",
        "A",
        "T*",
        "K",
        "relay",
        "±%",
        "/K",
        "/T*",
        "us: relay",
        "pg",
        "broker",
        "WAL B",
        "MiB",
    ]);
    for results in all {
        let speed = |what| results.median(what).events_per_second;
        let relay = results.median("relay");
        let cells = [
            speed("R"),
            speed("P"),
            speed("A"),
            results.bound(),
            speed("K"),
        ];
        let mut row = vec![results.name.clone()];
        row.extend(cells.map(|cell| format!("{cell:.0}")));
        row.push(format!("{:.0}", relay.events_per_second));
        row.push(format!("{:.0}", results.spread("relay")));
        row.push(format!("{:.2}", relay.events_per_second / speed("K")));
        row.push(format!("{:.2}", relay.events_per_second / results.bound()));
        row.extend(
            [relay.client_us, relay.postgres_us, relay.broker_us].map(|us| format!("{us:.1}")),
        );
        row.push(format!("{:.0}", relay.wal_bytes));
        row.push(format!("{:.0}", relay.peak_mib));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!(
        "Events a second, {rows} of 1 KiB; us: CPU microseconds for each event of the relay.\n{table}"
    );
}

/// Everything, as JSON.
pub fn write(all: &[Results], rows: usize) -> Result<(), Failure> {
    let text = serde_json::json!({ "rows": rows, "cells": all });
    std::fs::write(FILE, format!("{text:#}\n"))?;
    println!("All measurements: {FILE}");
    Ok(())
}
