//! The broker's URL, read more strictly than lapin does, and shown without its password.

use std::{fmt, time::Duration};

use lapin::{
    types::ShortString,
    uri::{AMQPScheme, AMQPUri, SASLMechanism},
};

/// Seconds without a sign of life from the broker before a heartbeat is missed; lapin gives up on
/// the connection after two. RabbitMQ's own 60 would take two minutes to notice a dead host.
const HEARTBEAT: u16 = 15;

/// How long TCP, TLS and AMQP may take to agree, unless the URL's `connection_timeout` says.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The least `frame_max` AMQP allows.
const LEAST_FRAME: u32 = 4096;

/// A broker's URL. It is shown without its password, and its parts are private to the sink, since
/// lapin's own type shows the password in its `Debug`.
#[derive(Clone)]
pub(super) struct BrokerUrl(AMQPUri);

impl BrokerUrl {
    /// Parses a URL. Errors name the flag and never repeat any part that may hold the password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let problem = |what: &str| {
            format!(
                "--rabbitmq-url: {what}; write it like amqp://USER:PASSWORD@HOST:PORT/VHOST, special \
                 characters percent-encoded"
            )
        };
        let url = url::Url::parse(text).map_err(|error| problem(&error.to_string()))?;
        if !matches!(url.scheme(), "amqp" | "amqps") {
            return Err(problem("it must begin with amqp:// or amqps://"));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| problem("it names no host"))?;
        if url.fragment().is_some() {
            return Err(problem("a # must be written %23"));
        }
        check_options(&url).map_err(|what| problem(&what))?;
        let mut uri: AMQPUri = text.parse().map_err(|error: String| problem(&error))?;
        // lapin takes the URL's host only if it is a name: for an IPv6 address it would silently
        // connect to localhost.
        if host.starts_with('[') {
            uri.authority.host = host.trim_matches(['[', ']']).into();
        }
        // To the letter, a path of only "/" is the vhost "": nobody has one, and many write it so.
        if uri.vhost.is_empty() {
            uri.vhost = "/".into();
        }
        if ShortString::try_new(uri.vhost.as_str()).is_err() {
            return Err(problem("the vhost is longer than 255 bytes"));
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self(uri))
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.scheme == AMQPScheme::AMQPS
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        let millis = self.0.query.connection_timeout;
        millis.map_or(CONNECT_TIMEOUT, Duration::from_millis)
    }

    /// For lapin. Do not log it: its `Debug` and `Display` show the password.
    pub(super) fn with_password(&self) -> AMQPUri {
        self.0.clone()
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.0.authority;
        let user = &authority.userinfo.username;
        let (scheme, host, port) = (&self.0.scheme, &authority.host, authority.port);
        let vhost = self.0.vhost.replace('/', "%2f");
        if host.contains(':') {
            return write!(f, "{scheme}://{user}@[{host}]:{port}/{vhost}");
        }
        write!(f, "{scheme}://{user}@{host}:{port}/{vhost}")
    }
}

/// lapin ignores options it does not know, TLS options of other clients among them.
fn check_options(url: &url::Url) -> Result<(), String> {
    for (name, value) in url.query_pairs() {
        let number = value.parse::<u32>().ok();
        let valid = match name.as_ref() {
            "heartbeat" | "channel_max" => number.is_some_and(|number| number <= u16::MAX.into()),
            "frame_max" => number.is_some_and(|number| number == 0 || number >= LEAST_FRAME),
            "connection_timeout" => number.is_some_and(|number| number > 0),
            "auth_mechanism" => value.parse::<SASLMechanism>().is_ok(),
            // With a bare ? in it, a password ends up here.
            _ if url.query().is_some_and(|query| query.contains('@')) => {
                return Err("unknown option".into());
            }
            _ => return Err(format!("unknown option {name:?}")),
        };
        if !valid {
            return Err(format!("the value of option {name:?} is not valid"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_vhosts_and_heartbeats_are_taken_as_written() {
        let parse = |text: &str| BrokerUrl::parse(text).expect(text).with_password();
        assert_eq!(parse("amqp://u:p@[::1]:5672/v").authority.host, "::1");
        assert_eq!(parse("amqp://10.0.0.1").authority.host, "10.0.0.1");
        assert_eq!(parse("amqps://rabbit").authority.port, 5671);
        for default in ["amqp://rabbit", "amqp://rabbit/", "amqp://rabbit/%2f"] {
            assert_eq!(parse(default).vhost, "/", "{default}");
        }
        assert_eq!(parse("amqp://rabbit").query.heartbeat, Some(HEARTBEAT));
        assert_eq!(parse("amqp://rabbit?heartbeat=7").query.heartbeat, Some(7));
        let special = parse("amqp://u:p%40%2f%23@rabbit");
        assert_eq!(special.authority.userinfo.password, "p@/#");
    }
}
