//! No password, key or token is ever shown: not in logs at any level, errors, help, metrics, probes,
//! or what commands print; with right and wrong ones, given in every way, the server up and away.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

mod common;

use std::process::Command;

use common::{
    broker::{Broker, Kind},
    database::Database,
    env, rabbitmq,
    relay::Relay,
    unique,
};

/// In every secret that a test makes up.
const CANARY: &str = "k4nary";

/// The other is the password that Kafka's alice has.
const SECRETS: [&str; 2] = [CANARY, "alice-secret"];

/// As loud as it gets, by module, too: a more specific directive wins over a general one.
const LOUD: &str = "trace,lapin=trace,lapin::io_loop=trace,lapin::channels=trace,lapin::channel=trace,\
    lapin::frames=trace,lapin::connection=trace,lapin::connector=trace,sqlx=trace,sqlx::query=trace,\
    librdkafka=trace,rdkafka=trace,rustls=trace";

/// Settings by flag, without the dashes.
type Settings = Vec<(&'static str, String)>;

/// How settings are given.
#[derive(Debug, Clone, Copy)]
enum Given {
    Flag,
    Environment,
    /// URLs and librdkafka's options by file, the rest by flag.
    File,
}

/// What a command is started with; its files are gone when it is dropped.
#[derive(Default)]
struct Start {
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    files: Vec<std::path::PathBuf>,
}

impl Start {
    fn new(settings: &Settings, given: Given) -> Self {
        let mut start = Self::default();
        let mut options = Vec::new();
        for (flag, value) in settings {
            let variable = format!("OUTBOXD_{}", flag.replace('-', "_").to_uppercase());
            match given {
                Given::Environment | Given::File if *flag == "kafka-option" => {
                    options.push(value.clone());
                }
                Given::Environment => start.environment.push((variable, value.clone())),
                Given::File if flag.ends_with("-url") => {
                    let file = start.file(value);
                    start.flags.extend([format!("--{flag}-file"), file]);
                }
                Given::Flag | Given::File => {
                    start.flags.extend([format!("--{flag}"), value.clone()]);
                }
            }
        }
        match given {
            _ if options.is_empty() => {}
            Given::Environment => {
                let options = ("OUTBOXD_KAFKA_OPTION".to_owned(), options.join("\n"));
                start.environment.push(options);
            }
            _ => {
                let file = start.file(&options.join("\n"));
                start
                    .flags
                    .extend(["--kafka-options-file".to_owned(), file]);
            }
        }
        start
    }

    fn file(&mut self, text: &str) -> String {
        let file = std::env::temp_dir().join(unique("outboxd-secret"));
        std::fs::write(&file, text).unwrap();
        self.files.push(file.clone());
        file.to_str().unwrap().to_owned()
    }

    /// Everything a command prints.
    fn output_of(&self, command: &[&str], flags: bool) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_outboxd"))
            .args(command)
            .args(if flags { &self.flags[..] } else { &[] })
            .envs(self.environment.iter().cloned())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        for file in &self.files {
            drop(std::fs::remove_file(file)); // a failing test must not fail twice
        }
    }
}

fn assert_hidden(place: &str, text: &str) {
    let at = SECRETS.iter().filter_map(|secret| text.find(secret)).min();
    let shown = at.map(|at| {
        let start = text[..at].rfind('\n').map_or(0, |line| line + 1);
        text[start..].lines().next().unwrap_or_default()
    });
    assert_eq!(shown, None, "in {place}");
}

/// Runs everything there is with these settings, and looks at all it says. `works` when they are right:
/// then the relay must get ready, and otherwise say that it cannot, or not start.
async fn says_nothing(settings: &Settings, works: bool) {
    let ways = [
        (Given::Environment, if works { "json" } else { "text" }),
        (Given::Flag, "text"),
        (Given::File, "json"),
    ];
    // What is wrong takes its time, and is said the same way however it was given.
    for &(given, format) in &ways[..if works { 3 } else { 1 }] {
        let start = Start::new(settings, given);
        let loud = [("OUTBOXD_LOG_LEVEL", LOUD), ("OUTBOXD_LOG_FORMAT", format)];
        let environment = start
            .environment
            .iter()
            .map(|(name, value)| (&**name, &**value));
        let environment: Vec<_> = environment.chain(loud).collect();
        let flags: Vec<&str> = start.flags.iter().map(String::as_str).collect();
        let mut relay = Relay::run_in(&environment, &flags);
        let mut pages = String::new();
        let started = std::time::Instant::now();
        while relay.is_running() && started.elapsed() < common::relay::PATIENCE {
            let Some((status, page)) = relay.get("/readyz").await else {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                continue;
            };
            pages += &page;
            let told =
                relay.log().contains("cannot be used: not") || relay.log().contains("said no");
            if if works { status == 200 } else { told } {
                pages += &relay.get("/metrics").await.unwrap().1;
                break;
            }
        }
        let looked = started.elapsed() < common::relay::PATIENCE;
        assert!(looked, "it never came to the point: {}", relay.log());
        if works {
            assert!(relay.is_running(), "{}", relay.log());
        }
        if relay.is_running() {
            relay.signal("-TERM");
            relay.ended().await;
        }
        assert!(!relay.log().is_empty());
        assert_hidden(&format!("the log, {given:?}"), &relay.log());
        assert_hidden("a page", &pages);
        for command in [
            &["check"][..],
            &["check", "--json"],
            &["run", "--help"],
            &["drain", "-h"],
        ] {
            assert_hidden(&command.join(" "), &start.output_of(command, true));
        }
        for command in [&["status", "--json"][..], &["peek"], &["dead", "list"]] {
            // By environment they are there without flags, as far as these commands take them.
            if matches!(given, Given::Environment) {
                assert_hidden(&command.join(" "), &start.output_of(command, false));
            }
        }
    }
}

