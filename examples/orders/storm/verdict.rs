//! Whether each intent was fulfilled exactly once.

use std::collections::HashMap;

use super::clients::{Answer, Intent};

/// What the database says in the end.
pub struct Books {
    /// Of each order: what was ordered, its cents, the number and the sum of its payments.
    pub orders: Vec<(String, i64, i64, i64)>,
    /// Of orders that are not there.
    pub unasked_payments: i64,
    pub pending_events: i64,
}

/// The numbers that must be right.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    pub intents: usize,
    pub orders: usize,
    pub payments: i64,
    /// Intents without an order.
    pub unplaced: usize,
    /// Second and further orders of an intent.
    pub placed_again: usize,
    /// Orders with other cents than were wanted, or that nobody wanted.
    pub altered: usize,
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
    /// Messages that no consumer has settled.
    pub left: u64,
}

impl Verdict {
    /// Compares what was wanted, what was answered, and what is there.
    pub fn new(intents: &[Intent], answers: &[Vec<Answer>], books: &Books, left: u64) -> Self {
        let mut verdict = Self {
            intents: intents.len(),
            orders: books.orders.len(),
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
        for (key, cents, payments, paid) in &books.orders {
            match wanted.get_mut(key.as_str()) {
                Some((wanted, orders)) => {
                    *orders += 1;
                    self.altered += usize::from(wanted != cents);
                }
                None => self.altered += 1,
            }
            self.payments += payments;
            match payments {
                0 => self.unpaid += 1,
                1 => self.paid_wrongly += usize::from(paid != cents),
                _ => self.paid_again += 1,
            }
        }
        for (_, orders) in wanted.into_values() {
            self.unplaced += usize::from(orders == 0);
            self.placed_again += orders.saturating_sub(1);
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
        let payments = usize::try_from(self.payments).unwrap_or_default();
        for (figure, count) in [("orders", self.orders), ("payments", payments)] {
            if count != self.intents {
                wrong.push(format!("{figure}: {count}, not {}", self.intents));
            }
        }
        wrong
    }
}

fn is_same(answer: &Answer, first: &Answer) -> bool {
    (answer.status, &answer.location, &answer.body) == (first.status, &first.location, &first.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intents() -> Vec<Intent> {
        let intent = |key: &str, cents, at_once, reuses_key| Intent {
            key: key.into(),
            cents,
            at_once,
            later: 0,
            reuses_key,
        };
        vec![intent("a", 100, 2, false), intent("b", 200, 1, true)]
    }

    fn placed(order: i64, key: &str, cents: i64) -> Answer {
        Answer {
            status: 201,
            location: Some(format!("/orders/{order}")),
            body: format!(r#"{{"order":{order},"item":"{key}","cents":{cents}}}"#),
            replayed: false,
        }
    }

    fn refused() -> Answer {
        Answer {
            status: 422,
            ..Answer::default()
        }
    }

    fn answers() -> Vec<Vec<Answer>> {
        let first = placed(1, "a", 100);
        let replayed = Answer {
            replayed: true,
            ..first.clone()
        };
        vec![vec![first, replayed], vec![placed(2, "b", 200), refused()]]
    }

    fn books(orders: &[(&str, i64, i64, i64)]) -> Books {
        let owned = |(key, cents, payments, paid): &(&str, i64, i64, i64)| {
            ((*key).to_owned(), *cents, *payments, *paid)
        };
        Books {
            orders: orders.iter().map(owned).collect(),
            unasked_payments: 0,
            pending_events: 0,
        }
    }

    const A: (&str, i64, i64, i64) = ("a", 100, 1, 100);
    const B: (&str, i64, i64, i64) = ("b", 200, 1, 200);

    fn wrong(orders: &[(&str, i64, i64, i64)]) -> Vec<String> {
        Verdict::new(&intents(), &answers(), &books(orders), 0).wrong()
    }

    fn wrong_by(answers: &[Vec<Answer>]) -> Vec<String> {
        Verdict::new(&intents(), answers, &books(&[A, B]), 0).wrong()
    }

    #[test]
    fn one_order_and_one_payment_each_is_right() {
        assert_eq!(wrong(&[A, B]), Vec::<String>::new());
    }

    #[test]
    fn a_missing_order_does_not_hide_behind_a_second_one() {
        let expected = [
            "intents without an order: 1, not 0",
            "second orders of an intent: 1, not 0",
        ];
        assert_eq!(wrong(&[A, A]), expected);
    }

    #[test]
    fn a_missing_payment_does_not_hide_behind_a_second_one() {
        let expected = [
            "orders without a payment: 1, not 0",
            "orders paid more than once: 1, not 0",
        ];
        assert_eq!(wrong(&[("a", 100, 2, 200), ("b", 200, 0, 0)]), expected);
    }

    #[test]
    fn cents_must_be_right_in_orders_and_payments() {
        let expected = [
            "orders that nobody wanted so: 1, not 0",
            "payments of other cents than the order's: 1, not 0",
        ];
        assert_eq!(wrong(&[("a", 101, 1, 101), ("b", 200, 1, 20)]), expected);
    }

    #[test]
    fn every_answer_must_be_the_first_one() {
        let mut answers = answers();
        answers[0][1] = placed(2, "a", 100);
        assert_eq!(
            wrong_by(&answers),
            ["answers that differ from the first: 1, not 0"]
        );
    }

    #[test]
    fn a_key_used_again_must_be_refused() {
        let mut answers = answers();
        answers[1][1] = placed(3, "b", 201);
        assert_eq!(
            wrong_by(&answers),
            ["keys used with another body, not refused: 1, not 0"]
        );
    }

    #[test]
    fn the_right_request_must_not_be_refused() {
        let mut answers = answers();
        answers[1][0] = refused();
        assert_eq!(wrong_by(&answers), ["answers that say no: 1, not 0"]);
    }

    #[test]
    fn nothing_may_be_left() {
        let mut books = books(&[A, B]);
        books.pending_events = 1;
        let wrong = Verdict::new(&intents(), &answers(), &books, 2).wrong();
        let expected = [
            "events left in the outbox: 1, not 0",
            "messages left in the broker: 2, not 0",
        ];
        assert_eq!(wrong, expected);
    }
}
