//! Tables that somebody else made: the promise holds on them, and a mapping that does not fit is refused.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::float_cmp,
    reason = "tests; metrics that count are whole numbers"
)]

#[path = "../common/mod.rs"]
mod common;

/// Runs tests on each broker, each under its own name.
macro_rules! on_each_broker {
    ($($test:ident),* $(,)?) => {
        mod kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                Box::pin(super::$test(crate::common::broker::Kind::Kafka)).await;
            })*
        }
        mod rabbitmq {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                Box::pin(super::$test(crate::common::broker::Kind::Rabbitmq)).await;
            })*
        }
    };
}

mod lab;
mod messages;
mod order;
mod wrong;
