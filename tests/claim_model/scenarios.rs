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

/// Two keys in a lane each, two events of the first and one of the second, all there.
pub fn plain() -> Scenario {
    Scenario {
        keys: vec![Some(0), Some(0), Some(1)],
        lanes: vec![0, 0, 1],
        there: 0b111,
        prompt: 0,
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

/// Processes die, hang, and lose their transactions; what they sent arrives late.
pub fn ends() -> Scenario {
    Scenario {
        faults: Faults {
            end_transaction: 1,
            crash: 1,
            hang: 1,
            cut: 1,
            ..Faults::default()
        },
        ..plain()
    }
}

/// Settlements fail, or their commit is not heard of.
pub fn debts() -> Scenario {
    Scenario {
        fine: true,
        workers: vec![2, 1],
        share: 1,
        faults: Faults {
            fail_settlement: 1,
            lose_commit: 1,
            refuse: 1,
            ..Faults::default()
        },
        ..one_lane()
    }
}

/// Events are refused, retried, given up, sent again, discarded.
pub fn refusals() -> Scenario {
    Scenario {
        faults: Faults {
            refuse: 2,
            reject: 1,
            lose_answer: 1,
            redrive: 1,
            discard: 1,
            looks: 1,
            ..Faults::default()
        },
        ..one_lane()
    }
}

/// Writers commit late, and floors rise meanwhile: two workers of one process look at the writers.
pub fn late_writers() -> Scenario {
    Scenario {
        fine: true,
        there: 0,
        prompt: if is_large() { 0 } else { 0b110 },
        lanes: vec![0, 0, 0],
        keys: vec![Some(0), Some(1), Some(0)],
        workers: vec![2],
        share: 2,
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

/// A key's destination is paused and resumed while floors rise.
pub fn pauses() -> Scenario {
    Scenario {
        workers: vec![2],
        pausable: Some(0),
        faults: Faults {
            pause: 1,
            looks: 2,
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
fn order_and_progress_survive_processes_that_die_hang_and_send_late() {
    check(&ends());
}

#[test]
fn order_and_progress_survive_settlements_that_fail() {
    check(&debts());
}

#[test]
fn order_and_progress_survive_refusals() {
    check(&refusals());
}

#[test]
fn a_dead_event_that_holds_its_key_is_not_passed() {
    check(&Scenario {
        dead_holds: true,
        ..refusals()
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
