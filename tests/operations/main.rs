//! The operational commands, on a real PostgreSQL, mostly with the shipped binary.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod check;
mod dead;
mod grants;
mod inspect;
mod instances;
mod lab;
mod look;
mod migrate;
mod preset;
mod privileges;
mod proposals;
mod prune;
mod sample;
