//! What the suite needs of a sink's lab, and the messages it sends.

use crate::common::sending::Sending as _;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use outboxd::{
    event::Message,
    sink::{Outcome, Scope, Sink, Unavailable},
};

/// How the suite uses a broker.
#[async_trait]
pub trait Lab: Send + Sync + 'static {
    /// Whether a message without a payload arrives as one with an empty payload.
    const NULL_IS_EMPTY: bool;

    /// The broker that `make test` started.
    async fn shared() -> Self;
    /// A broker of one's own, for `stop` and `start`.
    async fn private() -> Self;
    /// A broker, and a destination where it refuses larger messages.
    async fn limited(max_bytes: usize) -> (Self, String)
    where
        Self: Sized;
    fn sink(&self, publish_timeout: Duration) -> Arc<dyn Sink>;
    /// A name for a destination that is not there.
    fn new_name(&self) -> String;
    async fn create(&self, destination: &str);
    fn illegal_destination(&self) -> String;
    /// All a consumer of the destination sees from its beginning, messages of a key in their order.
    async fn read(&self, destination: &str) -> Vec<Seen>;
    fn stop(&self);
    /// Stops the broker as a power cut does.
    fn kill(&self);
    fn start(&self);
}

/// A message as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub key: Option<String>,
    pub event_type: String,
    pub content_type: String,
    pub headers: Vec<(String, String)>,
    pub payload: Option<Vec<u8>>,
    pub timestamp_ms: i64,
}

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Message number `n` of a key; its id says both.
pub fn message(destination: &str, key: &str, n: usize) -> Message {
    Message {
        id: format!("{key}/{n}"),
        destination: destination.to_owned(),
        key: Some(key.to_owned()),
        event_type: "Counted".into(),
        content_type: "application/json".into(),
        headers: Vec::new(),
        payload: Some(format!("{{\"n\":{n}}}").into_bytes()),
        timestamp_ms: 1_700_000_000_000 + i64::try_from(n).unwrap(),
    }
}

/// A message that does not get smaller by compression.
pub fn large(destination: &str, key: &str, n: usize, bytes: usize) -> Message {
    let mut state = 0x9e37_79b9_u32;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    });
    Message {
        payload: Some(noise.take(bytes).collect()),
        ..message(destination, key, n)
    }
}

/// `per_key` messages of each of `keys` keys, keys interleaved.
pub fn messages(destination: &str, keys: usize, per_key: usize) -> Vec<Message> {
    let number = |n| (0..keys).map(move |key| message(destination, &format!("k{key}"), n));
    (0..per_key).flat_map(number).collect()
}

/// Publishes as the relay does: settles each key's run, gives up what is rejected, and goes on
/// until nothing is left. Returns what was charged, by id.
pub async fn deliver(sink: &dyn Sink, messages: &[Message]) -> HashMap<String, Outcome> {
    let mut pending = messages.to_vec();
    let mut charged = HashMap::new();
    let start = Instant::now();
    while !pending.is_empty() {
        assert!(start.elapsed() < 9 * PATIENCE, "{} left", pending.len());
        let outcomes = sink.send(&pending).await;
        assert_eq!(outcomes.len(), pending.len());
        let mut failed = HashSet::new();
        let mut left = Vec::new();
        for (message, outcome) in pending.into_iter().zip(outcomes) {
            let lane = (message.destination.clone(), message.key.clone());
            match outcome {
                Outcome::Published if !failed.contains(&lane) => continue,
                Outcome::Rejected(_) => {
                    charged.insert(message.id, outcome);
                    continue;
                }
                Outcome::Transient(_) => {
                    charged.insert(message.id.clone(), outcome);
                }
                _ => {}
            }
            failed.extend(message.key.is_some().then_some(lane));
            left.push(message);
        }
        pending = left;
    }
    charged
}

/// The first occurrences of each key's messages, in the order seen.
pub fn first_occurrences(seen: &[Seen]) -> HashMap<Option<String>, Vec<usize>> {
    let mut known = HashSet::new();
    let mut numbers: HashMap<_, Vec<usize>> = HashMap::new();
    for seen in seen.iter().filter(|seen| known.insert(&seen.id)) {
        let number = seen.id.rsplit('/').next().unwrap().parse().unwrap();
        numbers.entry(seen.key.clone()).or_default().push(number);
    }
    numbers
}

pub fn all_published(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|o| *o == Outcome::Published)
}

/// The outcome as one that pauses that much, and charges nobody.
pub fn unavailable(outcome: &Outcome, scope: Scope) -> &Unavailable {
    match outcome {
        Outcome::Unavailable(unavailable) if unavailable.scope == scope => unavailable,
        other => panic!("{other:?}"),
    }
}
