//! Kafka with TLS, passwords and ACLs.

use crate::common::sending::Sending as _;
use std::time::Duration;

use outboxd::sink::{Outcome, Scope, Sink, kafka::KafkaSink};

use crate::{
    common::env,
    kafka_lab::{kafka_sink, new_topic},
    lab::{PATIENCE, all_published, deliver, messages, unavailable},
};

/// A sink of alice's over TLS.
fn alices_sink(mechanism: &str, password: &str, timeout: Duration) -> KafkaSink {
    let options = [
        "security.protocol=sasl_ssl".to_owned(),
        format!("ssl.ca.location={}", env("TEST_CA_FILE")),
        format!("sasl.mechanisms={mechanism}"),
        "sasl.username=alice".to_owned(),
        format!("sasl.password={password}"),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    kafka_sink(&env("TEST_KAFKA_SASL_BROKERS"), timeout, &options)
}

#[tokio::test]
async fn tls_works() {
    let topic = new_topic(1, &[]).await;
    let ca = format!("ssl.ca.location={}", env("TEST_CA_FILE"));
    let options = ["security.protocol=ssl", &ca];
    let sink = kafka_sink(&env("TEST_KAFKA_SSL_BROKERS"), PATIENCE, &options);
    assert_eq!(sink.probe().await, Ok(()));
    assert!(all_published(&sink.send(&messages(&topic, 2, 2)).await));
}

#[tokio::test]
async fn a_server_certificate_of_a_stranger_is_refused() {
    let options = ["security.protocol=ssl"]; // the system's authorities
    let timeout = Duration::from_secs(3);
    let sink = kafka_sink(&env("TEST_KAFKA_SSL_BROKERS"), timeout, &options);
    let detail = sink.probe().await.unwrap_err().detail;
    assert!(detail.contains("certificate"), "{detail}");
}

#[tokio::test]
async fn passwords_work_by_scram_and_by_plain() {
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        let topic = new_topic(1, &[]).await;
        let sink = alices_sink(mechanism, "alice-secret", PATIENCE);
        assert_eq!(sink.probe().await, Ok(()), "{mechanism}");
        assert!(all_published(&sink.send(&messages(&topic, 2, 2)).await));
    }
}

#[tokio::test]
async fn a_wrong_password_charges_nobody_and_is_said_without_the_password() {
    let topic = new_topic(1, &[]).await;
    let sink = alices_sink("SCRAM-SHA-256", "canary", Duration::from_secs(3));
    let outcomes = sink.send(&messages(&topic, 1, 1)).await;
    let published = unavailable(&outcomes[0], Scope::Sink);
    for detail in [&published.detail, &sink.probe().await.unwrap_err().detail] {
        assert!(detail.contains("uthentication failed"), "{detail}");
        assert!(!detail.contains("canary"));
    }
}

fn acl(arguments: &[&str]) {
    let output = std::process::Command::new(env("TEST_SERVICES"))
        .args(["kafka", "AclCommand", "--bootstrap-server"])
        .arg(env("TEST_KAFKA_BROKERS"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_without_permission_pauses_alone_until_it_is_granted() {
    let (denied, open) = (new_topic(2, &[]).await, new_topic(2, &[]).await);
    // With a rule about the topic, what no rule allows is denied: to write, or everything.
    for (who, operation) in [
        ("--allow-principal", "Describe"),
        ("--deny-principal", "All"),
    ] {
        let rule = [
            who,
            "User:alice",
            "--topic",
            &denied,
            "--operation",
            operation,
        ];
        acl(&[&["--add"], &rule[..]].concat());
        let sink = alices_sink("SCRAM-SHA-256", "alice-secret", PATIENCE);
        let mut batch = messages(&denied, 5, 2);
        batch.extend(messages(&open, 100, 30));
        for round in 0..3 {
            let outcomes = sink.send(&batch).await;
            // The refusal of one partition ends the producer before the other is answered, so in
            // the first round anyone may be the one refused, but someone is.
            let first = outcomes[..10].iter().position(|o| *o != Outcome::Withheld);
            assert!(
                first == Some(0) || (round == 0 && first.is_some()),
                "in round {round}"
            );
            for outcome in outcomes[..10].iter().filter(|o| **o != Outcome::Withheld) {
                let detail = &unavailable(outcome, Scope::Destination).detail;
                assert!(detail.contains(&denied) && detail.contains("Write and Describe"));
            }
            // Once it is known to be denied, nobody else is disturbed.
            if round > 0 || operation == "All" {
                assert!(all_published(&outcomes[10..]), "in round {round}");
            }
        }
        acl(&[&["--remove", "--force"], &rule[..]].concat());
        assert!(deliver(&sink, &batch).await.is_empty());
    }
}
