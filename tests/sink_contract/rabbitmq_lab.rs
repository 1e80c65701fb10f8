//! RabbitMQ, as the suite uses it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use clap::{Args as _, FromArgMatches as _};
use lapin::{message::Delivery, types::FieldTable};
use outboxd::{
    settings::Problems,
    sink::{
        Sink,
        rabbitmq::{RabbitmqArgs, RabbitmqSink},
    },
};

use crate::{
    common::{PrivateServices, env, rabbitmq, unique},
    lab::{Lab, Seen},
};

pub struct RabbitmqLab {
    url: String,
    services: Option<PrivateServices>,
}

impl RabbitmqLab {
    fn services(&self) -> &PrivateServices {
        self.services.as_ref().unwrap()
    }
}

#[async_trait]
impl Lab for RabbitmqLab {
    const NULL_IS_EMPTY: bool = true;

    async fn shared() -> Self {
        Self {
            url: env("TEST_RABBITMQ_URL"),
            services: None,
        }
    }

    async fn private() -> Self {
        let services = tokio::task::spawn_blocking(|| PrivateServices::up(&["rabbitmq"]))
            .await
            .unwrap();
        Self {
            url: services.env("TEST_RABBITMQ_URL"),
            services: Some(services),
        }
    }

    /// RabbitMQ's limit is the node's.
    async fn limited(max_bytes: usize) -> (Self, String) {
        let (lab, queue) = (Self::private().await, unique("limited"));
        let limit = format!(
            "application:set_env(rabbit, max_message_size, {max_bytes}), persistent_term:put(max_message_size, {max_bytes})."
        );
        lab.services().run(&["rabbitmqctl", "eval", &limit]);
        lab.create(&queue).await;
        (lab, queue)
    }

    fn sink(&self, publish_timeout: Duration) -> Arc<dyn Sink> {
        let command = RabbitmqArgs::augment_args(clap::Command::new("test"));
        let matches = command.get_matches_from(["test", "--rabbitmq-url", &self.url]);
        let args = RabbitmqArgs::from_arg_matches(&matches).unwrap();
        let mut problems = Problems::default();
        let config = args.validate(&mut problems);
        let config = config.unwrap_or_else(|| panic!("{:?}", problems.list()));
        Arc::new(RabbitmqSink::new(config, publish_timeout, "contract"))
    }

    fn new_name(&self) -> String {
        unique("contract")
    }

    async fn create(&self, destination: &str) {
        rabbitmq::declare(&self.url, destination, FieldTable::default()).await;
    }

    fn illegal_destination(&self) -> String {
        "r".repeat(300)
    }

    async fn read(&self, destination: &str) -> Vec<Seen> {
        let deliveries = rabbitmq::read(&self.url, destination, false).await;
        deliveries.into_iter().map(seen).collect()
    }

    fn stop(&self) {
        self.services().run(&["stop", "rabbitmq"]);
    }

    fn kill(&self) {
        self.services().run(&["kill", "rabbitmq"]);
    }

    fn start(&self) {
        self.services().run(&["start", "rabbitmq"]);
    }
}

fn seen(delivery: Delivery) -> Seen {
    let mut headers = rabbitmq::headers(&delivery);
    let key = headers
        .iter()
        .position(|(name, _)| name == "aggregate_id")
        .map(|at| headers.remove(at).1);
    let properties = &delivery.properties;
    let seconds = properties.timestamp().unwrap();
    Seen {
        id: rabbitmq::text(properties.message_id().as_ref()),
        key,
        event_type: rabbitmq::text(properties.kind().as_ref()),
        content_type: rabbitmq::text(properties.content_type().as_ref()),
        headers,
        timestamp_ms: i64::try_from(seconds).unwrap() * 1000,
        payload: Some(delivery.data),
    }
}
