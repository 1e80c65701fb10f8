//! The stdout sink: one JSON object a line, for piping and for trying things out.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::{Outcome, Sink, Unavailable};
use crate::event::Message;

/// The largest value PostgreSQL can hold: nothing is too large for a pipe.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// Writes messages as lines of JSON.
pub struct StdoutSink {
    /// Held while a batch is written, which happens on a thread for blocking work: a pipe may be
    /// full. A batch that is given up on is still written to its end, so that no line is torn.
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    closed: AtomicBool,
    publish_timeout: Duration,
}

impl StdoutSink {
    /// A sink that writes to standard output.
    pub fn new(publish_timeout: Duration) -> Self {
        Self::to(Box::new(io::stdout()), publish_timeout)
    }

    fn to(out: Box<dyn Write + Send>, publish_timeout: Duration) -> Self {
        Self {
            out: Arc::new(Mutex::new(out)),
            closed: AtomicBool::new(false),
            publish_timeout,
        }
    }

    async fn write(&self, text: String) -> Result<(), Unavailable> {
        let deadline = Instant::now() + self.publish_timeout;
        let stuck = |_| Unavailable::sink("stdout: nobody reads");
        let lock = timeout_at(deadline, Arc::clone(&self.out).lock_owned());
        let mut out = lock.await.map_err(stuck)?;
        let writing = tokio::task::spawn_blocking(move || {
            out.write_all(text.as_bytes())?;
            out.flush()
        });
        let written = timeout_at(deadline, writing).await.map_err(stuck)?;
        written
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| {
                self.closed
                    .fetch_or(error.kind() == io::ErrorKind::BrokenPipe, Ordering::Relaxed);
                Unavailable::sink(format!("stdout: {error}"))
            })
    }
}

#[async_trait]
impl Sink for StdoutSink {
    fn name(&self) -> &'static str {
        "stdout"
    }

    async fn publish(&self, messages: &[&Message]) -> Vec<Outcome> {
        let mut text = String::new();
        for message in messages {
            text.push_str(&line(message));
            text.push('\n');
        }
        let outcome = match self.write(text).await {
            Ok(()) => Outcome::Published,
            Err(unavailable) => Outcome::Unavailable(unavailable),
        };
        vec![outcome; messages.len()]
    }

    async fn probe(&self) -> Result<(), Unavailable> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Unavailable::sink("stdout: the reader has gone"));
        }
        Ok(())
    }

    async fn probe_destination(&self, _: &str) -> Result<(), Unavailable> {
        Ok(())
    }

    fn max_message_bytes(&self) -> usize {
        MAX_MESSAGE_BYTES
    }
}

/// A message as one line of JSON, without the line's end.
///
/// The payload is the JSON value as the row has it if the content type says JSON, a string if it is
/// text, `{"base64": "…"}` if it is neither, and `null` if there is none.
pub fn line(message: &Message) -> String {
    let headers = message.headers.iter();
    let headers: serde_json::Map<_, _> = headers
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    let fields: [(&str, Value); 7] = [
        ("id", json!(message.id)),
        ("destination", json!(message.destination)),
        ("key", json!(message.key)),
        ("type", json!(message.event_type)),
        ("content_type", json!(message.content_type)),
        ("headers", headers.into()),
        ("timestamp_ms", json!(message.timestamp_ms)),
    ];
    let fields = fields.map(|(name, value)| format!("{name:?}:{value}"));
    let payload = payload(message);
    format!("{{{},\"payload\":{payload}}}", fields.join(","))
}

fn payload(message: &Message) -> String {
    let Some(bytes) = message.payload.as_deref() else {
        return "null".into();
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return json!({ "base64": STANDARD.encode(bytes) }).to_string();
    };
    if let Some(text) = message.json() {
        // As it is: parsing would round large numbers. A line break can only stand between tokens.
        return text.replace(['\n', '\r'], " ");
    }
    json!(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn message(content_type: &'static str, payload: Option<&[u8]>) -> Message {
        Message {
            id: "e-1".into(),
            destination: "orders".into(),
            key: None,
            event_type: "OrderPlaced".into(),
            content_type: content_type.into(),
            headers: vec![("tenant".into(), "\"acme\"".into())],
            payload: payload.map(<[u8]>::to_vec),
            timestamp_ms: 7,
        }
    }

    #[test]
    fn a_line_is_one_json_object_in_a_fixed_order() {
        let line = line(&message("application/json", Some(b"{\"a\": 1}")));
        assert_eq!(
            line,
            r#"{"id":"e-1","destination":"orders","key":null,"type":"OrderPlaced","content_type":"application/json","headers":{"tenant":"\"acme\""},"timestamp_ms":7,"payload":{"a": 1}}"#
        );
    }

    #[test]
    fn payloads_keep_their_form() {
        let payload = |content_type, bytes| payload(&message(content_type, bytes));
        let json = "application/json";
        assert_eq!(payload(json, None), "null");
        assert_eq!(
            payload(json, Some(b"[\n12345678901234567890.5]")),
            "[ 12345678901234567890.5]"
        );
        assert_eq!(payload(json, Some(b"not json")), r#""not json""#);
        assert_eq!(payload("text/plain", Some(b"{}\n")), r#""{}\n""#);
        let binary = payload("application/octet-stream", Some(&[0xff, 0xfe]));
        assert_eq!(binary, r#"{"base64":"//4="}"#);
    }

    struct Pipe(mpsc::Sender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(bytes.to_vec());
            sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_closed_pipe_is_the_sinks_fault_and_nobodys_else() {
        let (sender, receiver) = mpsc::channel();
        let sink = StdoutSink::to(Box::new(Pipe(sender)), Duration::from_secs(5));
        let messages = [
            message("text/plain", Some(b"one")),
            message("text/plain", None),
        ];
        let outcomes = sink.publish(&messages.each_ref()).await;
        assert_eq!(outcomes, [Outcome::Published, Outcome::Published]);
        let text = String::from_utf8(receiver.recv().expect("written")).expect("text");
        assert_eq!(text.lines().count(), 2);
        assert_eq!(sink.probe().await, Ok(()));

        drop(receiver);
        let outcomes = sink.publish(&messages.each_ref()).await;
        assert!(matches!(
            outcomes[..],
            [Outcome::Unavailable(_), Outcome::Unavailable(_)]
        ));
        assert!(sink.probe().await.is_err());
    }
}
