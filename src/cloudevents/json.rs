//! The JSON event format, which structured mode is written in.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::Attributes;
use crate::event::{Message, essence};

/// Attributes and data as one JSON object.
pub(super) fn envelope(attributes: &Attributes, message: &Message) -> Vec<u8> {
    let body = message.payload.as_ref().map_or(0, Vec::len);
    let mut json = String::with_capacity(body + 512);
    for (name, text) in attributes {
        push(&mut json, name, &string(text));
    }
    push(&mut json, "datacontenttype", &string(&message.content_type));
    if let Some(payload) = message.payload.as_deref() {
        push_data(&mut json, message, payload);
    }
    json.push('}');
    json.into_bytes()
}

/// JSON goes in as it is written, since parsing would round its numbers; text as a string. All else is
/// base64, what only claims to be JSON or UTF-8 too: no byte of it is lost.
fn push_data(json: &mut String, message: &Message, payload: &[u8]) {
    if let Some(value) = message.json() {
        push(json, "data", value);
    } else if let Some(text) = text(&message.content_type, payload) {
        push(json, "data", &string(text));
    } else {
        push(json, "data_base64", &string(&STANDARD.encode(payload)));
    }
}

fn push(json: &mut String, name: &str, value: &str) {
    let before = if json.is_empty() { "{\"" } else { ",\"" };
    json.extend([before, name, "\":", value]);
}

fn string(text: &str) -> String {
    Value::from(text).to_string()
}

/// The payload as text, if it is some by its content type and its bytes.
fn text<'a>(content_type: &str, payload: &'a [u8]) -> Option<&'a str> {
    let essence = essence(content_type).to_ascii_lowercase();
    let is_text =
        essence.starts_with("text/") || essence.ends_with("/xml") || essence.ends_with("+xml");
    let is_readable = is_text && charset_is_utf8(content_type);
    is_readable
        .then(|| std::str::from_utf8(payload).ok())
        .flatten()
}

fn charset_is_utf8(content_type: &str) -> bool {
    let parameters = content_type.split(';').skip(1);
    let mut charsets = parameters
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    charsets.all(|(_, charset)| {
        let charset = charset.trim().trim_matches('"').to_ascii_lowercase();
        matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii")
    })
}
