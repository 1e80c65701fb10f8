//! The promise, shown on real servers: `make demo`.
//!
//! A shop commits orders to two databases (and rolls some back on purpose) while two relays run, one
//! to Kafka and one to RabbitMQ. Consumers read everything back meanwhile. What arrived is then held
//! against the writers' own journal, figure by figure.

#[path = "../common/mod.rs"]
mod common;
mod consumer;
mod kafka;
mod leg;
mod metrics;
mod progress;
mod rabbitmq;
mod report;
mod shop;
mod verdict;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::Parser;

use crate::{
    common::{Failure, broker::Broker, relay, servers::Servers, suffix, unless_interrupted},
    leg::Leg,
    shop::Traffic,
};

/// Shows outboxd at work: orders committed to PostgreSQL, relayed to Kafka and to RabbitMQ.
#[derive(Parser)]
struct Demo {
    /// The outboxd binary [default: the one built beside this]
    #[arg(long, value_name = "PATH")]
    relay: Option<PathBuf>,

    /// Orders to commit, for each sink
    #[arg(long, value_name = "COUNT", default_value_t = 20_000)]
    orders: u32,

    /// Orders a second, for each sink: low enough to measure latency rather than a full machine
    #[arg(long, value_name = "RATE", default_value_t = 550, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    #[command(flatten)]
    servers: Servers,
}

#[tokio::main]
async fn main() -> ExitCode {
    let demo = Demo::parse();
    let legs = demo.legs();
    let mut failures = match unless_interrupted(Box::pin(demo.show(&legs))).await {
        Ok(failures) => failures,
        Err(error) => vec![error.to_string()],
    };
    for leg in &legs {
        let cleaned = unless_interrupted(leg.clean_up()).await;
        // After a failure there may be nothing to remove, or nobody to ask for it.
        if let (Err(error), true) = (cleaned, failures.is_empty()) {
            failures.push(format!("{}: cleaning up: {error}", leg.broker.title()));
        }
    }
    for leg in &legs {
        leg.close_log(!failures.is_empty());
    }
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    common::report::failed(&failures);
    ExitCode::FAILURE
}

impl Demo {
    fn legs(&self) -> [Leg; 2] {
        let suffix = suffix();
        let brokers = [
            Broker::Kafka(self.servers.kafka_brokers.clone()),
            Broker::Rabbitmq(self.servers.rabbitmq_url.clone()),
        ];
        brokers.map(|broker| Leg::new(broker, &self.servers.postgres_url, &suffix))
    }

    /// The whole demo; gives what is not as promised.
    async fn show(&self, legs: &[Leg; 2]) -> Result<Vec<String>, Failure> {
        let outboxd = relay::binary(self.relay.as_deref())?;
        let traffic = Traffic {
            orders: self.orders,
            rate: self.rate,
        };
        report::introduction(&traffic);

        let began = Instant::now();
        let [kafka, rabbitmq] = legs;
        let (kafka, rabbitmq) = tokio::try_join!(kafka.start(&outboxd), rabbitmq.start(&outboxd))?;
        let progress = progress::show(legs.iter().map(Leg::progress).collect(), traffic.orders);
        let results = tokio::try_join!(kafka.run(&traffic), rabbitmq.run(&traffic));
        drop(progress);
        let (kafka, rabbitmq) = results?;

        let results = [kafka, rabbitmq];
        report::table(&results);
        report::metrics(&results);
        let failures: Vec<String> = results.iter().flat_map(leg::Results::failures).collect();
        if failures.is_empty() {
            report::kept(began.elapsed());
        }
        Ok(failures)
    }
}
