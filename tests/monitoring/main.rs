//! `deploy/monitoring`: rules, runbook and dashboard, checked by the tools that read them, and on a real
//! relay that a real Prometheus scrapes.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod live;
mod prometheus;
