//! The example in a small storm, for each broker; `make demo-orders` is the large one.

use std::process::Command;

use crate::lab::example;

fn storm(broker: &str) {
    let outboxd = env!("CARGO_BIN_EXE_outboxd");
    let arguments = [
        "storm",
        "--intents",
        "300",
        "--seed",
        "5",
        "--broker",
        broker,
        "--relay",
        outboxd,
    ];
    let output = Command::new(example()).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn through_kafka_each_order_is_placed_and_paid_once() {
    storm("kafka");
}

#[test]
fn through_rabbitmq_each_order_is_placed_and_paid_once() {
    storm("rabbitmq");
}
