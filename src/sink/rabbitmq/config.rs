//! The settings of the RabbitMQ sink.

use std::path::PathBuf;

use lapin::{tcp::RustlsConnectorConfig, types::ShortString};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};

use super::url::BrokerUrl;
use crate::settings::Problems;

/// Where messages go on RabbitMQ, and how.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "RabbitMQ")]
pub struct RabbitmqArgs {
    /// The broker: amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS
    ///
    /// Percent-encode special characters: a password p@ss is written p%40ss, the vhost "/" is %2f
    /// (and is the default). Options after a "?": `heartbeat` (seconds, 15 by default), `frame_max`,
    /// `channel_max`, `connection_timeout` (milliseconds), `auth_mechanism`. With amqps the server's
    /// certificate is always verified.
    #[arg(
        long,
        env = "OUTBOXD_RABBITMQ_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub rabbitmq_url: Option<String>,

    /// A file with the broker's URL, so that its password stays out of `ps`; read again at every
    /// reconnect, so that a rotated password is picked up
    #[arg(long, env = "OUTBOXD_RABBITMQ_URL_FILE", value_name = "FILE")]
    pub rabbitmq_url_file: Option<PathBuf>,

    /// The exchange to publish to; it must exist
    ///
    /// An event's topic is the routing key. Without an exchange (the default exchange) it is the
    /// name of the queue. Messages that no queue is bound to receive are not lost: their topic is
    /// paused until a queue is there (see --on-unroutable).
    #[arg(
        long,
        env = "OUTBOXD_RABBITMQ_EXCHANGE",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub rabbitmq_exchange: String,

    /// How far order is kept: strict or pipelined
    ///
    /// strict: a key's next event is sent when the broker has confirmed the one before, so order
    /// holds even where a queue rejects messages (x-overflow=reject-publish). pipelined: a key's
    /// events are sent without waiting; faster when most events belong to a few keys, but where a
    /// queue rejects one event, later ones of its key may already have passed it.
    #[arg(
        long,
        env = "OUTBOXD_RABBITMQ_ORDER",
        value_name = "ORDER",
        default_value = "strict"
    )]
    pub rabbitmq_order: String,

    /// The CA to trust for amqps instead of the system's: a file of PEM certificates
    #[arg(long, env = "OUTBOXD_RABBITMQ_CA_FILE", value_name = "FILE")]
    pub rabbitmq_ca_file: Option<PathBuf>,
}

/// How far the order of a key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// At most one unconfirmed message of a key.
    Strict,
    /// All messages of a key at once; order is not kept where a queue rejects.
    Pipelined,
}

/// The settings of the RabbitMQ sink, checked.
#[derive(Debug, Clone)]
pub struct RabbitmqConfig {
    source: UrlSource,
    ca_file: Option<PathBuf>,
    address: String,
    pub(super) exchange: ShortString,
    pub(super) order: Order,
}

#[derive(Debug, Clone)]
enum UrlSource {
    Given(SecretString),
    File(PathBuf),
}

impl RabbitmqArgs {
    /// Whether a broker is set at all.
    pub fn is_set(&self) -> bool {
        self.rabbitmq_url.is_some() || self.rabbitmq_url_file.is_some()
    }

    /// Checks the settings. `None` when something is wrong with them; `problems` says what.
    pub fn validate(self, problems: &mut Problems) -> Option<RabbitmqConfig> {
        let before = problems.list().len();
        let text = problems.secret(
            "rabbitmq-url",
            self.rabbitmq_url.as_deref(),
            self.rabbitmq_url_file.as_deref(),
        );
        if !self.is_set() {
            problems.add("--rabbitmq-url is not set: amqp://USER:PASSWORD@HOST:PORT/VHOST");
        }
        let url = text.and_then(|text| noted(problems, BrokerUrl::parse(text.expose_secret())));
        let exchange = noted(
            problems,
            ShortString::try_new(self.rabbitmq_exchange)
                .map_err(|_| "--rabbitmq-exchange is longer than the 255 bytes of AMQP".into()),
        );
        let orders = [("strict", Order::Strict), ("pipelined", Order::Pipelined)];
        let order = problems.choice("rabbitmq-order", &self.rabbitmq_order, &orders);
        if let Some(file) = &self.rabbitmq_ca_file {
            noted(problems, read_certificates(file));
            if url.as_ref().is_some_and(|url| !url.is_tls()) {
                problems.add("--rabbitmq-ca-file is set, but --rabbitmq-url is not amqps://");
            }
        }
        let source = match (self.rabbitmq_url, self.rabbitmq_url_file) {
            (Some(url), _) => UrlSource::Given(url.into()),
            (None, file) => UrlSource::File(file?),
        };
        let config = RabbitmqConfig {
            address: url?.to_string(),
            source,
            ca_file: self.rabbitmq_ca_file,
            exchange: exchange?,
            order,
        };
        (problems.list().len() == before).then_some(config)
    }
}

impl RabbitmqConfig {
    /// The broker's URL at the start, without the password: for logs.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The exchange messages go to; empty is the default exchange.
    pub fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    /// How far the order of a key is kept.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The URL as it is now: a file is read again, since passwords are rotated.
    pub(super) fn url(&self) -> Result<BrokerUrl, String> {
        match &self.source {
            UrlSource::Given(text) => BrokerUrl::parse(text.expose_secret()),
            UrlSource::File(file) => {
                let mut problems = Problems::default();
                let text = problems.secret("rabbitmq-url", None, Some(file));
                let text = text.ok_or_else(|| problems.list().join("; "))?;
                BrokerUrl::parse(text.expose_secret())
            }
        }
    }

