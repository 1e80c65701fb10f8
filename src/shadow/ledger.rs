//! What outboxd would send and what another relay sent, matched by event id. Pure but for its size:
//! nothing in here waits, reads or prints.
//!
//! # Design notes
//! * A row waits here for its message, and a message for its row, which is looked up once. What was
//!   compared is forgotten but for its id.
//! * Bounded: the oldest rows go first. Their messages are looked up again, so that only an event that was
//!   never sent can go unnoticed; how many were dropped is told.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use super::{
    compare::{Comparison, Difference, Part, Sent, compare},
    findings::{Counts, Example, Group, Kind, shortened},
    sides::{Expected, OrderingKey, Ours, Rules, Theirs, matching},
};
use crate::event::RowId;

/// Rows that wait for their message take no more than this.
const MOST_BYTES: usize = 256 << 20;
const MOST_ROWS: usize = 500_000;
/// Ids of what was compared.
const MOST_IDS: usize = 1_000_000;
/// Keys whose order is watched.
const MOST_KEYS: usize = 200_000;
/// Kinds of differences: headers may have any name.
const MOST_KINDS: usize = 100;

/// See the module.
pub struct Ledger {
    rules: Rules,
    /// What was counted.
    pub counts: Counts,
    /// What was found, by kind.
    pub groups: BTreeMap<Kind, Group>,
    ours: HashMap<String, Ours>,
    /// The same by age; those that are gone from `ours` among them.
    ages: VecDeque<String>,
    bytes: usize,
    /// In the order of arrival, each with its key's later ones: their order is watched.
    waiting: Vec<(String, Theirs)>,
    waiting_keys: HashSet<OrderingKey>,
    /// Hashes of ids: that two of a million are alike happens once in thirty million times.
    done: HashSet<u64>,
    done_ages: VecDeque<u64>,
    hasher: RandomState,
    newest: HashMap<OrderingKey, i64>,
    oldest_compared: Option<i64>,
}

