//! The history checker: what was written, what arrived and what was done to the system in between,
//! held against the promise.
//!
//! One pass over the deliveries, in the broker's order per key, decides:
//!
//! * **no loss**: what was committed has arrived, or is dead for a reason of its own;
//! * **no phantom**: what arrived was committed, and arrived as it was written;
//! * **order**: per key, first arrivals have rising ids;
//! * **duplicates**: each has a fault between its copies that explains it, and no fault explains more
//!   than was in flight when it struck;
//! * **attempts**: only events that cannot be delivered are charged, once, and lie dead and whole;
//!   where the destination may refuse an event for a while, its attempts rise by one each time;
//! * **conservation**: nothing is left pending, and the rows that should be there are;
//! * **liveness**: events arrive again soon after each fault is healed;
//! * **drain**: a relay that is told to end does so in order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use crate::history::{Charge, Fate, History, Injected, RECOVERY, Row, Stop, index};

/// What a run came to.
#[derive(Debug, Default)]
pub struct Verdict {
    pub committed: usize,
    pub duplicates: usize,
    /// As many duplicates as the faults may have caused.
    pub may_repeat: usize,
    /// The longest time from a fault's end to the next arrival.
    pub recovery: Duration,
    pub violations: Vec<Violation>,
}

/// That an invariant was broken.
#[derive(Debug)]
pub struct Violation {
    pub invariant: &'static str,
    /// The first bad event.
    pub number: Option<u64>,
    pub detail: String,
}

impl Verdict {
    /// The invariants that were broken, each once.
    pub fn broken(&self) -> Vec<&'static str> {
        let mut broken: Vec<_> = self.violations.iter().map(|v| v.invariant).collect();
        broken.dedup();
        broken
    }
}

/// An event's place in what the checker knows.
#[derive(Default, Clone, Copy)]
struct Seen {
    id: i64,
    latest: Option<Duration>,
}

impl History {
    /// Checks every invariant.
    pub fn check(&self) -> Verdict {
        let mut verdict = Verdict {
            committed: self.rows.len(),
            may_repeat: self.faults.iter().map(|fault| fault.may_repeat).sum(),
            ..Verdict::default()
        };
        let mut events = vec![Seen::default(); self.written.len()];
        for row in &self.rows {
            events[index(row.number)].id = row.id;
        }
        self.check_journal(&events, &mut verdict);
        self.check_arrivals(&mut events, &mut verdict);
        self.check_loss(&events, &mut verdict);
        self.check_attempts(&mut verdict);
        self.check_conservation(&mut verdict);
        self.check_liveness(&mut verdict);
        self.check_drain(&mut verdict);
        verdict
    }

    /// What the writers were told must be so: otherwise it is the test that is broken, or PostgreSQL.
    fn check_journal(&self, events: &[Seen], verdict: &mut Verdict) {
        let mut wrong = Offenders::new("journal");
        for (number, written) in (0..).zip(&self.written) {
            let there = events[index(number)].id != 0;
            let told = match written.fate {
                Fate::Committed => Some(true),
                Fate::RolledBack => Some(false),
                Fate::Unknown => None,
            };
            if told.is_some_and(|told| told != there) {
                wrong.add(number, || format!("the writer was told {:?}", written.fate));
            }
        }
        wrong.report(verdict);
    }

