//! Tables for people, a file for programs.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{common::Failure, meter::Figures};

/// Where the figures go.
const FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench.json");

/// What a cell measured.
#[derive(Serialize)]
pub struct Results {
    pub cell: String,
    measurements: Vec<Measurements>,
    values: Vec<Series>,
}

/// One for each round.
#[derive(Serialize)]
struct Measurements {
    what: String,
    figures: Vec<Figures>,
}

/// A ratio or another number that counts, one for each round.
#[derive(Serialize)]
struct Series {
    what: String,
    values: Vec<f64>,
    target: Option<Target>,
}

/// What a value should be.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(formatter, "≥ {least}"),
            Self::AtMost(most) => write!(formatter, "≤ {most}"),
        }
    }
}

impl Results {
    pub fn new(cell: String) -> Self {
        Self {
            cell,
            measurements: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Keeps what was measured, and gives it back.
    pub fn add(&mut self, what: &str, figures: Figures) -> Figures {
        let speed = figures.events_per_second;
        eprintln!("  {what}: {speed:.0} events/s");
        let same = self.measurements.iter_mut().find(|all| all.what == what);
        match same {
            Some(same) => same.figures.push(figures),
            None => self.measurements.push(Measurements {
                what: what.to_owned(),
                figures: vec![figures],
            }),
        }
        figures
    }

    /// Keeps a number.
    pub fn value(&mut self, what: &str, value: f64, target: Option<Target>) {
        eprintln!("  {what}: {value:.3}");
        match self.values.iter_mut().find(|all| all.what == what) {
            Some(same) => same.values.push(value),
            None => self.values.push(Series {
                what: what.to_owned(),
                values: vec![value],
                target,
            }),
        }
    }
}

impl Measurements {
    /// The one in the middle, by speed.
    fn median(&self) -> Figures {
        let mut all = self.figures.clone();
        all.sort_by(|a, b| a.events_per_second.total_cmp(&b.events_per_second));
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    /// From the slowest to the fastest, in percent of the median.
    fn spread(&self) -> f64 {
        let speeds = sorted(self.figures.iter().map(|figures| figures.events_per_second));
        match (speeds.first(), speeds.last()) {
            (Some(least), Some(most)) => (most - least) * 100.0 / self.median().events_per_second,
            _ => 0.0,
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Medians.
pub fn tables(all: &[Results]) {
    let measured = measurements(all);
    if !measured.is_empty() {
        println!("\nCPU microseconds, WAL bytes: for each event.\n{measured}");
    }
    println!("{}", values(all));
}

fn measurements(all: &[Results]) -> Table {
    let mut table = table(&[
        "cell",
        "measured",
        "events",
        "events/s",
        "±%",
        "client us",
        "pg us",
        "broker us",
        "WAL B",
        "dead rows",
        "MiB",
    ]);
    for results in all {
        for measured in &results.measurements {
            let median = measured.median();
            table.add_row([
                results.cell.clone(),
                measured.what.clone(),
                median.events.to_string(),
                format!("{:.0}", median.events_per_second),
                format!("{:.0}", measured.spread()),
                format!("{:.1}", median.client_us),
                format!("{:.1}", median.postgres_us),
                format!("{:.1}", median.broker_us),
                format!("{:.0}", median.wal_bytes),
                format!("{:.0}", median.dead_rows),
                format!("{:.0}", median.peak_mib),
            ]);
        }
    }
    table
}

fn values(all: &[Results]) -> Table {
    let mut table = table(&["cell", "value", "median", "least", "most", "target", "met"]);
    for results in all {
        for value in &results.values {
            let ordered = sorted(value.values.iter().copied());
            let Some(median) = ordered.get(ordered.len() / 2) else {
                continue;
            };
            let met = value.target.map(|target| target.is_met(*median));
            table.add_row([
                results.cell.clone(),
                value.what.clone(),
                rounded(*median),
                rounded(ordered[0]),
                rounded(ordered[ordered.len() - 1]),
                value
                    .target
                    .map_or(String::new(), |target| target.to_string()),
                met.map_or("", |met| if met { "yes" } else { "NO" })
                    .to_owned(),
            ]);
        }
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// To what can be told apart.
fn rounded(value: f64) -> String {
    if value.abs() < 100.0 {
        format!("{value:.3}")
    } else {
        format!("{value:.0}")
    }
}

/// Everything, as JSON.
pub fn write(all: &[Results]) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = serde_json::json!({ "cores": cores, "cells": all });
    std::fs::write(FILE, format!("{text:#}\n"))?;
    println!("All measurements: {FILE}");
    Ok(())
}
