//! Tables that somebody else made: the promise holds on them, and a mapping that does not fit is refused.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::float_cmp,
    reason = "tests; metrics that count are whole numbers"
)]

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod lab;
mod messages;
mod order;
mod wrong;
