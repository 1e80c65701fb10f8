//! `--database-url`: parsed strictly. sqlx only warns about what it does not know (and prints the
//! value), and its `prefer` falls back to plain text in silence.

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

const KNOWN: [&str; 10] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

/// Parses a PostgreSQL URL. Without `sslmode`, a local server is spoken to in plain text and any
/// other with `verify-full`.
///
/// # Errors
/// In words, without the password.
pub fn connect_options(text: &str) -> Result<PgConnectOptions, String> {
    let url = Url::parse(text).map_err(|error| {
        format!("it is not a URL ({error}); write it like postgres://user:password@host:5432/database?sslmode=verify-full")
    })?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(format!("its scheme is `{}`, not `postgres`", url.scheme()));
    }
    let mut ssl_mode = None;
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "options" => return Err("`options` cannot be set: it does not pass PgBouncer".into()),
            "sslmode" | "ssl-mode" => ssl_mode = Some(value.into_owned()),
            name if KNOWN.contains(&name) => {}
            name => {
                let known = KNOWN.join(", ");
                // With a bare ? in it, a password ends up here.
                return Err(if url.query().is_some_and(|query| query.contains('@')) {
                    format!(
                        "one of its parameters is not known; known are {known} (in a password, write %3F for ?)"
                    )
                } else {
                    format!("its parameter `{name}` is not known; known are {known}")
                });
            }
        }
    }
    if matches!(ssl_mode.as_deref(), Some("allow" | "prefer")) {
        return Err("sslmode allow and prefer fall back to plain text in silence: use verify-full, or disable to go without TLS".into());
    }
    let options: PgConnectOptions = text
        .parse()
        .map_err(|error: sqlx::Error| scrub(&url, &error.to_string()))?;
    Ok(match ssl_mode {
        Some(_) => options,
        None if is_local(&options) => options.ssl_mode(PgSslMode::Disable),
        None => options.ssl_mode(PgSslMode::VerifyFull),
    })
}

/// Whether TLS is on but the server's certificate is not verified.
pub fn is_unverified(options: &PgConnectOptions) -> bool {
    matches!(
        options.get_ssl_mode(),
        PgSslMode::Require | PgSslMode::VerifyCa
    )
}

/// Whether the server is on this machine: there is no network to protect.
pub fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host == "localhost"
        || host.starts_with('/')
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// The URL for logs: without the password and the parameters.
pub fn display(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        return "(invalid)".into();
    };
    url.set_query(None);
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "(hidden)".into();
    }
    url.into()
}

fn scrub(url: &Url, message: &str) -> String {
    match url.password() {
        Some(password) if !password.is_empty() => message.replace(password, "***"),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssl_mode(url: &str) -> PgSslMode {
        connect_options(url).unwrap().get_ssl_mode()
    }

    #[test]
    fn tls_is_verified_unless_the_server_is_local_or_the_url_says_otherwise() {
        assert!(matches!(
            ssl_mode("postgres://u:p@db.example/x"),
            PgSslMode::VerifyFull
        ));
        assert!(matches!(
            ssl_mode("postgres://u:p@127.0.0.1/x"),
            PgSslMode::Disable
        ));
        assert!(matches!(
            ssl_mode("postgres://u:p@[::1]/x"),
            PgSslMode::Disable
        ));
        assert!(matches!(
            ssl_mode("postgres://u:p@db.example/x?sslmode=disable"),
            PgSslMode::Disable
        ));
        assert!(connect_options("postgres://u:p@db.example/x?sslmode=prefer").is_err());
    }

    #[test]
    fn errors_and_displays_never_hold_the_password() {
        for url in [
            "postgres://u:canary@h/x?nonsense=canary",
            "postgres://u:12?canary@h/x",
            "mysql://u:canary@h/x",
            "postgres://u:canary@h/x?sslmode=canary",
            "postgres://u:canary@h:port/x",
        ] {
            let error = connect_options(url).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
        }
        assert_eq!(
            display("postgres://u:canary@h:1/x?password=canary"),
            "postgres://u:***@h:1/x"
        );
    }
}
