//! Exactly-once effects: idempotency keys and inbox, as any language uses them, and their clean-up.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "tests; a failure here is a panic"
)]

#[path = "../common/mod.rs"]
mod common;

mod cleaning;
mod consumers;
mod edges;
mod inbox;
mod keys;
mod lab;
mod making;