    fn check_arrivals(&self, events: &mut [Seen], verdict: &mut Verdict) {
        let mut phantom = Offenders::new("phantom");
        let mut altered = Offenders::new("altered");
        let mut inverted = Offenders::new("order");
        let mut unexplained = Offenders::new("unexplained duplicate");
        let mut faults = Explanations::new(&self.faults);
        let mut newest: HashMap<u32, (i64, u64)> = HashMap::new();
        for arrival in &self.arrivals {
            let known = arrival
                .number
                .filter(|&number| events.get(index(number)).is_some_and(|event| event.id != 0));
            let Some(number) = known else {
                let nobody = arrival.number.unwrap_or(u64::MAX);
                phantom.add(nobody, || format!("arrived at {:?}", arrival.at));
                continue;
            };
            if !arrival.intact {
                altered.add(number, || format!("arrived at {:?}", arrival.at));
            }
            let event = &mut events[index(number)];
            if let Some(latest) = event.latest.replace(arrival.at) {
                verdict.duplicates += 1;
                if !faults.explain(latest, arrival.at) {
                    unexplained.add(number, || {
                        format!("arrived at {latest:?} and at {:?}", arrival.at)
                    });
                }
                continue;
            }
            let key = self.written[index(number)].key;
            let (newest_id, before) = newest.entry(key).or_default();
            if event.id < *newest_id {
                inverted.add(number, || {
                    format!("first arrived after event {before}, id {newest_id}, of its key")
                });
            } else {
                (*newest_id, *before) = (event.id, number);
            }
        }
        for offenders in [phantom, altered, inverted, unexplained] {
            offenders.report(verdict);
        }
    }

    fn check_loss(&self, events: &[Seen], verdict: &mut Verdict) {
        let mut lost = Offenders::new("loss");
        let mut delivered = Offenders::new("delivered poison");
        let pending: HashSet<_> = self.left.pending.iter().collect();
        for row in &self.rows {
            let arrived = events[index(row.number)].latest.is_some();
            let poison = self.written[index(row.number)].poison;
            if poison && arrived {
                delivered.add(row.number, || "it should have been refused".into());
            } else if !poison && !arrived && !pending.contains(&row.number) {
                lost.add(row.number, || "it never arrived, and is not pending".into());
            }
        }
        lost.report(verdict);
        delivered.report(verdict);
    }

    fn check_attempts(&self, verdict: &mut Verdict) {
        let mut wrong = Offenders::new("attempts");
        let mut charges: BTreeMap<u64, Vec<&Charge>> = BTreeMap::new();
        for charge in &self.charges {
            charges.entry(charge.number).or_default().push(charge);
        }
        for row in &self.rows {
            let charges = charges.remove(&row.number).unwrap_or_default();
            let written = &self.written[index(row.number)];
            let right = match &charges[..] {
                [first, rest @ ..] if written.poison => died_once_a_try(first, rest),
                charges if written.refusable && !written.poison => rise_by_one(charges),
                charges => charges.is_empty() && !written.poison,
            };
            if !right {
                wrong.add(row.number, || format!("charged: {charges:?}"));
            }
        }
        for number in charges.keys() {
            wrong.add(*number, || "charged, and not there".into());
        }
        wrong.report(verdict);
    }

    fn check_conservation(&self, verdict: &mut Verdict) {
        let mut left_over = Offenders::new("left over");
        for &number in &self.left.pending {
            left_over.add(number, || "still pending".into());
        }
        for &number in &self.left.retrying {
            left_over.add(number, || "still to be tried again".into());
        }
        left_over.report(verdict);
        let mut wrong = Offenders::new("conservation");
        let poison = |row: &&Row| self.written[index(row.number)].poison;
        let mut expected: Vec<u64> = self.rows.iter().filter(poison).map(|r| r.number).collect();
        let mut dead = self.left.dead.clone();
        expected.sort_unstable();
        dead.sort_unstable();
        if dead != expected {
            let odd = expected.iter().find(|number| !dead.contains(number));
            let odd = odd.or_else(|| dead.iter().find(|number| !expected.contains(number)));
            wrong.add(odd.copied().unwrap_or(u64::MAX), || {
                format!("{} dead, and {} should be", dead.len(), expected.len())
            });
        }
        let accounted =
            (self.left.published).map(|published| published + dead.len() + self.left.pending.len());
        if accounted.is_some_and(|accounted| accounted != self.rows.len()) {
            wrong.add(u64::MAX, || {
                format!("inserted {}, accounted for {accounted:?}", self.rows.len())
            });
        }
        wrong.report(verdict);
    }

