//! librdkafka's options as users give them: read, named uniformly, and checked.

use std::path::Path;

use rdkafka::{ClientConfig, error::KafkaError};

use crate::settings::Problems;

pub(super) const REFERENCE: &str =
    "https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md";

/// Options with two names. One of them is used here, so that one setting is set once.
const ALIASES: [(&str, &str); 7] = [
    ("request.required.acks", "acks"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("message.send.max.retries", "retries"),
    ("queue.buffering.max.ms", "linger.ms"),
];

/// Options that are not the user's, and why.
const PROTECTED: [(&str, &str); 14] = [
    (
        "acks",
        "an event counts as published when all in-sync replicas have it",
    ),
    (
        "allow.auto.create.topics",
        "a mistyped topic would be created and filled unseen",
    ),
    ("bootstrap.servers", "use --kafka-brokers"),
    (
        "delivery.report.only.error",
        "outboxd waits for the broker's confirms",
    ),
    ("dr_cb", "outboxd waits for the broker's confirms"),
    ("dr_msg_cb", "outboxd waits for the broker's confirms"),
    (
        "enable.gapless.guarantee",
        "without it later events of a key pass a failed one",
    ),
    (
        "enable.idempotence",
        "without it retries repeat and reorder events",
    ),
    (
        "message.timeout.ms",
        "it follows from --publish-timeout; one message that expires alone is \
      passed by later ones of its key",
    ),
    ("partitioner_cb", "use partitioner"),
    (
        "queue.buffering.max.kbytes",
        "the queue must hold the batches of all workers; lower \
      --batch-size, --batch-bytes or --workers instead",
    ),
    (
        "queue.buffering.max.messages",
        "the queue must hold the batches of all workers; lower \
      --batch-size or --workers instead",
    ),
    ("queuing.strategy", "events are sent in their order"),
    (
        "transactional.id",
        "outboxd does not use transactions: consumers would wait for their end",
    ),
];

/// Partitioners that send every event of a key to one partition.
const PARTITIONERS: [&str; 5] = [
    "murmur2_random",
    "murmur2",
    "consistent",
    "fnv1a_random",
    "fnv1a",
];

/// One option, by its canonical name.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
    /// Values of the file are never printed.
    pub(super) from_file: bool,
}

impl Setting {
    /// Whether the value is to be kept out of logs and messages.
    pub(super) fn is_secret(&self) -> bool {
        self.from_file || is_sensitive(&self.name)
    }
}

/// The options given, each once.
#[derive(Clone, Default)]
pub(super) struct Options(Vec<Setting>);

impl Options {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let setting = self.0.iter().find(|setting| setting.name == name)?;
        Some(&setting.value)
    }

    /// Reads `NAME=VALUE` lines.
    pub(super) fn read_file(&mut self, path: &Path, problems: &mut Problems) {
        let place = format!("--kafka-options-file {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return problems.add(format!("{place}: {error}")),
        };
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match split(line) {
                Some((name, value)) => self.put(name, value, true, &place, problems),
                None => problems.add(format!("{place}, line {}: not NAME=VALUE", number + 1)),
            }
        }
    }

    /// Reads the flags' values, which win over the file's.
    pub(super) fn read_flags(&mut self, flags: &[String], problems: &mut Problems) {
        let given = flags.iter().map(|text| text.trim());
        for text in given.filter(|text| !text.is_empty()) {
            let Some((name, value)) = split(text) else {
                // What was meant is unknown; it may be a secret, so it is not repeated.
                problems.add("--kafka-option takes NAME=VALUE, such as linger.ms=5");
                continue;
            };
            let name_given_here = |s: &Setting| s.name == canonical(name) && s.from_file;
            self.0.retain(|setting| !name_given_here(setting));
            self.put(name, value, false, "--kafka-option", problems);
        }
    }

    fn put(&mut self, name: &str, value: &str, file: bool, place: &str, problems: &mut Problems) {
        let name = canonical(name);
        if self.get(name).is_some_and(|other| other != value) {
            problems.add(format!("{place}: {name} is set twice"));
        } else if self.get(name).is_none() {
            self.0.push(Setting {
                name: name.to_owned(),
                value: value.to_owned(),
                from_file: file,
            });
        }
    }

    /// Notes every option that is unknown, has a wrong value, or would undo the promise.
    pub(super) fn check(&self, problems: &mut Problems) {
        for setting in &self.0 {
            if let Some(problem) = problem_of(setting) {
                problems.add(format!("--kafka-option {}: {problem}", setting.name));
            }
        }
        // librdkafka takes these options without a word, and encrypts nothing.
        let protocol = self.get("security.protocol").unwrap_or("plaintext");
        for (prefix, enough) in [("ssl.", "ssl"), ("sasl.", "sasl")] {
            let unused = !protocol.to_ascii_lowercase().contains(enough);
            if let Some(setting) = self.0.iter().find(|s| unused && s.name.starts_with(prefix)) {
                problems.add(format!(
                    "--kafka-option {} has no effect with security.protocol={protocol}; \
                     set security.protocol to ssl or sasl_ssl",
                    setting.name
                ));
            }
        }
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    (!name.is_empty()).then_some((name, value.trim()))
}

fn canonical(name: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map_or(name, |(_, canonical)| canonical)
}

fn other_name(name: &str) -> String {
    let alias = ALIASES.iter().find(|(_, canonical)| *canonical == name);
    alias.map_or(String::new(), |(alias, _)| format!(" (or {alias})"))
}

fn problem_of(setting: &Setting) -> Option<String> {
    let Setting { name, value, .. } = setting;
    if let Some((_, why)) = PROTECTED.iter().find(|(protected, _)| protected == name) {
        return Some(format!("it{} cannot be changed: {why}", other_name(name)));
    }
    let number = value.parse::<u64>().ok();
    match name.as_str() {
        "max.in.flight.requests.per.connection" if number.is_some_and(|n| n > 5) => {
            return Some(format!("{} above 5 reorders events", other_name(name)));
        }
        "retries" if number == Some(0) => {
            return Some(format!(
                "0{} gives up at the first hiccup",
                other_name(name)
            ));
        }
        "partitioner" if !PARTITIONERS.contains(&value.as_str()) => {
            return Some(format!(
                "it does not keep each key on one partition; take one of {}",
                PARTITIONERS.join(", ")
            ));
        }
        _ => {}
    }
    let mut alone = ClientConfig::new();
    alone.set(name, value);
    match alone.create_native_config().err()? {
        // librdkafka's words may repeat the value.
        KafkaError::ClientConfig(_, _, _, _) if setting.is_secret() => {
            Some(format!("librdkafka refuses it; see {REFERENCE}"))
        }
        KafkaError::ClientConfig(_, said, _, _) => Some(format!("{said}; see {REFERENCE}")),
        other => Some(other.to_string()),
    }
}

fn is_sensitive(name: &str) -> bool {
    const SIGNS: [&str; 7] = [
        "password",
        "secret",
        "pem",
        "token",
        "jaas",
        "oauthbearer.config",
        "credential",
    ];
    SIGNS.iter().any(|sign| name.contains(sign))
}
