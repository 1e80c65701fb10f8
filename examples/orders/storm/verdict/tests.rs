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

fn order(item: &str, cents: i64) -> PaidOrder {
    PaidOrder {
        item: item.into(),
        cents,
        events: 1,
        payments: 1,
        paid: cents,
    }
}

fn a() -> PaidOrder {
    order("a", 100)
}

fn b() -> PaidOrder {
    order("b", 200)
}

fn books(orders: impl IntoIterator<Item = PaidOrder>) -> Books {
    let orders: Vec<_> = orders.into_iter().collect();
    Books {
        events: orders.iter().map(|order| order.events).sum(),
        orders,
        unasked_payments: 0,
        pending_events: 0,
    }
}

fn wrong(orders: [PaidOrder; 2]) -> Vec<String> {
    Verdict::new(&intents(), &answers(), &books(orders), 0).wrong()
}

fn wrong_by(answers: &[Vec<Answer>]) -> Vec<String> {
    Verdict::new(&intents(), answers, &books([a(), b()]), 0).wrong()
}

#[test]
fn one_order_and_one_payment_each_is_right() {
    assert_eq!(wrong([a(), b()]), Vec::<String>::new());
}

#[test]
fn a_missing_order_does_not_hide_behind_a_second_one() {
    let expected = [
        "intents without an order: 1, not 0",
        "second orders of an intent: 1, not 0",
    ];
    assert_eq!(wrong([a(), a()]), expected);
}

#[test]
fn a_missing_payment_does_not_hide_behind_a_second_one() {
    let twice = PaidOrder {
        payments: 2,
        paid: 200,
        ..a()
    };
    let never = PaidOrder {
        payments: 0,
        paid: 0,
        ..b()
    };
    let expected = [
        "orders without a payment: 1, not 0",
        "orders paid more than once: 1, not 0",
    ];
    assert_eq!(wrong([twice, never]), expected);
}

#[test]
fn a_missing_event_does_not_hide_behind_a_second_one() {
    let (twice, never) = (
        PaidOrder { events: 2, ..a() },
        PaidOrder { events: 0, ..b() },
    );
    let expected = [
        "orders without an event: 1, not 0",
        "orders with more than one event: 1, not 0",
    ];
    assert_eq!(wrong([twice, never]), expected);
}

#[test]
fn an_event_of_no_order_shows() {
    let mut books = books([a(), b()]);
    books.events += 1;
    let wrong = Verdict::new(&intents(), &answers(), &books, 0).wrong();
    assert_eq!(wrong, ["events: 3, not 2"]);
}

#[test]
fn cents_must_be_right_in_orders_and_payments() {
    let too_little = PaidOrder { paid: 20, ..b() };
    let expected = [
        "orders that nobody wanted so: 1, not 0",
        "payments of other cents than the order's: 1, not 0",
    ];
    assert_eq!(wrong([order("a", 101), too_little]), expected);
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
    let mut books = books([a(), b()]);
    books.pending_events = 1;
    let wrong = Verdict::new(&intents(), &answers(), &books, 2).wrong();
    let expected = [
        "events left in the outbox: 1, not 0",
        "messages left in the broker: 2, not 0",
    ];
    assert_eq!(wrong, expected);
}
