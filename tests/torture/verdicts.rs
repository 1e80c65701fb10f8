//! The history checker on histories made by hand: each invariant broken once.

use std::time::Duration;

use crate::history::{
    Arrival, Charge, Fate, History, Injected, Left, RECOVERY, Row, Stop, Written,
};

const POISON: u64 = 5;
const ROLLED_BACK: u64 = 4;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn arrival(number: u64, seconds: u64) -> Arrival {
    Arrival {
        number: Some(number),
        intact: true,
        at: at(seconds),
    }
}

fn charge(number: u64, state: &str, attempts: i32) -> Charge {
    Charge {
        number,
        state: state.into(),
        attempts,
        reason: "refused: no".into(),
        at: at(12),
    }
}

/// From second 20 to 22.
fn fault(may_repeat: usize) -> Injected {
    Injected {
        what: "a relay was killed".into(),
        from: at(20),
        until: at(22),
        echo: at(1),
        may_repeat,
    }
}

/// Eight events of two keys, one a second: number 4 was rolled back, 5 cannot be delivered and lies
/// dead, of 7 the COMMIT got no answer. The others arrived ten seconds later.
fn clean() -> History {
    let fate = |number| match number {
        ROLLED_BACK => Fate::RolledBack,
        7 => Fate::Unknown,
        _ => Fate::Committed,
    };
    let written = (0..8).map(|number| Written {
        key: u32::from(number % 2 == 1),
        fate: fate(number),
        poison: number == POISON,
        refusable: false,
        at: at(number),
    });
    let rows = (0..8).filter(|&number| number != ROLLED_BACK);
    let arrivals = rows.clone().filter(|&number| number != POISON);
    History {
        written: written.collect(),
        rows: (rows.zip(101..))
            .map(|(number, id)| Row { number, id })
            .collect(),
        arrivals: arrivals.map(|n| arrival(n, 10 + n)).collect(),
        charges: vec![charge(POISON, "dead", 1)],
        faults: Vec::new(),
        stops: vec![Stop {
            at: at(30),
            took: at(1),
            orderly: true,
        }],
        left: Left {
            dead: vec![POISON],
            published: Some(6),
            ..Left::default()
        },
    }
}

/// What is broken once the clean history is changed so.
fn broken(change: impl FnOnce(&mut History)) -> Vec<&'static str> {
    let mut history = clean();
    change(&mut history);
    history.check().broken()
}

#[test]
fn a_clean_history_breaks_nothing() {
    assert!(broken(|_| ()).is_empty());
}

#[test]
fn a_writer_that_was_told_otherwise_is_noticed() {
    let forgotten = |history: &mut History| history.written[4].fate = Fate::Committed;
    assert_eq!(broken(forgotten), ["journal"]);
}

#[test]
fn an_unknown_commit_may_be_there_or_not() {
    let absent = |history: &mut History| {
        history.rows.retain(|row| row.number != 7);
        history.arrivals.retain(|arrival| arrival.number != Some(7));
        history.left.published = Some(5);
    };
    assert!(broken(absent).is_empty());
}

#[test]
fn an_event_that_never_arrived_is_lost() {
    let lost = |history: &mut History| {
        history.arrivals.remove(1);
    };
    assert_eq!(broken(lost), ["loss"]);
}

#[test]
fn an_event_that_lies_dead_for_no_reason_of_its_own_is_lost() {
    let dead = |history: &mut History| {
        history.arrivals.remove(1);
        history.left.dead.push(1);
        history.left.published = Some(5);
    };
    assert_eq!(broken(dead), ["loss", "conservation"]);
}

#[test]
fn an_event_that_is_left_pending_is_not_lost_and_yet_not_delivered() {
    let pending = |history: &mut History| {
        history.arrivals.remove(1);
        history.left.pending.push(1);
        history.left.published = Some(5);
    };
    assert_eq!(broken(pending), ["left over"]);
}

#[test]
fn a_rolled_back_event_that_arrives_is_a_phantom() {
    let phantom = |history: &mut History| history.arrivals.push(arrival(ROLLED_BACK, 20));
    assert_eq!(broken(phantom), ["phantom"]);
}

#[test]
fn a_message_of_nobody_is_a_phantom() {
    for number in [None, Some(99)] {
        let phantom = |history: &mut History| {
            history.arrivals.push(Arrival {
                number,
                ..arrival(0, 20)
            });
        };
        assert_eq!(broken(phantom), ["phantom"]);
    }
}

#[test]
fn a_message_that_is_not_as_it_was_written_is_altered() {
    let altered = |history: &mut History| history.arrivals[2].intact = false;
    assert_eq!(broken(altered), ["altered"]);
}

#[test]
fn a_first_arrival_behind_a_later_one_of_its_key_is_out_of_order() {
    // 0 and 2 are of one key, 0 and 1 of two.
    assert_eq!(broken(|history| history.arrivals.swap(0, 2)), ["order"]);
    assert!(broken(|history| history.arrivals.swap(0, 1)).is_empty());
}

#[test]
fn order_is_that_of_ids_and_not_of_numbers() {
    let drawn = |history: &mut History| {
        history.rows[0].id = 103;
        history.rows[2].id = 101;
    };
    assert_eq!(broken(drawn), ["order"]);
    let arrived = |history: &mut History| {
        drawn(history);
        history.arrivals.swap(0, 2);
    };
    assert!(broken(arrived).is_empty());
}

