//! Whether each intent was fulfilled exactly once.

use std::collections::HashMap;

use super::{
    clients::{Answer, Intent},
    figures::{Books, PaidOrder},
};

/// The numbers that must be right.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    pub intents: usize,
    pub orders: usize,
    pub events: i64,
    pub payments: i64,
    /// Intents without an order.
    pub unplaced: usize,
    /// Second and further orders of an intent.
    pub placed_again: usize,
    /// Orders with other cents than were wanted, or that nobody wanted.
    pub altered: usize,
    /// Orders of which nobody was to hear.
    pub untold: usize,
    pub told_again: usize,
    pub unpaid: usize,
    pub paid_again: usize,
    pub paid_wrongly: usize,
    pub unasked_payments: i64,
    /// Answers that do not say that the order was placed.
    pub refused: usize,
    /// Answers that are not the same as the first one to their intent.
    pub differing: usize,
    /// Keys that were used with another body and not refused.
    pub reuse_let_through: usize,
    pub pending_events: i64,
    /// Messages that no consumer has acknowledged.
    pub left: u64,
}

impl Verdict {
    /// Compares what was wanted, what was answered, and what is there.
    pub fn new(intents: &[Intent], answers: &[Vec<Answer>], books: &Books, left: u64) -> Self {
        let mut verdict = Self {
            intents: intents.len(),
            orders: books.orders.len(),
            events: books.events,
            unasked_payments: books.unasked_payments,
            pending_events: books.pending_events,
            left,
            ..Self::default()
        };
        verdict.compare_orders(intents, books);
        for (intent, answers) in intents.iter().zip(answers) {
            verdict.compare_answers(intent, answers);
        }
        verdict
    }

    fn compare_orders(&mut self, intents: &[Intent], books: &Books) {
        let mut wanted: HashMap<&str, (i64, usize)> = (intents.iter())
            .map(|intent| (intent.key.as_str(), (intent.cents, 0)))
            .collect();
        for order in &books.orders {
            match wanted.get_mut(order.item.as_str()) {
                Some((wanted, orders)) => {
                    *orders += 1;
                    self.altered += usize::from(*wanted != order.cents);
                }
                None => self.altered += 1,
            }
            self.compare_order(order);
        }
        for (_, orders) in wanted.into_values() {
            self.unplaced += usize::from(orders == 0);
            self.placed_again += orders.saturating_sub(1);
        }
    }

    fn compare_order(&mut self, order: &PaidOrder) {
        self.untold += usize::from(order.events == 0);
        self.told_again += usize::from(order.events > 1);
        self.payments += order.payments;
        match order.payments {
            0 => self.unpaid += 1,
            1 => self.paid_wrongly += usize::from(order.paid != order.cents),
            _ => self.paid_again += 1,
        }
    }

    fn compare_answers(&mut self, intent: &Intent, answers: &[Answer]) {
        // The last one was to another body.
        let same_body = answers.len() - usize::from(intent.reuses_key);
        let (answers, reuse) = answers.split_at(same_body);
        for answer in answers {
            self.refused += usize::from(!intent.is_placed_by(answer));
            self.differing += usize::from(!is_same(answer, &answers[0]));
        }
        let through = reuse.iter().filter(|answer| answer.status != 422);
        self.reuse_let_through += through.count();
    }

    /// Which numbers are wrong.
    pub fn wrong(&self) -> Vec<String> {
        let promised_none = [
            ("intents without an order", self.unplaced),
            ("second orders of an intent", self.placed_again),
            ("orders that nobody wanted so", self.altered),
            ("orders without an event", self.untold),
            ("orders with more than one event", self.told_again),
            ("orders without a payment", self.unpaid),
            ("orders paid more than once", self.paid_again),
            (
                "payments of other cents than the order's",
                self.paid_wrongly,
            ),
            ("answers that say no", self.refused),
            ("answers that differ from the first", self.differing),
            (
                "keys used with another body, not refused",
                self.reuse_let_through,
            ),
        ];
        let promised_none = promised_none.map(|(figure, count)| (figure, count as u64));
        let left = [
            ("payments of no order", self.unasked_payments.unsigned_abs()),
            (
                "events left in the outbox",
                self.pending_events.unsigned_abs(),
            ),
            ("messages left in the broker", self.left),
        ];
        let mut wrong: Vec<String> = (promised_none.into_iter().chain(left))
            .filter(|(_, count)| *count > 0)
            .map(|(figure, count)| format!("{figure}: {count}, not 0"))
            .collect();
        let (orders, intents) = (self.orders as i64, self.intents as i64);
        let promised_each = [
            ("orders", orders),
            ("events", self.events),
            ("payments", self.payments),
        ];
        for (figure, count) in promised_each {
            if count != intents {
                wrong.push(format!("{figure}: {count}, not {intents}"));
            }
        }
        wrong
    }
}

fn is_same(answer: &Answer, first: &Answer) -> bool {
    (answer.status, &answer.location, &answer.body) == (first.status, &first.location, &first.body)
}

#[cfg(test)]
mod tests;
