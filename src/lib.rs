//! A relay for the transactional outbox: PostgreSQL to Kafka or RabbitMQ.
//!
//! # The way of one event
//!
//! A service inserts a row into the outbox table and commits. A [`relay`] worker looks there: short
//! waits while there is traffic, up to `--poll-interval` while there is none, cut short by a wake-up.
//!
//! It **claims** ([`outbox`]): one transaction that finds *lanes* (hashes of the key) with work, takes
//! some of them by advisory lock, and then the oldest pending rows of those lanes with `for update skip
//! locked`. A lane is worked on by one claim at a time, anywhere, so no other replica can send a later
//! event of the key meanwhile. Each row becomes an [`event`], its message ready to be sent.
//!
//! It **publishes** ([`sink`]): made CloudEvents first if so set ([`cloudevents`]), the batch goes to Kafka or RabbitMQ, which answers for each message
//! with an outcome: confirmed, refused, or no answer.
//!
//! It **settles**: [`settlement`] decides, purely, what follows from the outcomes: which rows are
//! published (each key's run before its first failure), which event is charged with a failure and when
//! it is tried again ([`retry`]), whether the sink or a destination is to be left alone for a while
//! ([`breaker`]). The rows are marked, the failures written, and the transaction commits; the locks go
//! with it. If the process dies before that, PostgreSQL rolls back and somebody else sends the same
//! run again: duplicates with the same ids, never an inversion.
//!
//! *Every sender sends, per key, an unbroken run that starts at the first unsettled event, so the first
//! arrivals in the merged streams are in order.* Nothing may break that.
//!
//! Around it: [`metrics`] and [`http`] show what happens, [`cli`] is how people speak to it, and
//! [`settings`] how they configure it. Dependencies point one way:
//!
//! ```text
//! main → cli → relay → { outbox, sink, settlement, retry, breaker, metrics }      outbox, sink → event
//! ```
//!
//! [`shadow`] rehearses: it compares what another relay sends with what would be sent here.
//!
//! Every SQL statement lives in `outbox`, which knows no broker; a sink knows no database. Design
//! notes stand at the head of the module they are about: the claim's in `outbox::claim`, floors in
//! `outbox::floors`, connections in `outbox::session`, workers in `relay::worker`, each sink's in its own.

#[macro_use]
pub mod defects;

pub mod breaker;
pub mod cli;
pub mod cloudevents;
pub mod event;
pub mod http;
mod lock;
pub mod mapping;
pub mod metrics;
pub mod outbox;
pub mod relay;
pub mod retry;
pub mod settings;
pub mod settlement;
pub mod shadow;
pub mod sink;
pub mod template;
