//! The metrics of the contract: names, help, and one function per thing that happens.
//!
//! Base units, the prefix `outboxd_`, no ids, keys or payloads in labels. All are there from the
//! start at zero, so that a rate's first increase is not lost and an alert can tell "none" from "gone".

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::lock::lock;
use crate::sink::{Outcome, ReasonKind};

const LATENCY_BUCKETS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
];
const BATCH_BUCKETS: [f64; 12] = [
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 5000.0,
];
const OUTCOMES: [&str; 5] = [
    "published",
    "unavailable",
    "transient",
    "rejected",
    "withheld",
];
/// Every operation that a database error may be counted under.
const OPERATIONS: [&str; 17] = [
    "begin",
    "claim",
    "clean",
    "commit",
    "connect",
    "decode",
    "describe",
    "heartbeat",
    "listen",
    "prune",
    "register",
    "rollback",
    "sample",
    "scene",
    "settle",
    "trial",
    "verify",
];

/// All metrics of a relay.
pub struct Metrics {
    registry: Registry,
    sink: &'static str,
    lag: Gauge,
    lag_sample: Mutex<LagSample>,
    /// Events pending.
    pub pending_events: IntGauge,
    /// Distinct keys held back by a failure.
    pub held_keys: IntGauge,
    /// Dead letters.
    pub dead_letters: IntGauge,
    /// Destinations this relay has paused.
    pub paused_destinations: IntGauge,
    /// Events between claim and settlement.
    pub in_flight_events: IntGauge,
    /// Whether the sink can be used.
    pub sink_up: IntGauge,
    /// Whether the broker asked publishers to stop.
    pub sink_blocked: IntGauge,
    /// Whether the database can be used.
    pub database_up: IntGauge,
    /// How long ago what was pruned last should have been pruned.
    pub prune_lag: Gauge,
    /// Insert to confirm.
    pub delivery_latency: Histogram,
    /// Of claims that found work.
    pub claim_duration: Histogram,
    /// Of a batch.
    pub publish_duration: Histogram,
    /// Of a batch.
    pub settle_duration: Histogram,
    /// Events per batch.
    pub batch_events: Histogram,
    last_publish_timestamp: Gauge,
    published: IntCounterVec,
    attempts: IntCounterVec,
    retries: IntCounterVec,
    dead_lettered: IntCounterVec,
    database_errors: IntCounterVec,
    pruned: IntCounterVec,
}

struct LagSample {
    lag: Duration,
    at: Instant,
    failing: bool,
}

