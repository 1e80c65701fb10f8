//! The two sides that a ledger brings together: rows and messages.

use std::time::Instant;

use super::compare::Sent;
use crate::event::RowId;

/// What of the command's settings matters here.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The header that carries the event id.
    pub id_header: String,
    /// Headers that do not count.
    pub ignored_headers: Vec<String>,
    /// How many examples of each kind of difference are kept.
    pub examples: usize,
    /// Whether examples have whole payloads.
    pub shows_payloads: bool,
}

/// A row, as the message that outboxd would send.
#[derive(Debug, Clone)]
pub struct Ours {
    /// The message, or why there is none.
    pub sent: Result<Sent, String>,
    /// The row.
    pub row: RowId,
    /// Where it stands in the table's order, where that can be told.
    pub place: Option<i64>,
    /// Whether its message must come.
    pub expected: Expected,
    /// When the row was seen first.
    pub seen_at: Instant,
}

/// Whether a row's message must come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The row was not there at the start.
    Yes,
    /// It was; but messages are read from their beginning: if one of an older row is among them.
    IfOlderCame,
    /// It was, and may have been sent before.
    No,
}

/// A message of the other relay.
#[derive(Debug, Clone)]
pub struct Theirs {
    /// The message.
    pub sent: Sent,
    /// Where it was seen: `orders[2]@17`.
    pub at: String,
    /// What keeps messages in order: the partition or queue.
    pub stream: String,
    /// The partition that outboxd would choose, where that is another.
    pub our_partition: Option<i32>,
}

/// Stream, destination and key.
pub(super) type OrderingKey = (String, String, Vec<u8>);

impl Theirs {
    pub(super) fn ordering_key(&self, key: Option<&[u8]>) -> OrderingKey {
        let key = key.unwrap_or_default().to_vec();
        (self.stream.clone(), self.sent.destination.clone(), key)
    }
}

impl Ours {
    pub(super) fn size(&self) -> usize {
        self.sent.as_ref().map_or(100, |sent| sent.size() + 200)
    }
}

/// What events are matched by: an id without the quotes of a JSON string (Kafka Connect's header
/// converter may write them), UUIDs in small letters. That they differ is told as any header's difference.
pub(super) fn matching(id: &str) -> String {
    let id = id.trim_matches('"');
    let is_uuid = id.len() == 36 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if is_uuid {
        return id.to_ascii_lowercase();
    }
    id.to_owned()
}
