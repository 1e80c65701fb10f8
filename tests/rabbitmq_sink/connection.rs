//! Connections that cannot be made, are lost, or fall silent.

use crate::lab::sending::Sending as _;
use std::{collections::HashSet, sync::Arc, time::Duration};

use outboxd::sink::{Sink, rabbitmq::RabbitmqSink};
use tokio::time::{Instant, timeout};

use crate::lab::{
    Lab, PrivateBroker, Proxy, Received, broker_address, config, count, detail, message,
    rabbitmqctl, sink, variable, word, words,
};

#[tokio::test(flavor = "multi_thread")]
async fn tls_works_with_the_ca_and_fails_clearly_without() {
    let (lab, url) = (Lab::new().await, variable("TEST_RABBITMQ_TLS_URL"));
    let ca = variable("TEST_CA_FILE");
    let queue = lab.queue().await;
    let trusting = sink(&["--rabbitmq-url", &url, "--rabbitmq-ca-file", &ca]);
    let messages: Vec<_> = (0..500).map(|n| message(&queue, None, n)).collect();
    assert_eq!(trusting.probe().await, Ok(()));
    let outcomes = trusting.send(&messages).await;
    assert_eq!(count(&outcomes, "published"), 500);
    trusting.close().await;
    assert_eq!(lab.read(&queue).await.len(), 500);

    let doubting = sink(&["--rabbitmq-url", &url]);
    let told = doubting.probe().await.expect_err("not trusted").detail;
    assert!(told.contains("UnknownIssuer"), "{told}");
    assert!(told.contains("--rabbitmq-ca-file"), "{told}");

    // The certificate names localhost and 127.0.0.1.
    let elsewhere = url.replace("localhost", "127.0.0.2");
    let misled = sink(&["--rabbitmq-url", &elsewhere, "--rabbitmq-ca-file", &ca]);
    assert!(misled.probe().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_unavailable_and_withholds_followers() {
    let sink = sink(&["--rabbitmq-url", "amqp://relay:s3cret@127.0.0.1:1"]);
    let messages = [
        message("a", Some("key"), 0),
        message("a", Some("key"), 1),
        message("a", None, 2),
    ];
    let outcomes = sink.send(&messages).await;
    assert_eq!(words(&outcomes), ["sink", "withheld", "sink"]);
    let told = detail(&outcomes[0]);
    assert!(told.contains("amqp://relay@127.0.0.1:1/%2f"), "{told}");
    assert!(sink.probe().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_and_comes_back_is_found_again() {
    let broker = PrivateBroker::up();
    let lab = Lab::at(&broker.url).await;
    let (queue, sink) = (lab.queue().await, Arc::new(lab.sink()));
    assert_eq!(sink.probe().await, Ok(()));

    // Tasks publish as the broker goes away.
    let mut tasks = Vec::new();
    for task in 0..4 {
        let (sink, queue) = (Arc::clone(&sink), queue.clone());
        tasks.push(tokio::spawn(async move {
            let mut published = Vec::new();
            for round in 0.. {
                let first = (task * 100_000 + round) * 200;
                let messages: Vec<_> = (first..first + 200)
                    .map(|number| message(&queue, None, number))
                    .collect();
                let outcomes = sink.send(&messages).await;
                let confirmed = (first..).zip(&outcomes);
                let confirmed = confirmed.filter(|(_, outcome)| word(outcome) == "published");
                published.extend(confirmed.map(|(number, _)| number));
                assert_eq!(
                    count(&outcomes, "transient") + count(&outcomes, "rejected"),
                    0
                );
                if count(&outcomes, "sink") > 0 {
                    break;
                }
            }
            published
        }));
    }
    while lab.depth(&queue).await < 1000 {
        tokio::task::yield_now().await;
    }
    broker.stop();
    let mut published = Vec::new();
    for task in tasks {
        let end = timeout(Duration::from_secs(30), task).await;
        published.extend(end.expect("an outage ends a publish").expect("no panic"));
    }
    assert!(sink.probe().await.is_err());

    broker.start();
    assert_eq!(sink.probe().await, Ok(()));
    let outcomes = sink.send(&[message(&queue, None, 7)]).await;
    assert_eq!(words(&outcomes), ["published"]);
    let lab = Lab::at(&broker.url).await;
    let received = lab.read(&queue).await;
    let received: HashSet<_> = received.iter().map(Received::number).collect();
    assert!(published.iter().all(|number| received.contains(number)));
    lab.close().await;
    sink.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_falls_silent_costs_the_publish_timeout_and_no_attempt() {
    let (lab, limit) = (Lab::new().await, Duration::from_secs(2));
    let proxy = Proxy::to(broker_address()).await;
    let config = config(&["--rabbitmq-url", &proxy.url()]);
    let sink = Arc::new(RabbitmqSink::new(config, limit, "test"));
    let queue = lab.queue().await;
    assert_eq!(sink.probe().await, Ok(()));

    proxy.freeze();
    let start = Instant::now();
    let asking = Arc::clone(&sink);
    let probe = tokio::spawn(async move { asking.probe().await });
    let publish = |first: usize| {
        let (sink, queue) = (Arc::clone(&sink), queue.clone());
        tokio::spawn(async move {
            let messages = [
                message(&queue, Some("key"), first),
                message(&queue, Some("key"), first + 1),
            ];
            sink.send(&messages).await
        })
    };
    let (one, other) = (publish(0), publish(10));
    for task in [one, other] {
        let outcomes = task.await.expect("no panic");
        assert_eq!(words(&outcomes), ["sink", "withheld"]);
    }
    // Who waits on the same connection is told then, too.
    assert!(probe.await.expect("no panic").is_err());
    assert!(start.elapsed() < limit + Duration::from_secs(1));
    // A new connection is accepted by the network, and nobody answers on it.
    let outcomes = publish(20).await.expect("no panic");
    assert_eq!(words(&outcomes), ["sink", "withheld"]);
    assert!(start.elapsed() < 2 * limit + Duration::from_secs(2));

    proxy.thaw();
    let outcomes = publish(30).await.expect("no panic");
    assert_eq!(words(&outcomes), ["published", "published"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_never_confirms_does_not_take_the_confirms_of_others() {
    let lab = Lab::new().await;
    let (stuck, free) = (lab.queue().await, lab.queue().await);
    let pid = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{stuck}\">>)), \
         Pid = amqqueue:get_pid(Q)"
    );
    rabbitmqctl(&["eval", &format!("{pid}, sys:suspend(Pid).")]);
    let config = config(&["--rabbitmq-url", &lab.url]);
    let sink = RabbitmqSink::new(config, Duration::from_secs(2), "test");
    let messages: Vec<_> = (0..100)
        .map(|number| message([&stuck, &free][usize::from(number != 0)], None, number))
        .collect();
    let outcomes = sink.send(&messages).await;
    assert_eq!(word(&outcomes[0]), "sink");
    assert_eq!(count(&outcomes, "published"), 99);
    rabbitmqctl(&["eval", &format!("{pid}, sys:resume(Pid).")]);
    // The one without an answer may have arrived, and has.
    assert_eq!(lab.read(&free).await.len(), 99);
    assert_eq!(lab.read(&stuck).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_a_silent_broker_ends() {
    let proxy = Proxy::to(broker_address()).await;
    let sink = sink(&["--rabbitmq-url", &proxy.url()]);
    assert_eq!(sink.probe().await, Ok(()));
    proxy.freeze();
    let probe = timeout(Duration::from_secs(15), sink.probe()).await;
    assert!(probe.expect("an end").is_err());
    // Nobody says goodbye to a dead connection for long either.
    let close = timeout(Duration::from_secs(10), sink.close()).await;
    close.expect("an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_of_given_up_connections_end() {
    let proxy = Proxy::to(broker_address()).await;
    proxy.freeze();
    let limit = Duration::from_millis(300);
    let sink = RabbitmqSink::new(config(&["--rabbitmq-url", &proxy.url()]), limit, "test");
    for _ in 0..10 {
        let outcomes = sink.send(&[message("any", None, 0)]).await;
        assert_eq!(words(&outcomes), ["sink"]);
    }
    let ports = || open_ports_to(proxy.address.port());
    let all_gone = async {
        while ports() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let end = timeout(Duration::from_secs(5), all_gone).await;
    assert!(end.is_ok(), "{} connections are still open", ports());
}

/// Our sockets that are connected to a local port and not shut down.
fn open_ports_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux");
    let peer = format!("0100007F:{port:04X}");
    let established = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next() == Some(&peer) && columns.next() == Some("01")
    };
    table.lines().filter(established).count()
}
