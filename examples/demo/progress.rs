//! How far the demo is: bars on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use tokio::{task::JoinHandle, time::interval};

use crate::shop::Counts;

/// Shown until it is dropped.
pub struct Progress(JoinHandle<()>);

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Shows the progress of each sink.
pub fn show(sinks: Vec<(&'static str, Arc<Counts>)>, orders: u32) -> Progress {
    Progress(if std::io::stderr().is_terminal() {
        tokio::spawn(bars(sinks, orders))
    } else {
        tokio::spawn(lines(sinks))
    })
}

async fn bars(sinks: Vec<(&'static str, Arc<Counts>)>, orders: u32) {
    let style = ProgressStyle::with_template(
        "{prefix:10} {bar:30} {human_pos:>6}/{human_len} orders, {msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let all = MultiProgress::new();
    // Cleared when this future is dropped.
    let shown: Vec<(Bar, Arc<Counts>)> = (sinks.into_iter())
        .map(|(name, counts)| {
            let bar = all.add(ProgressBar::new(orders.into()).with_style(style.clone()));
            (Bar(bar.with_prefix(name)), counts)
        })
        .collect();
    let mut turns = interval(Duration::from_millis(100));
    loop {
        turns.tick().await;
        for (Bar(bar), counts) in &shown {
            bar.set_position(counts.orders.load(Ordering::Relaxed));
            bar.set_message(received(counts));
        }
    }
}

struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn lines(sinks: Vec<(&'static str, Arc<Counts>)>) {
    let mut turns = interval(Duration::from_secs(5));
    turns.tick().await;
    loop {
        turns.tick().await;
        let all = sinks.iter().map(|(name, counts)| {
            let orders = HumanCount(counts.orders.load(Ordering::Relaxed));
            format!("{name}: {orders} orders, {}", received(counts))
        });
        println!("{}", all.collect::<Vec<_>>().join("; "));
    }
}

fn received(counts: &Counts) -> String {
    let received = HumanCount(counts.received.load(Ordering::Relaxed));
    let events = HumanCount(counts.events.load(Ordering::Relaxed));
    format!("{received} of {events} events received")
}
