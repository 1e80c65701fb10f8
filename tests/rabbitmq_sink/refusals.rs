//! One bad message among good ones, and permissions.

use crate::lab::sending::Sending as _;
use std::sync::Arc;

use lapin::ExchangeKind;
use outboxd::{
    event::Message,
    sink::{Outcome, Scope, Sink},
};

use crate::lab::{
    Lab, PrivateBroker, count, detail, first_occurrences, message, rabbitmqctl, unique, word, words,
};

/// A hundred messages of ten keys, the 43rd of which something is done to.
async fn with_one(lab: &Lab, spoil: impl Fn(&mut Message)) -> (String, Vec<Message>) {
    let queue = lab.queue().await;
    let mut messages: Vec<_> = (0..100)
        .map(|number| message(&queue, Some(&format!("key-{}", number % 10)), number))
        .collect();
    spoil(&mut messages[42]);
    (queue, messages)
}

/// The 43rd is rejected, what follows it in its key is withheld, everything else arrives in order.
async fn only_the_bad_one_suffers(lab: &Lab, spoil: impl Fn(&mut Message)) -> String {
    let (queue, messages) = with_one(lab, spoil).await;
    let sink = lab.sink();
    let outcomes = sink.send(&messages).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let expected = match number {
            42 => "rejected",
            52 | 62 | 72 | 82 | 92 => "withheld",
            _ => "published",
        };
        assert_eq!(word(outcome), expected, "{number}: {}", detail(outcome));
    }
    for (key, numbers) in first_occurrences(&lab.read(&queue).await) {
        let last: usize = key.trim_start_matches("key-").parse().expect("a number");
        let all = (0..100).filter(|number| number % 10 == last);
        let expected: Vec<_> = all.filter(|number| last != 2 || *number < 42).collect();
        assert_eq!(numbers, expected, "{key}");
    }
    // The connection lives on, and the key as well.
    let outcomes = sink.send(&messages[52..53]).await;
    assert_eq!(words(&outcomes), ["published"]);
    detail(&sink.send(&messages[42..43]).await[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_the_broker_calls_invalid_takes_nobody_with_it() {
    let lab = Lab::new().await;
    // To RabbitMQ, CC is a list of further routing keys.
    let spoil = |message: &mut Message| message.headers.push(("CC".into(), "copy".into()));
    let told = only_the_bad_one_suffers(&lab, spoil).await;
    assert!(told.contains("PRECONDITION_FAILED"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_would_end_the_connection_are_rejected_alone() {
    let lab = Lab::new().await;
    let spoil = |message: &mut Message| {
        message.headers.push(("big".into(), "x".repeat(200_000)));
    };
    let told = only_the_bad_one_suffers(&lab, spoil).await;
    assert!(told.contains("frame_max"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_over_255_bytes_is_rejected_alone() {
    let lab = Lab::new().await;
    let spoil = |message: &mut Message| message.event_type = "x".repeat(256);
    let told = only_the_bad_one_suffers(&lab, spoil).await;
    assert!(told.contains("event type has 256 bytes"), "{told}");
    let (queue, mut messages) = with_one(&lab, |_| {}).await;
    messages[0].destination = "x".repeat(300);
    messages[1].destination = "x".repeat(300);
    messages[1].key = messages[0].key.clone();
    let outcomes = lab.sink().send(&messages).await;
    assert_eq!(words(&outcomes[..3]), ["rejected", "withheld", "published"]);
    assert_eq!(lab.read(&queue).await.len(), 98);
    let probed = lab.sink().probe_destination(&"x".repeat(300)).await;
    assert_eq!(probed.unwrap_err().scope, Scope::Destination);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_headers_that_fit_pass() {
    let lab = Lab::new().await;
    let (queue, sink) = (lab.queue().await, lab.sink());
    // What fits is found from the first refusal, which names the size.
    let sized = |bytes: usize| Message {
        headers: vec![("big".into(), "x".repeat(bytes))],
        ..message(&queue, None, 0)
    };
    let told = detail(&sink.send(&[sized(131_072)]).await[0]);
    let size = told.split(' ').find_map(|word| word.parse::<usize>().ok());
    let most = 131_072 - (size.expect("a size") - 131_072);
    let outcomes = sink.send(&[sized(most), sized(most + 1)]).await;
    assert_eq!(words(&outcomes), ["published", "rejected"]);
    assert_eq!(lab.read(&queue).await[0].headers["big"].len(), most);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_brokers_limit_takes_nobody_with_it() {
    let broker = PrivateBroker::up();
    let limit = "application:set_env(rabbit, max_message_size, 10000), \
                 persistent_term:put(max_message_size, 10000).";
    broker.rabbitmqctl(&["eval", limit]);
    let lab = Lab::at(&broker.url).await;
    let spoil = |message: &mut Message| message.payload = Some(vec![b'x'; 10_001]);
    let told = only_the_bad_one_suffers(&lab, spoil).await;
    assert!(told.contains("size"), "{told}");
    lab.close().await;
}

/// A closed channel now and then takes its connection with it (lapin writes behind its close-ok).
#[tokio::test(flavor = "multi_thread")]
async fn a_neighbours_closed_channels_charge_nobody_and_are_hardly_felt() {
    let lab = Lab::new().await;
    let (queue, sink) = (lab.queue().await, Arc::new(lab.sink()));
    let bad = Message {
        headers: vec![("CC".into(), "copy".into())],
        ..message(&queue, None, 0)
    };
    let mut messages: Vec<_> = (1..300).map(|n| message(&queue, None, n)).collect();
    messages.insert(40, bad);
    let neighbour = Arc::clone(&sink);
    let quarrel = tokio::spawn(async move {
        for _ in 0..30 {
            let outcomes = neighbour.send(&messages).await;
            assert!(charged(&outcomes) <= 1, "{:?}", words(&outcomes));
        }
    });
    let messages: Vec<_> = (0..300).map(|n| message(&queue, None, n)).collect();
    let (mut batches, mut felt) = (0, 0);
    while !quarrel.is_finished() {
        let outcomes = sink.send(&messages).await;
        assert_eq!(charged(&outcomes), 0, "{:?}", words(&outcomes));
        batches += 1;
        felt += usize::from(count(&outcomes, "published") < 300);
    }
    quarrel.await.expect("no panic");
    // Where the connection itself is reset there is nothing to go on with: the batch is sent again.
    assert!(felt * 4 <= batches, "{felt} of {batches} batches");
}

fn charged(outcomes: &[Outcome]) -> usize {
    count(outcomes, "rejected") + count(outcomes, "transient")
}

#[tokio::test(flavor = "multi_thread")]
async fn several_bad_messages_are_all_found() {
    let lab = Lab::new().await;
    let (queue, mut messages) = with_one(&lab, |_| {}).await;
    let bad = [0, 17, 42, 43, 99];
    for number in bad {
        messages[number].headers.push(("BCC".into(), "copy".into()));
    }
    let outcomes = lab.sink().send(&messages).await;
    let first_bad = |key: usize| bad.iter().find(|number| *number % 10 == key);
    for (number, outcome) in outcomes.iter().enumerate() {
        let expected = match first_bad(number % 10) {
            Some(bad) if number == *bad => "rejected",
            Some(bad) if number > *bad => "withheld",
            _ => "published",
        };
        assert_eq!(word(outcome), expected, "{number}: {}", detail(outcome));
    }
    assert!(!lab.read(&queue).await.is_empty());
}

/// A user who may write to what `write` matches, and do nothing else.
fn user(write: &str) -> String {
    let name = unique("user");
    rabbitmqctl(&["add_user", &name, "pw"]);
    rabbitmqctl(&["set_permissions", &name, "", write, ""]);
    name
}

fn url_of(lab: &Lab, user: &str, password: &str) -> String {
    let mut url = url::Url::parse(&lab.url).expect("a URL");
    url.set_username(user).expect("a user");
    url.set_password(Some(password)).expect("a password");
    url.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_only_write_can_publish_and_be_probed() {
    let lab = Lab::new().await;
    let (queue, exchange) = (lab.queue().await, unique("exchange"));
    lab.declare_exchange(&exchange, ExchangeKind::Topic).await;
    lab.bind(&queue, &exchange, "#").await;
    let url = url_of(&lab, &user(&format!("^({exchange}|amq.default)$")), "pw");
    for sink in [
        crate::lab::sink(&["--rabbitmq-url", &url]),
        crate::lab::sink(&["--rabbitmq-url", &url, "--rabbitmq-exchange", &exchange]),
    ] {
        assert_eq!(sink.probe().await, Ok(()));
        assert_eq!(sink.probe_destination(&queue).await, Ok(()));
        let outcomes = sink.send(&[message(&queue, None, 0)]).await;
        assert_eq!(words(&outcomes), ["published"]);
    }
    assert_eq!(lab.read(&queue).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_exchange_pauses_destinations_and_charges_nobody() {
    let lab = Lab::new().await;
    let queue = lab.queue().await;
    let url = url_of(&lab, &user("^elsewhere$"), "pw");
    let sink = crate::lab::sink(&["--rabbitmq-url", &url]);
    let messages: Vec<_> = (0..500).map(|n| message(&queue, None, n)).collect();
    let outcomes = sink.send(&messages).await;
    assert_eq!(word(&outcomes[0]), "destination");
    assert_eq!(count(&outcomes, "withheld"), 499);
    let told = detail(&outcomes[0]);
    assert!(told.contains("ACCESS_REFUSED"), "{told}");
    assert!(told.contains("write permission"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_routing_key_does_not_stop_the_others() {
    let lab = Lab::new().await;
    let (queue, exchange) = (lab.queue().await, unique("exchange"));
    lab.declare_exchange(&exchange, ExchangeKind::Topic).await;
    lab.bind(&queue, &exchange, "#").await;
    let user = user(".*");
    let topics = ["set_topic_permissions", &user, &exchange, "^open", ""];
    rabbitmqctl(&topics);
    let url = url_of(&lab, &user, "pw");
    let sink = crate::lab::sink(&["--rabbitmq-url", &url, "--rabbitmq-exchange", &exchange]);
    let destination = |number: usize| ["open.a", "open.b", "secret"][number % 3];
    let messages: Vec<_> = (0..300)
        .map(|number| {
            message(
                destination(number),
                Some(&format!("{}", number % 20)),
                number,
            )
        })
        .collect();
    let outcomes = sink.send(&messages).await;
    assert_eq!(count(&outcomes, "published"), 200);
    assert_eq!(count(&outcomes, "destination"), 1);
    assert_eq!(word(&outcomes[2]), "destination");
    assert_eq!(count(&outcomes, "withheld"), 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_a_missing_vhost_are_clear() {
    let lab = Lab::new().await;
    let url = url_of(&lab, &user(".*"), "s3cret");
    let sink = crate::lab::sink(&["--rabbitmq-url", &url]);
    let told = sink.probe().await.expect_err("refused").detail;
    assert!(told.contains("ACCESS_REFUSED"), "{told}");
    assert!(told.contains("password in --rabbitmq-url"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
    let outcomes = sink.send(&[message("any", None, 0)]).await;
    assert_eq!(words(&outcomes), ["sink"]);

    let sink = crate::lab::sink(&["--rabbitmq-url", &lab.url.replace("%2f", "nowhere")]);
    let told = sink.probe().await.expect_err("refused").detail;
    assert!(told.contains("nowhere"), "{told}");
    assert!(told.contains("check the vhost"), "{told}");
}