    /// After each fault's end something arrives soon, if anything was written meanwhile.
    fn check_liveness(&self, verdict: &mut Verdict) {
        let mut arrived: Vec<Duration> = self.arrivals.iter().map(|a| a.at).collect();
        arrived.sort_unstable();
        let last_written = self.written.iter().map(|written| written.at).max();
        for fault in &self.faults {
            if last_written.is_none_or(|last| last < fault.until) {
                continue; // nothing need be left to arrive
            }
            let next = arrived.partition_point(|&at| at < fault.until);
            let recovery = arrived
                .get(next)
                .map_or(Duration::MAX, |at| at.saturating_sub(fault.until));
            verdict.recovery = verdict.recovery.max(recovery);
            if recovery > RECOVERY {
                verdict.violations.push(Violation {
                    invariant: "liveness",
                    number: None,
                    detail: format!("nothing arrived for {recovery:?} after: {fault:?}"),
                });
            }
        }
    }

    /// Every relay that was told to end did so in order.
    fn check_drain(&self, verdict: &mut Verdict) {
        let disorderly: Vec<&Stop> = self.stops.iter().filter(|stop| !stop.orderly).collect();
        if let Some(first) = disorderly.first() {
            verdict.violations.push(Violation {
                invariant: "drain",
                number: None,
                detail: format!("{} relays, the first at {:?}", disorderly.len(), first.at),
            });
        }
    }
}

/// What the faults may still explain.
struct Explanations<'a>(Vec<(&'a Injected, usize)>);

impl<'a> Explanations<'a> {
    fn new(faults: &'a [Injected]) -> Self {
        let faults = faults.iter().map(|fault| (fault, fault.may_repeat));
        let mut faults: Vec<_> = faults.collect();
        faults.sort_by_key(|(fault, _)| fault.from);
        Self(faults)
    }

    /// Whether a fault lies between two copies: the latest that has not explained as many already as
    /// were in flight then.
    fn explain(&mut self, one: Duration, next: Duration) -> bool {
        let between = |(fault, left): &&mut (&Injected, usize)| {
            *left > 0 && fault.from <= next && one <= fault.until + fault.echo
        };
        let explained = self.0.iter_mut().rev().find(between);
        explained.is_some_and(|(_, left)| {
            *left -= 1;
            true
        })
    }
}

/// Dead at its first try, and again each time that it was redriven; discarded, it is left alone.
fn died_once_a_try(first: &Charge, rest: &[&Charge]) -> bool {
    let died = |charge: &Charge| charge.state == "dead" && charge.attempts == 1;
    let mut state = "dead";
    died(first)
        && rest.iter().all(|charge| {
            let right = match (state, charge.state.as_str()) {
                ("dead", "retrying") => charge.attempts == 0,
                ("dead", "discarded") => charge.attempts == 1,
                ("retrying", "dead") => died(charge),
                _ => false,
            };
            state = &charge.state;
            right
        })
}

/// Events that break one invariant: the first, and how many.
struct Offenders {
    invariant: &'static str,
    first: Option<(u64, String)>,
    count: usize,
}

impl Offenders {
    fn new(invariant: &'static str) -> Self {
        Self {
            invariant,
            first: None,
            count: 0,
        }
    }

    fn add(&mut self, number: u64, detail: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(|| (number, detail()));
    }

    fn report(self, verdict: &mut Verdict) {
        if let Some((number, detail)) = self.first {
            verdict.violations.push(Violation {
                invariant: self.invariant,
                number: Some(number),
                detail: format!("{} events, the first is {number}: {detail}", self.count),
            });
        }
    }
}

/// Whether these are negative answers one after another, none of them the last.
fn rise_by_one(charges: &[&Charge]) -> bool {
    (1..)
        .zip(charges)
        .all(|(attempts, charge)| charge.state == "retrying" && charge.attempts == attempts)
}
