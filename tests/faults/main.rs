//! The shipped binary under faults: of the network, of PostgreSQL, of Kafka, of RabbitMQ.
//!
//! `TABLE.md` says which test is about which of the faults that a relay meets; `table` holds it to that.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::float_cmp,
    reason = "tests; metrics that count are whole numbers"
)]

#[path = "../common/mod.rs"]
mod common;

mod database;
mod kafka;
mod network;
mod postgres;
mod proxy;
mod rabbitmq;
mod scene;
mod table;
