//! Exactly-once effects: idempotency keys and inbox, as any language uses them, and their clean-up.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "tests; a failure here is a panic"
)]

#[path = "../common/mod.rs"]
mod common;

#[macro_use]
mod lab;

mod cleaning;
mod consumers;
mod edges;
mod http;
mod inbox;
mod keys;
mod making;
mod storm;
