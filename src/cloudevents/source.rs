//! URI references, as RFC 3986 has them: the type of the attribute `source`.

use std::net::Ipv6Addr;

/// What is wrong with a URI reference, if anything.
pub(super) fn problem(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("it is empty".into());
    }
    if let Some(illegal) = text.chars().find(|&c| !is_legal(c)) {
        return Some(format!("it has a {illegal:?}"));
    }
    let is_hex = |escape: &str| {
        let digits = escape.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_hex) {
        return Some("two hexadecimal digits must follow each '%'".into());
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let Some(rest) = without_scheme(rest) else {
        return Some("what is before its ':' is no scheme".into());
    };
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    if [path, query, fragment].concat().contains(['[', ']', '#']) {
        return Some("it has a '[', ']' or '#' where none may be".into());
    }
    authority_problem(authority).map(Into::into)
}

fn is_legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c)
}

/// What follows the scheme, if there is one. A colon in the first segment of a path would make what is
/// before it one: `None` if that cannot be.
fn without_scheme(text: &str) -> Option<&str> {
    let Some((scheme, rest)) = text.split_once(':') else {
        return Some(text);
    };
    if scheme.contains('/') {
        return Some(text);
    }
    let begins = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (begins && scheme.chars().all(legal)).then_some(rest)
}

/// Of `user@host:port`, of which only the host must be there, and may be empty.
fn authority_problem(authority: &str) -> Option<&'static str> {
    let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Some("it has a password, which everybody who reads an event would see");
    }
    let (host, port) = match place.rfind(':') {
        Some(at) if !place.ends_with(']') => place.split_at(at),
        _ => (place, ""),
    };
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_host = match literal {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.contains([':', '[', ']']),
    };
    let is_port = port.bytes().skip(1).all(|b| b.is_ascii_digit());
    let is_user = !user.contains(['[', ']', '@']);
    (!is_host || !is_port || !is_user).then_some("its host and port are not like example.com:443")
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn uri_references_are_taken() {
        for good in [
            "https://example.com/orders?region=eu#1",
            "//example.com:443",
            "http://[::1]:80/x",
            "mailto:orders@example.com",
            "http://user@[::1]/",
            "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "/orders/a:b",
            "1-555-123-4567",
            "orders",
            "./a:b",
            "#x",
            "?x=/?:@",
            "/caf%C3%A9",
            "file:///srv/orders",
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            " ",
            "my orders",
            "/café",
            "/a%2",
            "/100%",
            "1:2",
            ":x",
            "a#b#c",
            "/a[1]",
            "http://[::1",
            "http://[x]/",
            "http://a]b/",
            "http://host:8o80/",
            "http://a@b@c/",
            "http://h:1:2/",
            "http://user:secret@host/",
            "/a\"b",
            "/a\\b",
            "{x}",
        ] {
            assert!(problem(bad).is_some(), "{bad:?}");
        }
    }
}
