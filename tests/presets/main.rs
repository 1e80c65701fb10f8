//! Presets: other systems' tables as those systems make and fill them, relayed to both brokers.
//!
//! The tables are in `tables/`, with the columns, types, defaults and constraints of the systems' own DDL;
//! each preset's file says where that is.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod advice;
mod arrival;
mod deleted;
mod elsewhere;
mod marked;
mod scene;