#[test]
fn a_second_copy_is_no_inversion_when_a_fault_explains_it() {
    let repeated = |history: &mut History| {
        history.faults.push(fault(1));
        history.arrivals.push(arrival(0, 24));
    };
    assert!(broken(repeated).is_empty());
}

#[test]
fn a_second_copy_without_a_fault_between_is_unexplained() {
    let repeat = |history: &mut History| history.arrivals.push(arrival(0, 19));
    let calm = ["unexplained duplicate"];
    assert_eq!(broken(repeat), calm);
    // A fault later on explains nothing, nor does one that repeats nothing.
    let before = |history: &mut History| {
        history.faults.push(fault(1));
        repeat(history);
    };
    assert_eq!(broken(before), ["unexplained duplicate"]);
    let harmless = |history: &mut History| {
        history.faults.push(fault(0));
        history.arrivals.push(arrival(0, 24));
    };
    assert_eq!(broken(harmless), calm);
}

#[test]
fn what_first_arrived_after_the_echo_of_a_fault_is_not_explained_by_it() {
    let late = |history: &mut History| {
        history.faults.push(fault(1));
        history.arrivals[5].at = at(24);
        history.arrivals.push(arrival(7, 25));
    };
    assert_eq!(broken(late), ["unexplained duplicate"]);
}

#[test]
fn more_copies_than_were_in_flight_are_too_many() {
    let repeated = |history: &mut History| {
        history.faults.push(fault(1));
        history.arrivals.extend([arrival(0, 24), arrival(1, 24)]);
    };
    assert_eq!(broken(repeated), ["unexplained duplicate"]);
}

#[test]
fn a_fault_behind_the_second_copy_explains_no_third() {
    let repeated = |history: &mut History| {
        history.faults.push(fault(9));
        history.arrivals.extend([arrival(0, 24), arrival(0, 25)]);
    };
    assert_eq!(broken(repeated), ["unexplained duplicate"]);
}

#[test]
fn what_should_have_been_refused_must_not_arrive() {
    let delivered = |history: &mut History| history.arrivals.insert(4, arrival(POISON, 15));
    assert_eq!(broken(delivered), ["delivered poison"]);
}

#[test]
fn only_what_cannot_be_delivered_is_charged_and_once() {
    let attempts = |change: fn(&mut Vec<Charge>)| broken(|history| change(&mut history.charges));
    for wrong in [
        |charges: &mut Vec<Charge>| charges.push(charge(0, "retrying", 1)),
        |charges: &mut Vec<Charge>| charges.push(charge(ROLLED_BACK, "dead", 1)),
        |charges: &mut Vec<Charge>| charges.push(charge(POISON, "dead", 1)),
        |charges: &mut Vec<Charge>| charges[0].attempts = 2,
        |charges: &mut Vec<Charge>| charges[0].state = "retrying".into(),
        |charges: &mut Vec<Charge>| charges.clear(),
    ] {
        assert_eq!(attempts(wrong), ["attempts"]);
    }
}

#[test]
fn what_may_be_refused_for_a_while_is_charged_once_each_time() {
    let refused = |attempts: &'static [i32], state: &'static str| {
        broken(|history| {
            history.written[0].refusable = true;
            let charges = attempts.iter().map(|&attempts| charge(0, state, attempts));
            history.charges.extend(charges);
        })
    };
    assert!(refused(&[1, 2, 3], "retrying").is_empty());
    for wrong in [&[2][..], &[1, 1], &[1, 3], &[1, 2, 1]] {
        assert_eq!(refused(wrong, "retrying"), ["attempts"]);
    }
    assert_eq!(refused(&[1], "dead"), ["attempts"]);
}

#[test]
fn a_failure_that_outlives_its_event_is_left_over() {
    let retrying = |history: &mut History| history.left.retrying.push(0);
    assert_eq!(broken(retrying), ["left over"]);
}

#[test]
fn every_row_is_accounted_for() {
    let gone = |history: &mut History| history.left.published = Some(5);
    assert_eq!(broken(gone), ["conservation"]);
    let deleted = |history: &mut History| history.left.published = None;
    assert!(broken(deleted).is_empty());
    let no_longer_whole = |history: &mut History| history.left.dead.clear();
    assert_eq!(broken(no_longer_whole), ["conservation"]);
}

#[test]
fn silence_after_a_fault_is_no_recovery() {
    let silent = |seconds: Duration| {
        broken(|history| {
            history.faults.push(fault(0));
            history.written[6].at = at(40); // there was something to deliver
            history.arrivals[5].at = at(22) + seconds;
        })
    };
    assert!(silent(RECOVERY).is_empty());
    assert_eq!(silent(RECOVERY + at(1)), ["liveness"]);
}

#[test]
fn a_relay_that_does_not_end_in_order_is_noticed() {
    assert_eq!(
        broken(|history| history.stops[0].orderly = false),
        ["drain"]
    );
}

#[test]
fn the_report_tells_the_story_of_the_first_bad_event() {
    let mut history = clean();
    history.arrivals.swap(0, 2);
    history.faults.push(fault(0));
    let report = history.report(&history.check());
    for part in [
        "BROKEN: order: 1 events, the first is 0",
        "timeline of event 0 (id 101, key 0)",
        "event 2 (id 103, key 0) arrived",
        "FAULT a relay was killed",
    ] {
        assert!(report.contains(part), "{part} is not in:\n{report}");
    }
    assert!(!report.contains("event 1 "), "of another key:\n{report}");
}
