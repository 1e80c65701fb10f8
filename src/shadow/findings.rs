//! What a rehearsal finds: counts, and the first examples of each kind.

use super::compare::Part;

/// What can be told of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A message without an id.
    Unidentified,
    /// A message without a row.
    OnlyTheirs,
    /// A row without a message.
    OnlyOurs,
    /// outboxd could not send it.
    Refused,
    /// A part is not the same.
    Part(Part),
    /// They sent it again.
    Duplicate,
    /// They sent it after a later one of its key.
    OutOfOrder,
    /// outboxd would choose another partition.
    OtherPartition,
}

impl Kind {
    /// Whether it says something of them, and not that outboxd would send otherwise.
    pub fn is_note(&self) -> bool {
        matches!(
            self,
            Self::Duplicate | Self::OutOfOrder | Self::OtherPartition
        )
    }
}

/// One event of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Its id.
    pub event: String,
    /// Where its message or row was seen.
    pub at: String,
    /// What outboxd would send.
    pub ours: Option<String>,
    /// What they sent.
    pub theirs: Option<String>,
    /// More of it.
    pub note: Option<String>,
}

/// All events of a kind.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// How many.
    pub count: u64,
    /// The first.
    pub examples: Vec<Example>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that arrived.
    pub messages: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Compared and the same.
    pub same: u64,
    /// The same but for how JSON is written.
    pub written_differently: u64,
    /// Compared and not the same.
    pub different: u64,
    /// Messages without a row.
    pub only_theirs: u64,
    /// Rows without a message.
    pub only_ours: u64,
    /// Rows whose message may yet come.
    pub not_sent_yet: u64,
    /// Messages without an id.
    pub unidentified: u64,
    /// Messages that came again.
    pub duplicates: u64,
    /// Messages after a later one of their key.
    pub out_of_order: u64,
    /// Messages on another partition than outboxd's.
    pub other_partition: u64,
    /// Headers that they do not send.
    pub missing_headers: u64,
    /// Headers with another value.
    pub different_headers: u64,
    /// Headers that only they send.
    pub further_headers: u64,
    /// Messages whose row could not be looked up in time.
    pub left_out: u64,
    /// Rows that were forgotten for want of memory.
    pub dropped: u64,
}

impl Example {
    pub(super) fn new(event: &str, at: &str, note: Option<String>) -> Self {
        Self {
            event: event.into(),
            at: at.into(),
            ours: None,
            theirs: None,
            note,
        }
    }
}

impl Counts {
    /// Events that were compared.
    pub fn compared(&self) -> u64 {
        self.same + self.written_differently + self.different
    }

    /// Whether something was compared, and nothing was found.
    pub fn is_ready(&self) -> bool {
        let found = self.different + self.only_theirs + self.only_ours + self.unidentified;
        found == 0 && self.same + self.written_differently > 0
    }
}

/// The beginning of a value.
pub(super) fn shortened(bytes: &[u8]) -> String {
    const MOST: usize = 60;
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], bytes.len()),
        None => text.into_owned(),
    }
}
