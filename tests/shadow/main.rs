//! `outboxd shadow`, and the guide to a cut-over: another relay at work on the table, real servers.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod cut_over;
mod debezium;
mod differences;
mod poller;
mod refusals;
mod scene;
