//! What is walked through. Each takes some kinds of trouble together, in a size that is done in seconds.

use std::time::Instant;

use super::{
    check,
    state::{Faults, Scenario},
};

/// Whether to take one's time.
fn is_large() -> bool {
    std::env::var("CLAIM_MODEL").is_ok_and(|size| size == "large")
}

/// What is only there where one takes one's time.
fn larger(faults: u8) -> u8 {
    if is_large() { faults } else { 0 }
}

/// Two keys in a lane each, two events of the first and one of the second, all there.
pub fn plain() -> Scenario {
    Scenario {
        keys: vec![Some(0), Some(0), Some(1)],
        lanes: vec![0, 0, 1],
        there: 0b111,
        workers: vec![1, 1],
        batch: 2,
        share: 2,
        max_attempts: 2,
        dead_holds: false,
        pausable: None,
        faults: Faults::default(),
        fine: is_large(),
        defect: None,
        now: Instant::now(),
    }
}

/// Both keys in one lane.
pub fn one_lane() -> Scenario {
    Scenario {
        lanes: vec![0, 0, 0],
        ..plain()
    }
}

/// A process dies; the server ends a transaction under another.
pub fn ends() -> Scenario {
    Scenario {
        faults: Faults {
            end_transaction: 1,
            crash: 1,
            ..Faults::default()
        },
        ..plain()
    }
}

/// A process hangs for good in a claim; what another sent arrives late.
pub fn hangs() -> Scenario {
    Scenario {
        faults: Faults {
            hang: 1,
            cut: 1,
            end_transaction: larger(1),
            ..Faults::default()
        },
        ..plain()
    }
}

/// Settlements fail, or their commit is not heard of.
pub fn debts() -> Scenario {
    Scenario {
        workers: vec![1 + usize::from(larger(1)), 1],
        share: 1,
        faults: Faults {
            fail_settlement: 1,
            lose_commit: larger(1),
            refuse: 1,
            looks: larger(1),
            ..Faults::default()
        },
        ..one_lane()
    }
}

/// Events are refused and retried, answers lost.
pub fn refusals() -> Scenario {
    Scenario {
        faults: Faults {
            refuse: 2,
            looks: larger(1),
            ..Faults::default()
        },
        ..one_lane()
    }
}

/// The same, with one answer that does not come.
pub fn refusals_without_answers() -> Scenario {
    let refusals = refusals();
    Scenario {
        faults: Faults {
            lose_answer: 1,
            ..refusals.faults
        },
        ..refusals
    }
}

/// Events are given up, sent again, discarded, while floors rise.
pub fn given_up() -> Scenario {
    Scenario {
        workers: vec![1 + usize::from(larger(1))],
        faults: Faults {
            refuse: 1,
            reject: 1,
            redrive: 1,
            discard: 1,
            looks: 1 + larger(1),
            ..Faults::default()
        },
        ..one_lane()
    }
}

/// One replica gives an event up while the other is about to claim it.
pub fn given_up_by_two() -> Scenario {
    Scenario {
        faults: Faults {
            reject: 1,
            ..Faults::default()
        },
        ..one_lane()
    }
}

/// All of one key, and refused now and then.
pub fn one_key() -> Scenario {
    Scenario {
        keys: vec![Some(0); 3],
        fine: true,
        ..refusals()
    }
}

/// Answers are lost while floors rise.
pub fn unanswered() -> Scenario {
    Scenario {
        workers: vec![1],
        faults: Faults {
            cut: 1,
            looks: 1,
            ..Faults::default()
        },
        ..one_lane()
    }
}

/// A retry holds its key while floors rise.
pub fn freed() -> Scenario {
    Scenario {
        workers: vec![1],
        faults: Faults {
            refuse: 1,
            looks: 1,
            ..Faults::default()
        },
        ..one_lane()
    }
}

/// Writers commit late, and floors rise meanwhile: two workers of one process look at the writers.
pub fn late_writers() -> Scenario {
    let keys = [Some(0), Some(1), Some(0)];
    Scenario {
        there: 0,
        keys: keys[..2 + usize::from(larger(1))].to_vec(),
        lanes: vec![0, 0, 0],
        workers: vec![2],
        faults: Faults {
            looks: 2,
            ..Faults::default()
        },
        ..plain()
    }
}

/// A writer's transaction is prepared, and goes by another name then.
pub fn prepared_writers() -> Scenario {
    Scenario {
        workers: vec![1],
        faults: Faults {
            looks: 3,
            prepare: 1,
            ..Faults::default()
        },
        ..late_writers()
    }
}

/// Strangers lock rows while floors rise.
pub fn strangers() -> Scenario {
    Scenario {
        fine: true,
        faults: Faults {
            strangers: 2,
            looks: 1,
            ..Faults::default()
        },
        ..one_lane()
    }
}

/// Strangers, and one process: what its floors pass nobody else sends.
pub fn strangers_of_one() -> Scenario {
    Scenario {
        workers: vec![1],
        ..strangers()
    }
}

/// A key's destination is paused and resumed while floors rise.
pub fn pauses() -> Scenario {
    Scenario {
        workers: vec![2],
        pausable: Some(0),
        faults: Faults {
            pause: 1,
            looks: 1 + larger(1),
            ..Faults::default()
        },
        ..one_lane()
    }
}

#[test]
fn two_replicas_empty_two_lanes() {
    check(&plain());
}

#[test]
fn two_replicas_share_a_lane() {
    check(&one_lane());
}

#[test]
fn order_and_progress_survive_processes_and_transactions_that_end() {
    check(&ends());
}

#[test]
fn order_and_progress_survive_processes_that_hang_and_messages_that_come_late() {
    check(&hangs());
}

#[test]
fn order_and_progress_survive_settlements_that_fail() {
    check(&debts());
}

#[test]
fn order_and_progress_survive_refusals() {
    check(&if is_large() {
        refusals_without_answers()
    } else {
        refusals()
    });
}

#[test]
fn order_and_progress_survive_events_that_are_given_up() {
    check(&given_up());
}

#[test]
fn a_dead_event_that_holds_its_key_is_not_passed() {
    check(&Scenario {
        dead_holds: true,
        ..given_up()
    });
}

#[test]
fn floors_strand_no_late_writer() {
    check(&late_writers());
}

#[test]
fn floors_strand_no_writer_of_a_two_phase_commit() {
    check(&prepared_writers());
}

#[test]
fn strangers_are_not_passed() {
    check(&strangers());
}

#[test]
fn floors_strand_nothing_of_a_paused_destination() {
    check(&pauses());
}
