//! The servers that everything here runs on.

use url::Url;

/// Where they are.
#[derive(clap::Args)]
pub struct Servers {
    /// A superuser's URL; `make` sets it
    #[arg(long, env = "TEST_POSTGRES_URL", hide_env_values = true)]
    pub postgres_url: Url,

    /// As HOST:PORT; `make` sets it
    #[arg(long, env = "TEST_KAFKA_BROKERS")]
    pub kafka_brokers: String,

    /// As amqp://USER:PASSWORD@HOST:PORT/VHOST; `make` sets it
    #[arg(long, env = "TEST_RABBITMQ_URL", hide_env_values = true)]
    pub rabbitmq_url: String,
}
