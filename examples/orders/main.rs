//! A shop whose orders and payments happen exactly once, to read and to copy: see README.md.
//!
//! * `orders service` takes orders over HTTP. Requests may be repeated: an Idempotency-Key tells.
//! * `outboxd run` carries its events to Kafka or RabbitMQ.
//! * `orders payments` consumes them. Messages may be repeated: an inbox tells.
//! * `orders storm` repeats requests, kills all of these at random, and counts.

#[path = "../common/mod.rs"]
mod common;
mod database;
mod payments;
mod redis_mark;
mod service;
mod stop;
mod store;
mod storm;

use std::process::ExitCode;

use clap::Parser;

use crate::common::Failure;

/// Orders over HTTP, payments from their events: each exactly once, whatever is repeated or killed
#[derive(Parser)]
enum Orders {
    Service(service::ServiceArgs),
    Payments(payments::PaymentsArgs),
    Storm(storm::StormArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let orders = Orders::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let done = match orders {
        Orders::Service(args) => args.run().await,
        Orders::Payments(args) => args.run().await,
        Orders::Storm(args) => return args.run().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