impl Ledger {
    /// Empty.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            counts: Counts::default(),
            groups: BTreeMap::new(),
            ours: HashMap::new(),
            ages: VecDeque::new(),
            bytes: 0,
            waiting: Vec::new(),
            waiting_keys: HashSet::new(),
            done: HashSet::new(),
            done_ages: VecDeque::new(),
            hasher: RandomState::new(),
            newest: HashMap::new(),
            oldest_compared: None,
        }
    }

    /// A row was read.
    pub fn remember(&mut self, event_id: &str, ours: Ours) {
        let id = matching(event_id);
        if self.is_known(&id) {
            return;
        }
        self.counts.rows += 1;
        self.bytes += ours.size();
        self.ages.push_back(id.clone());
        self.ours.insert(id, ours);
        while self.bytes > MOST_BYTES || self.ours.len() > MOST_ROWS {
            let Some(oldest) = self.ages.pop_front() else {
                break;
            };
            if self.forget(&oldest).is_some() {
                self.counts.dropped += 1;
            }
        }
        // Ids of rows that are gone are left behind in the middle.
        if self.ages.len() > 2 * self.ours.len() + 1000 {
            let ours = &self.ours;
            self.ages.retain(|id| ours.contains_key(id));
        }
    }

    /// A message arrived.
    pub fn arrived(&mut self, theirs: Theirs) {
        self.counts.messages += 1;
        let Some(id) = theirs.sent.header(&self.rules.id_header) else {
            self.counts.unidentified += 1;
            let names = theirs.sent.headers.iter().map(|(name, _)| name.as_str());
            let names = names.collect::<Vec<_>>().join(", ");
            let note = format!("no header {}; there are: {names}", self.rules.id_header);
            self.tell(Kind::Unidentified, Example::new("", &theirs.at, Some(note)));
            return;
        };
        let id = matching(&String::from_utf8_lossy(id));
        let key = theirs.ordering_key(theirs.sent.key.as_deref());
        if !self.waiting_keys.contains(&key) && self.is_known(&id) {
            self.judge(&id, &theirs);
        } else {
            self.waiting.push((id, theirs));
            self.waiting_keys.insert(key);
        }
    }

    /// How many messages wait for their row to be looked up.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The ids of those of them whose row is unknown.
    pub fn unknown(&self) -> Vec<String> {
        let waiting = self.waiting.iter();
        let unknown = waiting.filter(|(id, _)| !self.is_known(id));
        unknown.map(|(id, _)| id.clone()).collect()
    }

    /// The rows of those that wait were looked up: who has none now has none.
    pub fn looked_up(&mut self) {
        self.waiting_keys.clear();
        for (id, theirs) in std::mem::take(&mut self.waiting) {
            self.judge(&id, &theirs);
        }
    }

    /// Rows cannot be looked up: who has none now is left out.
    pub fn not_looked_up(&mut self) {
        let all = self.waiting.len();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.waiting = waiting.filter(|(id, _)| self.is_known(id)).collect();
        self.counts.left_out += (all - self.waiting.len()) as u64;
        self.looked_up();
    }

    /// Rows whose message must have come or must yet come.
    pub fn unsent(&self) -> Vec<(String, RowId, Instant)> {
        let older_came = |place: Option<i64>| {
            let both = place.zip(self.oldest_compared);
            both.is_some_and(|(place, oldest)| place > oldest)
        };
        let unsent = self.ours.iter().filter(|(_, ours)| match ours.expected {
            Expected::Yes => true,
            Expected::IfOlderCame => older_came(ours.place),
            Expected::No => false,
        });
        unsent
            .map(|(id, ours)| (id.clone(), ours.row.clone(), ours.seen_at))
            .collect()
    }

    /// Whether that event's message has not come.
    pub fn is_unsent(&self, id: &str) -> bool {
        self.ours.contains_key(id)
    }

    /// The end: the messages of these rows never came.
    pub fn conclude(&mut self, never_sent: &[String], not_sent_yet: u64, grace: Duration) {
        for id in never_sent {
            if let Some(ours) = self.forget(id) {
                self.counts.only_ours += 1;
                let age = ours.seen_at.elapsed();
                let note = (age >= grace).then(|| format!("seen {} s ago", age.as_secs()));
                self.tell(
                    Kind::OnlyOurs,
                    Example::new(id, &format!("row {}", ours.row), note),
                );
            }
        }
        self.counts.not_sent_yet = not_sent_yet;
    }

    fn is_known(&self, id: &str) -> bool {
        self.is_done(id) || self.ours.contains_key(id)
    }

    fn forget(&mut self, id: &str) -> Option<Ours> {
        let ours = self.ours.remove(id)?;
        self.bytes -= ours.size();
        Some(ours)
    }

    fn judge(&mut self, id: &str, theirs: &Theirs) {
        if self.is_done(id) {
            self.counts.duplicates += 1;
            self.tell(Kind::Duplicate, Example::new(id, &theirs.at, None));
            return;
        }
        let ours = self.forget(id);
        self.finish(id);
        let Some(ours) = ours else {
            self.counts.only_theirs += 1;
            self.tell(Kind::OnlyTheirs, Example::new(id, &theirs.at, None));
            return;
        };
        self.oldest_compared = match (self.oldest_compared, ours.place) {
            (Some(oldest), Some(place)) => Some(oldest.min(place)),
            (oldest, place) => oldest.or(place),
        };
        self.watch_order(id, &ours, theirs);
        match ours.sent {
            Ok(sent) => self.compare(id, &sent, theirs),
            Err(reason) => {
                self.counts.different += 1;
                self.tell(Kind::Refused, Example::new(id, &theirs.at, Some(reason)));
            }
        }
    }

    fn compare(&mut self, id: &str, ours: &Sent, theirs: &Theirs) {
        if let Some(partition) = theirs.our_partition {
            self.counts.other_partition += 1;
            let note = format!("outboxd would choose partition {partition}");
            self.tell(
                Kind::OtherPartition,
                Example::new(id, &theirs.at, Some(note)),
            );
        }
        match compare(ours, &theirs.sent, &self.rules.ignored_headers) {
            Comparison::Same => self.counts.same += 1,
            Comparison::WrittenDifferently => self.counts.written_differently += 1,
            Comparison::Different(differences) => {
                self.counts.different += 1;
                for difference in differences {
                    self.tell_difference(id, &theirs.at, difference);
                }
            }
        }
    }

    fn tell_difference(&mut self, id: &str, at: &str, difference: Difference) {
        let counts = &mut self.counts;
        match &difference.part {
            Part::MissingHeader(_) => counts.missing_headers += 1,
            Part::OtherHeader(_) => counts.different_headers += 1,
            Part::FurtherHeader(_) => counts.further_headers += 1,
            _ => {}
        }
        let hides = difference.part == Part::Payload && !self.rules.shows_payloads;
        let show = |bytes: Option<Vec<u8>>| {
            bytes.map(|bytes| match (hides, self.rules.shows_payloads) {
                (true, _) => format!("{} bytes", bytes.len()),
                (false, true) => String::from_utf8_lossy(&bytes).into_owned(),
                (false, false) => shortened(&bytes),
            })
        };
        let example = Example {
            event: id.into(),
            at: at.into(),
            ours: show(difference.ours),
            theirs: show(difference.theirs),
            note: difference.note,
        };
        self.tell(Kind::Part(difference.part), example);
    }

    /// Notes a message that comes after a later one of its key.
    fn watch_order(&mut self, id: &str, ours: &Ours, theirs: &Theirs) {
        let key = ours.sent.as_ref().ok().and_then(|sent| sent.key.as_deref());
        let (Some(place), Some(key)) = (ours.place, key) else {
            return;
        };
        let key = theirs.ordering_key(Some(key));
        if self.newest.len() >= MOST_KEYS {
            self.newest.clear();
        }
        let note = format!("key {}", shortened(&key.2));
        let newest = self.newest.entry(key).or_insert(place);
        if place < *newest {
            self.counts.out_of_order += 1;
            self.tell(Kind::OutOfOrder, Example::new(id, &theirs.at, Some(note)));
        } else {
            *newest = place;
        }
    }

    fn is_done(&self, id: &str) -> bool {
        self.done.contains(&self.hasher.hash_one(id))
    }

    fn finish(&mut self, id: &str) {
        let id = self.hasher.hash_one(id);
        self.done.insert(id);
        self.done_ages.push_back(id);
        if self.done_ages.len() > MOST_IDS
            && let Some(oldest) = self.done_ages.pop_front()
        {
            self.done.remove(&oldest);
        }
    }

    fn tell(&mut self, kind: Kind, example: Example) {
        if self.groups.len() >= MOST_KINDS && !self.groups.contains_key(&kind) {
            return;
        }
        let group = self.groups.entry(kind).or_default();
        group.count += 1;
        if group.examples.len() < self.rules.examples {
            group.examples.push(example);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(Rules {
            id_header: "id".into(),
            ignored_headers: Vec::new(),
            examples: 3,
            shows_payloads: false,
        })
    }

    fn sent(id: &str) -> Sent {
        Sent {
            destination: "orders".into(),
            key: Some(b"a".to_vec()),
            headers: vec![("id".into(), Some(id.as_bytes().to_vec()))],
            ..Sent::default()
        }
    }

    fn theirs(id: &str) -> Theirs {
        Theirs {
            sent: sent(id),
            at: "orders[0]@1".into(),
            stream: "0".into(),
            our_partition: None,
        }
    }

    fn ours(id: &str, place: i64) -> Ours {
        Ours {
            sent: Ok(sent(id)),
            row: RowId::Number(place),
            place: Some(place),
            expected: Expected::Yes,
            seen_at: Instant::now(),
        }
    }

    #[test]
    fn row_and_message_meet_in_either_order() {
        let mut ledger = ledger();
        ledger.remember("1", ours("1", 1));
        ledger.arrived(theirs("1"));
        ledger.arrived(theirs("2"));
        assert_eq!(ledger.unknown(), ["2"]);
        ledger.remember("2", ours("2", 2));
        ledger.looked_up();
        assert_eq!((ledger.counts.same, ledger.waiting()), (2, 0));
        assert!(ledger.counts.is_ready() && ledger.unsent().is_empty());
    }

    #[test]
    fn a_message_without_a_row_is_told_once_and_its_copy_is_a_duplicate() {
        let mut ledger = ledger();
        ledger.arrived(theirs("1"));
        ledger.arrived(theirs("1"));
        ledger.looked_up();
        ledger.arrived(theirs("1"));
        assert_eq!(
            (ledger.counts.only_theirs, ledger.counts.duplicates),
            (1, 2)
        );
        assert!(!ledger.counts.is_ready());
        // Too late: it would be told a second time otherwise.
        ledger.remember("1", ours("1", 1));
        assert_eq!(ledger.counts.rows, 0);
    }

    #[test]
    fn order_is_that_of_arrival_however_late_rows_are_found() {
        let mut ledger = ledger();
        ledger.remember("2", ours("2", 2));
        ledger.arrived(theirs("1"));
        ledger.arrived(theirs("2"));
        ledger.remember("1", ours("1", 1));
        ledger.looked_up();
        assert_eq!((ledger.counts.same, ledger.counts.out_of_order), (2, 0));

        ledger.remember("4", ours("4", 4));
        ledger.arrived(theirs("4"));
        ledger.arrived(theirs("3"));
        ledger.remember("3", ours("3", 3));
        ledger.looked_up();
        assert_eq!((ledger.counts.same, ledger.counts.out_of_order), (4, 1));
    }

    #[test]
    fn rows_that_were_there_before_need_no_message_unless_an_older_one_came() {
        let mut ledger = ledger();
        let mut old = |id: &str, place, expected| {
            let ours = Ours {
                expected,
                ..ours(id, place)
            };
            ledger.remember(id, ours);
        };
        old("1", 1, Expected::IfOlderCame);
        old("2", 2, Expected::IfOlderCame);
        old("3", 3, Expected::IfOlderCame);
        old("4", 4, Expected::No);
        assert!(ledger.unsent().is_empty());
        ledger.arrived(theirs("2"));
        let unsent: Vec<_> = ledger.unsent().into_iter().map(|(id, ..)| id).collect();
        assert_eq!(unsent, ["3"]);
        ledger.conclude(&unsent, 0, Duration::from_secs(30));
        assert_eq!((ledger.counts.only_ours, ledger.counts.same), (1, 1));
    }

    #[test]
    fn memory_is_bounded_and_what_was_dropped_is_told() {
        let mut ledger = ledger();
        let large = |id: &str| Ours {
            sent: Ok(Sent {
                payload: Some(vec![0; MOST_BYTES / 3]),
                ..sent(id)
            }),
            ..ours(id, 1)
        };
        for id in ["1", "2", "3", "4"] {
            ledger.remember(id, large(id));
        }
        assert_eq!(ledger.counts.dropped, 2);
        assert!(!ledger.is_unsent("1") && ledger.is_unsent("4"));
        assert!(ledger.bytes <= MOST_BYTES);
        for id in ["3", "4"] {
            ledger.arrived(theirs(id));
        }
        assert_eq!(ledger.bytes, 0);
    }

    #[test]
    fn ids_match_in_capitals_and_as_json_strings_and_are_told_as_different() {
        let id = "0190a1b2-0000-7000-8000-00000000000a";
        for written in [id.to_uppercase(), format!("\"{id}\"")] {
            let mut ledger = ledger();
            ledger.remember(id, ours(id, 1));
            ledger.arrived(theirs(&written));
            assert_eq!(ledger.counts.different_headers, 1, "{written}");
        }
        assert_eq!(matching("A"), "A");
    }

    #[test]
    fn messages_whose_rows_cannot_be_looked_up_are_left_out() {
        let mut ledger = ledger();
        ledger.arrived(theirs("1"));
        ledger.arrived(theirs("2"));
        ledger.remember("2", ours("2", 2));
        ledger.not_looked_up();
        let counts = ledger.counts;
        assert_eq!(
            (counts.left_out, counts.same, counts.only_theirs),
            (1, 1, 0)
        );
    }
}
