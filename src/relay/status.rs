//! What the status page is told: the metrics, a few minutes of them, and what upkeep saw last.
//!
//! # Design notes
//! * Asking costs nothing but memory: no request waits for the database or the broker. Upkeep, which
//!   stands in nobody's way, looks at lanes and failures while somebody watches, and only then: once a
//!   second at most, whatever the number of viewers, and a fiftieth of its time at most.
//! * The history is the relay's, not the browser's: whoever opens the page in the middle of trouble
//!   sees how it began.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Relay;
use crate::{
    lock::lock,
    outbox::{LANES, Sample},
};

/// The history: so many points, so far apart.
const POINTS: usize = 300;
const EVERY: Duration = Duration::from_secs(1);
/// A page asks every second; nobody watches when none has asked for this long.
const WATCHED_FOR: Duration = Duration::from_secs(5);
/// Paused destinations that are listed.
const PAUSED: usize = 24;

/// What is remembered for the page.
pub(super) struct Watch {
    watched_at: Mutex<Option<Instant>>,
    /// Somebody began to watch.
    pub(super) began: Notify,
    history: Mutex<VecDeque<Point>>,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy)]
struct Point {
    at: Instant,
    lag: Duration,
    pending: i64,
    published: u64,
}

#[derive(Default)]
struct Seen {
    sample: Sample,
    scene: Option<(Value, Instant)>,
    scene_trouble: Option<String>,
    database_trouble: Option<String>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            watched_at: Mutex::default(),
            began: Notify::new(),
            history: Mutex::new(VecDeque::with_capacity(POINTS)),
            seen: Mutex::default(),
        }
    }

    /// Whether anybody looks at the page.
    pub(super) fn is_watched(&self) -> bool {
        lock(&self.watched_at).is_some_and(|at| at.elapsed() < WATCHED_FOR)
    }

    fn watched(&self) {
        let was_watched = self.is_watched();
        *lock(&self.watched_at) = Some(Instant::now());
        if !was_watched {
            self.began.notify_one();
        }
    }

    pub(super) fn sampled(&self, sample: Sample) {
        lock(&self.seen).sample = sample;
    }

    pub(super) fn saw(&self, scene: Value) {
        let mut seen = lock(&self.seen);
        seen.scene = Some((scene, Instant::now()));
        seen.scene_trouble = None;
    }

    pub(super) fn saw_nothing(&self, why: String) {
        lock(&self.seen).scene_trouble = Some(why);
    }

    pub(super) fn database_failed(&self, why: String) {
        lock(&self.seen).database_trouble = Some(why);
    }

    fn remember(&self, point: Point) {
        let mut history = lock(&self.history);
        if history.len() == POINTS {
            history.pop_front();
        }
        history.push_back(point);
    }

    /// `[seconds ago, lag, pending events, published a second]`, oldest first.
    fn history(&self) -> Vec<[f64; 4]> {
        let history = lock(&self.history);
        let pairs = history.iter().zip(history.iter().skip(1));
        pairs
            .map(|(before, point)| {
                let seconds = (point.at - before.at).as_secs_f64().max(0.001);
                let published = point.published.saturating_sub(before.published) as f64;
                [
                    point.at.elapsed().as_secs_f64(),
                    point.lag.as_secs_f64(),
                    point.pending as f64,
                    published / seconds,
                ]
                .map(to_thousandths)
            })
            .collect()
    }
}

fn to_thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

impl Relay {
    /// Adds to the history every second.
    pub(super) async fn keep_history(self: Arc<Self>, done: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = done.cancelled() => return,
            }
            self.watch.remember(Point {
                at: Instant::now(),
                lag: self.metrics.lag_now(),
                pending: self.metrics.pending_events.get(),
                published: self.metrics.published_total().get(),
            });
        }
    }

    /// How things stand, for the status page. Asking counts as watching.
    pub fn status(&self) -> Value {
        self.watch.watched();
        let (metrics, seen) = (&self.metrics, lock(&self.watch.seen));
        let database_up = metrics.database_up.get() != 0;
        let waiting = (0..LANES).filter(|lane| seen.sample.lanes & (1 << lane) != 0);
        let mut paused = self.health.paused_with_reasons();
        paused.sort_unstable();
        paused.truncate(PAUSED);
        json!({
            "instance": self.settings.instance,
            "version": env!("CARGO_PKG_VERSION"),
            "table": self.outbox.names().display(),
            "ordering": self.outbox.ordering().as_str(),
            "sink": {
                "name": self.sink.name(),
                "trouble": self.health.sink_down(),
                "blocked": metrics.sink_blocked.get() != 0,
            },
            "database": {
                "up": database_up,
                "trouble": seen.database_trouble.as_ref().filter(|_| !database_up),
            },
            "owing": *self.debts.borrow() > 0,
            "careful": self.careful.is_on(),
            "lag_seconds": to_thousandths(metrics.lag_now().as_secs_f64()),
            "pending_events": metrics.pending_events.get(),
            "retrying_events": seen.sample.retrying_events,
            "held_keys": metrics.held_keys.get(),
            "dead_letters": metrics.dead_letters.get(),
            "in_flight_events": metrics.in_flight_events.get(),
            "published_total": metrics.published_total().get(),
            "published_seconds": metrics.since_publish().map(|since| since.as_secs()),
            "paused": paused,
            "lanes_waiting": waiting.collect::<Vec<_>>(),
            "history": self.watch.history(),
            "scene": seen.scene.as_ref().map(|(scene, _)| scene),
            "scene_seconds": seen.scene.as_ref().map(|(_, at)| to_thousandths(at.elapsed().as_secs_f64())),
            "scene_trouble": seen.scene_trouble,
        })
    }
}
