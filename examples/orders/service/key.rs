//! The header Idempotency-Key.

use axum::http::HeaderMap;

use super::answer::Problem;

const HEADER: &str = "idempotency-key";
const LONGEST: usize = 255;

/// The key of a request.
pub fn from_headers(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let value = values.next().ok_or(Problem::KeyMissing)?;
    if values.next().is_some() {
        return Err(Problem::KeyMalformed("There must be one."));
    }
    parse(value.as_bytes()).map_err(Problem::KeyMalformed)
}

/// A string of RFC 8941, as the draft has it (`"8e03978e"`), or the same without quotes, as many
/// clients send it: both name the same key.
fn parse(value: &[u8]) -> Result<String, &'static str> {
    let key = match value {
        [b'"', inner @ .., b'"'] => unquote(inner)?,
        token if token.iter().copied().all(is_token) => token.to_vec(),
        _ => return Err("It must be a string in double quotes, or a token."),
    };
    match key.len() {
        0 => Err("It must not be empty."),
        1..=LONGEST => String::from_utf8(key).map_err(|_| "It must be ASCII."),
        _ => Err("It must not be longer than 255 bytes."),
    }
}

fn unquote(inner: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut key = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        key.push(match byte {
            b'\\' => match bytes.next() {
                Some(&escaped @ (b'\\' | b'"')) => escaped,
                _ => return Err("A backslash must stand before a quote or a backslash."),
            },
            b'"' => return Err("A quote in it needs a backslash."),
            b' '..=b'~' => byte,
            _ => return Err("It must be printable ASCII."),
        });
    }
    Ok(key)
}

/// A token of RFC 9110, and what RFC 8941 adds to it.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_string_and_a_bare_token_are_the_same_key() {
        for value in ["\"8e03978e-40d5\"", "8e03978e-40d5"] {
            assert_eq!(parse(value.as_bytes()).unwrap(), "8e03978e-40d5");
        }
    }

    #[test]
    fn escapes_are_taken_out() {
        assert_eq!(parse(br#""a \"b\" \\c""#).unwrap(), r#"a "b" \c"#);
    }

    #[test]
    fn what_is_neither_string_nor_token_is_refused() {
        let malformed: [&[u8]; 12] = [
            b"",
            b"\"\"",
            b"\"",
            b"\"a",
            b"a b",
            b"a, b",
            b"\"a\", \"b\"",
            b"\"a\";p=1",
            b"\"a\\\"",
            b"\"a\\b\"",
            b"\"\t\"",
            b"k\xc3\xa9y",
        ];
        for value in malformed {
            let text = String::from_utf8_lossy(value);
            assert!(parse(value).is_err(), "{text}");
        }
    }

    #[test]
    fn the_longest_key_has_255_bytes() {
        assert!(parse(&[b'k'; 255]).is_ok());
        assert!(parse(&[b'k'; 256]).is_err());
        // Escapes do not count.
        let quoted = format!("\"{}\"", "\\\"".repeat(255));
        assert_eq!(parse(quoted.as_bytes()).unwrap().len(), 255);
    }

    #[test]
    fn there_must_be_one_header() {
        let mut headers = HeaderMap::new();
        assert!(matches!(from_headers(&headers), Err(Problem::KeyMissing)));
        headers.append(HEADER, HeaderValue::from_static("a"));
        assert_eq!(from_headers(&headers).unwrap(), "a");
        headers.append(HEADER, HeaderValue::from_static("a"));
        let twice = from_headers(&headers);
        assert!(matches!(twice, Err(Problem::KeyMalformed(_))));
    }
}