impl Metrics {
    /// Registers everything, at zero.
    ///
    /// # Errors
    /// Only when a name is registered twice: a bug.
    #[expect(clippy::too_many_lines, reason = "a list")]
    pub fn new(sink: &'static str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            sink,
            lag: gauge(
                r,
                "lag_seconds",
                "Age of the oldest event that waits to be published, by the database's clock; dead letters, discarded events and what dead letters hold do not count.",
            )?,
            lag_sample: Mutex::new(LagSample {
                lag: Duration::ZERO,
                at: Instant::now(),
                // Until the first sample: the database may be away from the start.
                failing: true,
            }),
            pending_events: int_gauge(
                r,
                "pending_events",
                "Events waiting to be published; an estimate above 100,000.",
            )?,
            held_keys: int_gauge(
                r,
                "held_keys",
                "Keys whose events wait behind a failed one.",
            )?,
            dead_letters: int_gauge(
                r,
                "dead_letters",
                "Events given up on, until they are retried or discarded.",
            )?,
            paused_destinations: int_gauge(
                r,
                "paused_destinations",
                "Destinations this relay does not publish to at the moment.",
            )?,
            in_flight_events: int_gauge(
                r,
                "in_flight_events",
                "Events claimed and not yet settled.",
            )?,
            sink_up: int_gauge(r, "sink_up", "1 while the broker can be used.")?,
            sink_blocked: int_gauge(
                r,
                "sink_blocked",
                "1 while the broker itself asks publishers to stop.",
            )?,
            database_up: int_gauge(r, "database_up", "1 while the database can be used.")?,
            prune_lag: gauge(
                r,
                "prune_lag_seconds",
                "How long past the retention the rows were that pruning deleted last; 0 when none was due, or another relay prunes.",
            )?,
            delivery_latency: histogram(
                r,
                "delivery_latency_seconds",
                "From the insert of an event (created_at) to the broker's confirm.",
                &LATENCY_BUCKETS,
            )?,
            claim_duration: histogram(
                r,
                "claim_duration_seconds",
                "Of claims that found events.",
                &LATENCY_BUCKETS,
            )?,
            publish_duration: histogram(
                r,
                "publish_duration_seconds",
                "From giving a batch to the sink to its last answer.",
                &LATENCY_BUCKETS,
            )?,
            settle_duration: histogram(
                r,
                "settle_duration_seconds",
                "Of marking a batch, commit included.",
                &LATENCY_BUCKETS,
            )?,
            batch_events: histogram(r, "batch_events", "Events per batch.", &BATCH_BUCKETS)?,
            last_publish_timestamp: gauge(
                r,
                "last_publish_timestamp_seconds",
                "When an event was last published; 0 if not since the start.",
            )?,
            published: counters(
                r,
                "published_total",
                "Events confirmed by the broker and settled.",
                "sink",
                &[sink],
            )?,
            attempts: {
                let opts = Opts::new(
                    "publish_attempts_total",
                    "Answers of the sink, one per event and attempt.",
                )
                .namespace("outboxd");
                let attempts = IntCounterVec::new(opts, &["sink", "outcome"])?;
                r.register(Box::new(attempts.clone()))?;
                for outcome in OUTCOMES {
                    attempts.with_label_values(&[sink, outcome]);
                }
                attempts
            },
            retries: counters(
                r,
                "retries_total",
                "Attempts to publish an event that had failed before.",
                "sink",
                &[sink],
            )?,
            dead_lettered: counters(
                r,
                "dead_lettered_total",
                "Events given up on.",
                "reason",
                &ReasonKind::ALL.map(ReasonKind::as_str),
            )?,
            database_errors: counters(
                r,
                "database_errors_total",
                "Failed database operations.",
                "operation",
                &OPERATIONS,
            )?,
            pruned: counters(
                r,
                "pruned_total",
                "Rows deleted by pruning.",
                "table",
                &["outbox", "outbox_failures", "idempotency_keys", "inbox"],
            )?,
            registry: registry.clone(),
        };
        let build = Opts::new("build_info", "1; the labels say what runs.")
            .namespace("outboxd")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        registry.register(Box::new(build))?;
        Ok(metrics)
    }

    /// The exposition format, lag as of now.
    ///
    /// # Errors
    /// When encoding fails: a bug.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        self.lag.set(self.lag_now().as_secs_f64());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The lag: as sampled, and growing by the time that passes while sampling fails. Never frozen.
    pub fn lag_now(&self) -> Duration {
        let sample = lock(&self.lag_sample);
        if sample.failing {
            sample.lag + sample.at.elapsed()
        } else {
            sample.lag
        }
    }

    /// A sample of the lag; `None` when it could not be taken.
    pub fn sampled_lag(&self, lag: Option<Duration>) {
        let mut sample = lock(&self.lag_sample);
        match lag {
            Some(lag) => {
                *sample = LagSample {
                    lag,
                    at: Instant::now(),
                    failing: false,
                }
            }
            None => sample.failing = true,
        }
    }

    /// What the sink answered, and how many of the batch had failed before.
    pub fn answered(&self, outcomes: &[Outcome], retried: usize) {
        let mut counts = [0_u64; OUTCOMES.len()];
        for outcome in outcomes {
            counts[match outcome {
                Outcome::Published => 0,
                Outcome::Unavailable(_) => 1,
                Outcome::Transient(_) => 2,
                Outcome::Rejected(_) => 3,
                Outcome::Withheld => 4,
            }] += 1;
        }
        for (outcome, count) in OUTCOMES.iter().zip(counts) {
            self.attempts
                .with_label_values(&[self.sink, outcome])
                .inc_by(count);
        }
        self.retries
            .with_label_values(&[self.sink])
            .inc_by(retried as u64);
    }

    /// Events published and settled.
    pub fn published(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.published_total().inc_by(count as u64);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.last_publish_timestamp
            .set(now.map_or(0.0, |now| now.as_secs_f64()));
    }

    /// The counter of published events.
    pub fn published_total(&self) -> IntCounter {
        self.published.with_label_values(&[self.sink])
    }

    /// How long ago an event was published; `None` if not since the start.
    pub fn since_publish(&self) -> Option<Duration> {
        let at = Duration::from_secs_f64(self.last_publish_timestamp.get().max(0.0));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        (!at.is_zero()).then(|| now.unwrap_or_default().saturating_sub(at))
    }

    /// An event was given up on.
    pub fn dead_lettered(&self, kind: ReasonKind) {
        self.dead_lettered.with_label_values(&[kind.as_str()]).inc();
    }

    /// A database operation failed.
    pub fn database_error(&self, operation: &str) {
        self.database_errors.with_label_values(&[operation]).inc();
    }

    /// Rows were deleted by pruning.
    pub fn pruned(&self, table: &str, rows: u64) {
        self.pruned.with_label_values(&[table]).inc_by(rows);
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    let gauge = Gauge::with_opts(Opts::new(name, help).namespace("outboxd"))?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn int_gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::with_opts(Opts::new(name, help).namespace("outboxd"))?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> Result<Histogram, prometheus::Error> {
    let opts = HistogramOpts::new(name, help)
        .namespace("outboxd")
        .buckets(buckets.to_vec());
    let histogram = Histogram::with_opts(opts)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let counters = IntCounterVec::new(Opts::new(name, help).namespace("outboxd"), &[label])?;
    registry.register(Box::new(counters.clone()))?;
    for value in values {
        counters.with_label_values(&[value]);
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_grows_until_it_is_sampled_and_while_it_cannot_be() {
        let metrics = Metrics::new("stdout").unwrap();
        let grows = |metrics: &Metrics| {
            let before = metrics.lag_now();
            std::thread::sleep(Duration::from_millis(2));
            metrics.lag_now() > before
        };
        assert!(grows(&metrics));
        metrics.sampled_lag(Some(Duration::from_secs(7)));
        assert!(!grows(&metrics));
        metrics.sampled_lag(None);
        assert!(grows(&metrics) && metrics.lag_now() > Duration::from_secs(7));
    }
}
