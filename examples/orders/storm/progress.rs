//! How far the storm is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::{task::JoinHandle, time::interval};

use super::clients::Counts;

/// Shown until it is dropped.
pub struct Progress {
    task: JoinHandle<()>,
    bar: ProgressBar,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

/// Shows the progress of the clients.
pub fn show(title: &'static str, counts: Arc<Counts>, intents: u32) -> Progress {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(intents.into())
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template(
        "{prefix:10} {bar:30} {human_pos:>6}/{human_len} intents, {msg}",
    );
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(title);
    let shown = bar.clone();
    let task = tokio::spawn(async move {
        let pause = if shown.is_hidden() { 10_000 } else { 100 };
        let mut turns = interval(Duration::from_millis(pause));
        turns.tick().await;
        loop {
            turns.tick().await;
            let done = counts.done.load(Ordering::Relaxed);
            let sent = HumanCount(counts.sent.load(Ordering::Relaxed).into());
            shown.set_position(done.into());
            shown.set_message(format!("{sent} requests"));
            if shown.is_hidden() {
                println!(
                    "{title}: {} intents, {sent} requests",
                    HumanCount(done.into())
                );
            }
        }
    });
    Progress { task, bar }
}
