//! The promise, word by word, on real servers with the shipped binary.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::float_cmp,
    clippy::similar_names,
    reason = "tests; metrics that count are whole numbers"
)]

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod failures;
mod input;
mod order;
mod outages;
mod replicas;
