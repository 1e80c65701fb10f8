//! Presets: other systems' tables as those systems make and fill them, relayed to both brokers.
//!
//! The tables are in `tables/`, with the columns, types, defaults and constraints of the systems' own DDL;
//! each preset's file says where that is.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::needless_raw_string_hashes,
    reason = "tests; and rows that are quoted alike are read more easily"
)]

#[path = "../common/mod.rs"]
mod common;

mod advice;
mod arrival;
mod deleted;
mod elsewhere;
mod marked;
mod scene;