fn secret() -> String {
    unique(CANARY)
}

/// A URL with another user and password in it.
fn with_password(url: &str, user: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_, server) = rest.split_once('@').unwrap();
    format!("{scheme}://{user}:{password}@{server}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_passwords_are_not_shown() {
    let database = Database::new().await;
    let (role, password) = (unique("role").replace('-', "_"), secret());
    database
        .execute(&format!(
            "create role {role} login superuser password '{password}'"
        ))
        .await;
    let stdout = ("sink", "stdout".to_owned());
    let right = with_password(&database.url, &role, &password);
    says_nothing(&vec![("database-url", right), stdout.clone()], true).await;
    database.execute(&format!("drop role {role}")).await;
    let wrong = with_password(&database.url, "nobody", &secret());
    says_nothing(&vec![("database-url", wrong), stdout.clone()], false).await;
    let by_query = format!("postgres://nobody@127.0.0.1:1/x?password={}", secret());
    says_nothing(&vec![("database-url", by_query), stdout], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_notify_urls_password_is_not_shown() {
    let database = Database::new().await;
    for server in [
        &database.url[..],
        "postgres://u:p@127.0.0.1:1/x",
        "mysql://u:p@h/x",
    ] {
        let notify = with_password(server, "nobody", &secret());
        let settings = vec![
            ("database-url", database.url.clone()),
            ("notify-database-url", notify),
            ("sink", "stdout".to_owned()),
        ];
        says_nothing(&settings, !server.starts_with("mysql")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_passwords_are_not_shown() {
    let database = Database::new().await;
    let url = env("TEST_RABBITMQ_URL");
    let (user, password) = (unique("user"), secret());
    let rabbitmqctl = |arguments: &[&str]| {
        let done = Command::new(env("TEST_SERVICES"))
            .arg("rabbitmqctl")
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    rabbitmqctl(&["add_user", &user, &password]);
    rabbitmqctl(&["set_permissions", "-p", "/", &user, ".*", ".*", ".*"]);
    let queue = unique("secrets");
    rabbitmq::declare(&url, &queue, lapin::types::FieldTable::default()).await;
    database.insert(&queue, 10, 2).await;
    let with = |url: String| {
        vec![
            ("database-url", database.url.clone()),
            ("rabbitmq-url", url),
        ]
    };
    says_nothing(&with(with_password(&url, &user, &password)), true).await;
    rabbitmqctl(&["delete_user", &user]);
    assert_eq!(database.pending().await, 0);
    says_nothing(&with(with_password(&url, "nobody", &secret())), false).await;
    for url in [
        "amqp://u:p@127.0.0.1:1",
        "amqps://u:p@127.0.0.1:1",
        "http://u:p@h",
    ] {
        says_nothing(&with(with_password(url, "nobody", &secret())), false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_passwords_are_not_shown() {
    let database = Database::new().await;
    let options = |password: &str| -> Settings {
        [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", &env("TEST_CA_FILE")),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.username", "alice"),
            ("sasl.password", password),
            ("debug", "all"),
        ]
        .map(|(name, value)| ("kafka-option", format!("{name}={value}")))
        .into()
    };
    let with = |brokers: &str, options: Settings| -> Settings {
        let places = [
            ("database-url", database.url.clone()),
            ("kafka-brokers", brokers.to_owned()),
        ];
        places.into_iter().chain(options).collect()
    };
    let sasl = env("TEST_KAFKA_SASL_BROKERS");
    says_nothing(&with(&sasl, options("alice-secret")), true).await;
    says_nothing(&with(&sasl, options(&secret())), false).await;
    says_nothing(&with("127.0.0.1:1", options(&secret())), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_of_librdkafkas_options_is_shown() {
    let (database, broker) = (Database::new().await, Broker::shared(Kind::Kafka));
    let secrets = [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.certificate.pem",
        "ssl.ca.pem",
        "ssl.keystore.password",
        "ssl.key.location",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "no.such.option",
        "acks",
    ];
    for name in secrets {
        let settings = vec![
            ("database-url", database.url.clone()),
            ("kafka-brokers", broker.address.clone()),
            ("kafka-option", format!("{name}={}", secret())),
            ("kafka-option", "debug=all".to_owned()),
        ];
        let start = Start::new(&settings, Given::Flag);
        for command in [&["check"][..], &["check", "--json"], &["run", "--help"]] {
            assert_hidden(name, &start.output_of(command, true));
        }
        let start = Start::new(&settings, Given::File);
        assert_hidden(name, &start.output_of(&["check"], true));
    }
    // Whatever is in the file is not shown.
    for name in [
        "security.protocol",
        "sasl.mechanisms",
        "linger.ms",
        "client.id",
    ] {
        let settings = vec![
            ("kafka-brokers", broker.address.clone()),
            ("kafka-option", format!("{name}={}", secret())),
        ];
        let start = Start::new(&settings, Given::File);
        assert_hidden(name, &start.output_of(&["check"], true));
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown_either() {
    let arguments = [
        "run",
        "--kafka-brokers",
        "127.0.0.1:1",
        "--kafka-option",
        &secret(),
    ];
    let output = Start::default().output_of(&arguments, false);
    assert!(
        output.contains("--kafka-option takes NAME=VALUE"),
        "{output}"
    );
    assert_hidden("the problem of an option without a name", &output);
}
