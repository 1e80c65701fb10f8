//! The proof of the checker: each deliberate defect of the relay breaks the promise in a small storm,
//! and the checker alone says so. Without the defect the same storm is clean (`scenarios`).

use outboxd::defects::Defect;

use crate::{plan::Plan, scenarios};

/// `name: Defect in scenario breaks an invariant`.
macro_rules! caught {
    ($($name:ident: $defect:ident in $plan:ident breaks $invariant:literal;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            assert_caught(Defect::$defect, scenarios::$plan, $invariant).await;
        })+
    };
}

caught! {
    settling_what_got_no_answer: SettleUnanswered in outage breaks "loss";
    charging_for_an_outage: ChargeOutage in outage breaks "attempts";
    taking_a_returned_message_for_published: IgnoreReturn in unroutable breaks "loss";
    reading_lanes_without_their_locks: SkipLaneLock in refusing breaks "order";
    locking_and_reading_in_one_statement: LockWhileReading in unsendable breaks "attempts";
    overtaking_a_row_that_a_stranger_holds: OvertakeStranger in strangers breaks "order";
    settling_past_a_failed_event: SettlePastFailure in refusing breaks "loss";
    letting_a_failed_key_go_on: ReleaseFailedKey in refusing breaks "order";
    claiming_a_held_key_before_its_retry: ReorderRetry in refusing breaks "order";
    sending_a_key_before_its_confirms: PipelineKeys in refusing breaks "order";
    letting_messages_pass_a_refused_one: AllowGaps in too_large breaks "order";
    charging_the_neighbours_in_a_request: ChargeNeighbours in too_large breaks "attempts";
    charging_the_neighbours_on_a_channel: ChargeNeighbours in closes_channel breaks "attempts";
    counting_an_answer_twice: ChargeTwice in unsendable breaks "attempts";
    losing_a_failure: LoseFailure in unsendable breaks "attempts";
    dropping_what_was_rejected: DropRejected in unsendable breaks "conservation";
    leaving_a_claim_open_for_ever: ClaimForEver in lost_host breaks "left over";
    raising_floors_to_the_newest_id: BareFloor in late_commits breaks "left over";
    forgetting_what_could_not_be_marked: ForgetDebt in unmarkable breaks "unexplained duplicate";
    dropping_what_is_in_flight_at_the_end: DropAtShutdown in restarts breaks "unexplained duplicate";
    pruning_by_age_alone: PruneUnpublished in restarts breaks "conservation";
    changing_ids: ChangeId in late_commits breaks "phantom";
    losing_headers: LoseHeaders in late_commits breaks "altered";
}

/// Many a defect shows only by chance: the storm is run a few times, until it does.
const TRIES: u64 = 5;

async fn assert_caught(defect: Defect, plan: fn() -> Plan, invariant: &str) {
    let mut reports = String::new();
    for seed in 1..=TRIES {
        let plan = Plan {
            seed,
            defect: Some(format!("{defect:?}")),
            ..plan()
        };
        let aftermath = plan.run().await;
        let report = aftermath.history.report(&aftermath.verdict);
        if aftermath.verdict.broken().contains(&invariant) {
            println!("{defect:?}: {report}");
            return;
        }
        reports += &report;
    }
    panic!("{defect:?} does not break {invariant}:\n{reports}");
}