    /// Which certificates to trust: the file's, read again, else the system's.
    pub(super) fn trusted(&self) -> Result<RustlsConnectorConfig, String> {
        match &self.ca_file {
            Some(file) => Ok(RustlsConnectorConfig::default()
                .with_parsable_certificates(read_certificates(file)?)),
            None => RustlsConnectorConfig::new_with_native_certs().map_err(|error| {
                format!(
                    "the system's CA certificates cannot be read ({error}); give --rabbitmq-ca-file"
                )
            }),
        }
    }
}

fn noted<T>(problems: &mut Problems, result: Result<T, String>) -> Option<T> {
    result.map_err(|problem| problems.add(problem)).ok()
}

fn read_certificates(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let flag = format!("--rabbitmq-ca-file {}", file.display());
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{flag}: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("{flag} has no PEM certificate in it"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str) -> RabbitmqArgs {
        RabbitmqArgs {
            rabbitmq_url: Some(url.into()),
            rabbitmq_url_file: None,
            rabbitmq_exchange: String::new(),
            rabbitmq_order: "strict".into(),
            rabbitmq_ca_file: None,
        }
    }

    fn problems_of(args: RabbitmqArgs) -> String {
        let mut problems = Problems::default();
        let config = args.validate(&mut problems);
        assert_eq!(config.is_some(), problems.is_empty(), "{problems:?}");
        problems.list().join("\n")
    }

    #[test]
    fn no_rendering_shows_the_password() {
        let mut problems = Problems::default();
        let config = args("amqp://relay:s3cret@rabbit/orders").validate(&mut problems);
        let config = config.expect("valid");
        assert_eq!(config.address(), "amqp://relay@rabbit:5672/orders");
        assert!(!format!("{config:?}").contains("s3cret"));
        let url = config.url().expect("valid");
        assert_eq!(url.with_password().authority.userinfo.password, "s3cret");
    }

    #[test]
    fn a_bad_url_is_a_problem_that_names_the_flag_and_not_the_password() {
        for url in [
            "amqp:relay:s3cret@rabbit",
            "http://relay:s3cret@rabbit",
            "amqp://relay:s3cret/x@rabbit",
            "amqp://relay:s3cret#x@rabbit",
            "amqp://relay:s3cret@rabbit?cacertfile=s3cret",
            "amqp://relay:s3cret@rabbit?heartbeat=s3cret",
            "amqp://relay:12?s3cret@rabbit",
            "amqp://relay:s3cret@rabbit?heartbeat=70000",
            "amqp://relay:s3cret@rabbit?frame_max=64",
            "amqp://relay:s3cret@",
            "s3cret",
            "",
        ] {
            let problems = problems_of(args(url));
            assert!(problems.contains("--rabbitmq-url"), "{url}: {problems}");
            assert!(!problems.contains("s3cret"), "{url}: {problems}");
        }
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let problems = problems_of(RabbitmqArgs {
            rabbitmq_exchange: "x".repeat(256),
            rabbitmq_order: "loose".into(),
            rabbitmq_ca_file: Some("/nowhere".into()),
            rabbitmq_url_file: Some("/nowhere".into()),
            ..args("amqp://rabbit")
        });
        for flag in ["url-file", "exchange", "order", "ca-file"] {
            assert!(problems.contains(flag), "{flag}: {problems}");
        }
    }

    #[test]
    fn an_unset_url_and_a_ca_without_tls_are_problems() {
        let unset = RabbitmqArgs {
            rabbitmq_url: None,
            ..args("")
        };
        assert!(problems_of(unset).contains("--rabbitmq-url is not set"));
        let file = std::env::temp_dir().join(format!("outboxd-{}.pem", std::process::id()));
        std::fs::write(&file, "no certificate").expect("written");
        let plain = RabbitmqArgs {
            rabbitmq_ca_file: Some(file.clone()),
            ..args("amqp://rabbit")
        };
        let problems = problems_of(plain);
        std::fs::remove_file(file).expect("removed");
        assert!(problems.contains("no PEM certificate"), "{problems}");
        assert!(problems.contains("not amqps"), "{problems}");
    }

    #[test]
    fn a_url_file_is_read_again_each_time() {
        let file = std::env::temp_dir().join(format!("outboxd-{}.url", std::process::id()));
        std::fs::write(&file, "amqp://u:old@rabbit\n").expect("written");
        let args = RabbitmqArgs {
            rabbitmq_url: None,
            rabbitmq_url_file: Some(file.clone()),
            ..args("")
        };
        let config = args.validate(&mut Problems::default()).expect("valid");
        let password = |config: &RabbitmqConfig| {
            let url = config.url().expect("valid").with_password();
            url.authority.userinfo.password
        };
        assert_eq!(password(&config), "old");
        std::fs::write(&file, "amqp://u:new@rabbit\n").expect("written");
        assert_eq!(password(&config), "new");
        std::fs::remove_file(&file).expect("removed");
        assert!(config.url().is_err_and(|error| error.contains("url-file")));
    }
}
