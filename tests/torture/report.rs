//! A verdict for people, and the story of the first event that went wrong.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use crate::{
    checker::Verdict,
    history::{History, index},
};

impl History {
    /// The verdict for people; what there is to know of the first bad event, where there is one.
    pub fn report(&self, verdict: &Verdict) -> String {
        let mut text = format!(
            "{} committed, {} arrivals, {} faults: {} duplicates (at most {}), recovery within {:?}\n",
            verdict.committed,
            self.arrivals.len(),
            self.faults.len(),
            verdict.duplicates,
            verdict.may_repeat,
            verdict.recovery
        );
        for violation in &verdict.violations {
            let _ = writeln!(
                text,
                "BROKEN: {}: {}",
                violation.invariant, violation.detail
            );
        }
        let bad = verdict.violations.iter().find_map(|v| v.number);
        if let Some(number) = bad.filter(|&number| number != u64::MAX) {
            text += &self.timeline(number);
        }
        text
    }

    /// All that happened to an event, its neighbours in its key, and around it.
    fn timeline(&self, number: u64) -> String {
        let Some(written) = self.written.get(index(number)) else {
            return String::new();
        };
        let ids: HashMap<u64, i64> = self.rows.iter().map(|row| (row.number, row.id)).collect();
        let name = |number: u64| match ids.get(&number) {
            Some(id) => format!("event {number} (id {id}, key {})", written.key),
            None => format!("event {number} (not in the database)"),
        };
        let mut lines = vec![(
            written.at,
            format!("{} ended {:?}", name(number), written.fate),
        )];
        // The four nearest of its key on either side.
        let mut key: Vec<(i64, u64)> = (self.rows.iter())
            .filter(|row| self.written[index(row.number)].key == written.key)
            .map(|row| (row.id, row.number))
            .collect();
        key.sort_unstable();
        let place = key.iter().position(|&(_, of_key)| of_key == number);
        let near = place.map_or(&key[..0], |place| {
            &key[place.saturating_sub(4)..(place + 5).min(key.len())]
        });
        let close = |other: u64| other == number || near.iter().any(|&(_, n)| n == other);
        for arrival in &self.arrivals {
            if let Some(other) = arrival.number.filter(|&other| close(other)) {
                lines.push((arrival.at, format!("{} arrived", name(other))));
            }
        }
        for charge in self.charges.iter().filter(|charge| close(charge.number)) {
            let what = format!(
                "{} {} after {}",
                name(charge.number),
                charge.state,
                charge.attempts
            );
            lines.push((charge.at, format!("{what}: {}", charge.reason)));
        }
        let slack = Duration::from_secs(20);
        let begin = lines.iter().map(|line| line.0).min().unwrap_or_default();
        let end = lines.iter().map(|line| line.0).max().unwrap_or_default();
        for fault in &self.faults {
            if fault.from <= end + slack && begin.saturating_sub(slack) <= fault.until {
                lines.push((fault.from, format!("FAULT {}", fault.what)));
                lines.push((fault.until, format!("healed: {}", fault.what)));
            }
        }
        lines.sort();
        let mut text = format!("timeline of {}:\n", name(number));
        for (at, line) in lines {
            let _ = writeln!(text, "  {:>9.3} s  {line}", at.as_secs_f64());
        }
        text
    }
}
