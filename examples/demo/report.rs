//! What the demo prints.

use std::time::Duration;

use comfy_table::Cell;

use crate::{
    common::report::{columns, count, must_be, plain},
    leg::Results,
    shop::{CUSTOMERS, ROLLED_BACK_PERCENT, Traffic, WRITERS},
    verdict::Verdict,
};

/// The metrics worth a look, of the many.
const METRICS: [&str; 10] = [
    "outboxd_published_total",
    "outboxd_retries_total",
    "outboxd_pending_events",
    "outboxd_lag_seconds",
    "outboxd_held_keys",
    "outboxd_dead_letters",
    "outboxd_delivery_latency_seconds_bucket{le=\"0.01\"}",
    "outboxd_delivery_latency_seconds_bucket{le=\"0.025\"}",
    "outboxd_delivery_latency_seconds_bucket{le=\"0.1\"}",
    "outboxd_delivery_latency_seconds_count",
];

/// What is about to happen.
pub fn introduction(traffic: &Traffic) {
    println!(
        "Two relays: one database to Kafka (4 partitions), one to RabbitMQ (a quorum queue).\n\
         Into each database {} writers commit {} orders of {} customers and roll {} % back on purpose,\n\
         about {} a second: that shows the latency of a steady state, not the most a relay can do.",
        WRITERS,
        count(traffic.orders as usize),
        count(CUSTOMERS as usize),
        ROLLED_BACK_PERCENT,
        traffic.rate,
    );
}

/// The figures, a column for each sink.
pub fn table(results: &[Results]) {
    let mut table = columns("events", results, |of| of.title);
    table.row("committed", |of| plain(of.verdict.committed));
    table.row("rolled back", |of| plain(of.verdict.rolled_back));
    table.row("received", |of| {
        must_be(of.verdict.committed, of.verdict.received)
    });
    table.row("marked published", |of| {
        must_be(of.verdict.committed, of.marked)
    });
    table.row("lost", |of| must_be(0, of.verdict.lost));
    table.row("phantom (never committed)", |of| {
        must_be(0, of.verdict.phantom)
    });
    table.row("out of order per key", |of| {
        must_be(0, of.verdict.out_of_order)
    });
    table.row("duplicates", |of| must_be(0, of.verdict.duplicates));
    table.row("altered (key or payload)", |of| {
        must_be(0, of.verdict.altered)
    });
    table.row("events/s (writers held back)", |of| {
        Cell::new(format!("{:.0}", of.verdict.rate()))
    });
    table.row("p50 from COMMIT to consumer", |of| latency(&of.verdict, 50));
    table.row("p99 from COMMIT to consumer", |of| latency(&of.verdict, 99));
    table.print();
}

fn latency(verdict: &Verdict, percent: usize) -> Cell {
    let latency = verdict.percentile(percent);
    Cell::new(latency.map_or("-".into(), |latency| {
        format!("{:.1} ms", latency.as_secs_f64() * 1e3)
    }))
}

/// A look at each relay's metrics.
pub fn metrics(results: &[Results]) {
    for results in results {
        println!(
            "\nThe relay to {} says of itself (/metrics, an extract):",
            results.title
        );
        for line in METRICS.iter().flat_map(|name| results.metrics.lines(name)) {
            println!("  {line}");
        }
    }
}

/// All is well.
pub fn kept(took: Duration) {
    println!(
        "\nAs promised: nothing lost, nothing made up, each key in order. {:.0} s.",
        took.as_secs_f64()
    );
}
