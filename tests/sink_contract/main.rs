//! What every sink owes the relay, tried on real brokers.
//!
//! `suite` knows no broker; a sink's lab tells it how to make destinations, read them and upset the
//! broker. Each sink runs the whole suite: `contract!(kafka, KafkaLab)`.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod kafka_lab;
mod kafka_producer;
mod kafka_security;
mod kafka_topics;
mod lab;
mod rabbitmq_lab;
#[macro_use]
mod suite;

contract!(kafka, crate::kafka_lab::KafkaLab);
contract!(rabbitmq, crate::rabbitmq_lab::RabbitmqLab);
