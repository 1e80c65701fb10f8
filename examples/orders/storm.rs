//! Everything at once: requests that are repeated, answers that are thrown away, programs that are
//! killed at random; and then the count. `make demo-orders`.

mod clients;
mod crew;
mod depth;
mod figures;
mod leg;
mod progress;
mod report;
mod scene;
mod verdict;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::{Args, ValueEnum};

use self::{crew::Binaries, leg::Leg};
use crate::common::{
    self, Failure, broker::Broker, relay, servers::Servers, suffix, unless_interrupted,
};

/// Repeat requests, throw answers away, kill programs at random, and count
#[derive(Args)]
pub struct StormArgs {
    /// The outboxd binary [default: the one built beside this]
    #[arg(long, value_name = "PATH")]
    relay: Option<PathBuf>,

    /// Orders that clients want, for each broker
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    intents: u32,

    /// Of what is drawn at random [default: drawn at random]
    #[arg(long)]
    seed: Option<u64>,

    /// Only this one
    #[arg(long, value_enum)]
    broker: Option<Only>,

    #[command(flatten)]
    servers: Servers,

    /// For one of the two services; `make demo-orders` sets it
    #[arg(long, env = "TEST_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Kafka,
    Rabbitmq,
}

impl StormArgs {
    /// The whole storm; fails when a number is wrong.
    pub async fn run(self) -> ExitCode {
        let wrong = self.rage().await;
        let wrong = wrong.unwrap_or_else(|error| vec![error.to_string()]);
        if wrong.is_empty() {
            return ExitCode::SUCCESS;
        }
        common::report::failed(&wrong);
        ExitCode::FAILURE
    }

    /// Gives what is wrong.
    async fn rage(&self) -> Result<Vec<String>, Failure> {
        let binaries = Binaries {
            outboxd: relay::binary(self.relay.as_deref())?,
            orders: std::env::current_exe()?,
        };
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        report::introduction(self.intents, seed, self.redis_url.is_some());
        let began = Instant::now();
        let (mut figures, mut wrong) = (Vec::new(), Vec::new());
        for leg in self.legs(seed)? {
            let outcome = unless_interrupted(Box::pin(leg.run(&binaries))).await;
            let removed = leg.clean_up().await;
            leg.close_logs(outcome.as_ref().is_ok_and(|of| of.wrong().is_empty()));
            let outcome = outcome.map_err(|error| format!("{}: {error}", leg.title()))?;
            removed.map_err(|error| format!("{}: cleaning up: {error}", leg.title()))?;
            wrong.extend(outcome.wrong());
            figures.push(outcome);
        }
        report::table(&figures);
        if wrong.is_empty() {
            report::kept(began.elapsed());
        }
        Ok(wrong)
    }

    fn legs(&self, seed: u64) -> Result<Vec<Leg>, Failure> {
        let suffix = suffix();
        let kafka = Broker::Kafka(self.servers.kafka_brokers.clone());
        let rabbitmq = Broker::Rabbitmq(self.servers.rabbitmq_url.clone());
        let brokers = match self.broker {
            None => vec![kafka, rabbitmq],
            Some(Only::Kafka) => vec![kafka],
            Some(Only::Rabbitmq) => vec![rabbitmq],
        };
        let legs = brokers.into_iter().map(|broker| {
            let (server, redis) = (self.servers.postgres_url.clone(), self.redis_url.clone());
            Leg::new(broker, server, redis, &suffix, self.intents, seed)
        });
        legs.collect()
    }
}
