//! Sinks: where events go.
//!
//! A sink never knows of the database. It is given a batch, sends it, and answers for each message
//! with one [`Outcome`]; what follows from the answers is decided elsewhere (`settlement`).

pub mod config;
pub mod kafka;
pub mod rabbitmq;
pub mod stdout;

use async_trait::async_trait;

use crate::event::Message;

/// Where events go. Implementations keep the order of the slice for messages of one
/// (destination, key), and several tasks publish through one sink at once.
///
/// The promise rests on two duties of `publish`:
/// * it returns within the publish timeout it was built with, whatever the broker does;
/// * per (destination, key) the messages it sends are an unbroken run from the first one given:
///   once one of them failed, later ones of its key that were not sent yet are `Withheld`.
///   (Those sent already keep their own outcome: the relay settles only the run before the failure.)
#[async_trait]
pub trait Sink: Send + Sync {
    /// The label of this sink in metrics and logs: `kafka`, `rabbitmq`, `stdout`.
    fn name(&self) -> &'static str;

    /// Publishes a batch and waits for the broker's confirms: outcome `i` belongs to `messages[i]`.
    async fn publish(&self, messages: &[&Message]) -> Vec<Outcome>;

    /// Asks the broker whether it can be used at all; drives the breaker and readiness.
    async fn probe(&self) -> Result<(), Unavailable>;

    /// Asks whether one destination can be published to, without publishing; ends its pause.
    /// `Ok` also where that cannot be known beforehand (a routing key on an exchange).
    async fn probe_destination(&self, destination: &str) -> Result<(), Unavailable>;

    /// Whether the broker itself asked publishers to stop for now (RabbitMQ's `connection.blocked`).
    fn blocked(&self) -> bool {
        false
    }

    /// Bytes above which no message can pass, whatever the broker's own limit: rows beyond it are
    /// not even fetched.
    fn max_message_bytes(&self) -> usize;

    /// Lets go of connections, at shutdown. Nothing is in flight any more.
    async fn close(&self) {}
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The broker confirmed it: it is as durable as the broker makes it.
    Published,
    /// The broker, or this destination, cannot be used now, or no answer came. Nobody is charged.
    /// The message may have arrived all the same.
    Unavailable(Unavailable),
    /// The broker refused this message alone, this time. An attempt is charged.
    Transient(Reason),
    /// The broker refused this message alone, for good, or it cannot be sent at all.
    Rejected(Reason),
    /// Not tried, or its predecessor failed. Nobody is charged.
    Withheld,
}

/// Why the broker or a destination cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unavailable {
    /// How much of the broker is meant.
    pub scope: Scope,
    /// What the broker or the client said, with the remedy where there is one. No secrets.
    pub detail: String,
}

/// How far an [`Unavailable`] reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole broker: nothing can be published.
    Sink,
    /// The destination of this message: unknown, unroutable, or not permitted. Others go on.
    Destination,
}

impl Unavailable {
    /// The broker as a whole cannot be used.
    pub fn sink(detail: impl Into<String>) -> Self {
        Self {
            scope: Scope::Sink,
            detail: detail.into(),
        }
    }

    /// One destination cannot be used.
    pub fn destination(detail: impl Into<String>) -> Self {
        Self {
            scope: Scope::Destination,
            detail: detail.into(),
        }
    }
}

/// Why one event failed, for people (`detail`) and for the metric's label (`kind`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", kind.as_str())]
pub struct Reason {
    /// One of a fixed few.
    pub kind: ReasonKind,
    /// What happened, in words. No payloads, no secrets.
    pub detail: String,
}

impl Reason {
    /// A reason of that kind.
    pub fn new(kind: ReasonKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}

/// The fixed few reasons: the label `reason` of `outboxd_dead_lettered_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReasonKind {
    /// Larger than the broker, the topic or the client takes.
    TooLarge,
    /// It breaks the message contract: headers, names, a routing key over 255 bytes.
    Invalid,
    /// No such topic, exchange or queue, under `--on-unroutable dead`.
    Unroutable,
    /// The broker said no to this message (a nack, a policy).
    Refused,
    /// The relay died each time it tried.
    Crashed,
}

impl ReasonKind {
    /// Every kind, so that each metric label is there from the start.
    pub const ALL: [Self; 5] = [
        Self::TooLarge,
        Self::Invalid,
        Self::Unroutable,
        Self::Refused,
        Self::Crashed,
    ];

    /// The label's value, and what `outbox_failures.reason` begins with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::Unroutable => "unroutable",
            Self::Refused => "refused",
            Self::Crashed => "crashed",
        }
    }
}
