//! The proof of the model: each defect leads to a counterexample.

use super::{
    Defect,
    explorer::{Verdict, explore},
    scenarios,
    state::Scenario,
};

fn verdict(defect: Defect, scenario: Scenario) -> Verdict<super::Step> {
    explore(&Scenario {
        defect: Some(defect),
        ..scenario
    })
}

/// Something goes wrong that the first steps of `scenario` can show.
fn breaks(defect: Defect, scenario: Scenario) {
    let verdict = verdict(defect, scenario);
    assert!(
        matches!(verdict, Verdict::Broken(..)),
        "{defect:?}: {verdict:?}"
    );
}

/// Something waits for ever.
fn sticks(defect: Defect, scenario: Scenario) {
    let verdict = verdict(defect, scenario);
    assert!(
        matches!(verdict, Verdict::Stuck(_)),
        "{defect:?}: {verdict:?}"
    );
}

macro_rules! defects {
    ($($name:ident: $how:ident($defect:ident, $scenario:expr);)*) => {$(
        #[test]
        fn $name() {
            $how(Defect::$defect, $scenario);
        }
    )*};
}

defects! {
    reading_with_the_statement_that_locks_is_found: breaks(ReadsWithTheLock, scenarios::given_up_by_two());
    claiming_without_lane_locks_is_found: breaks(LocksNoLane, scenarios::one_key());
    passing_a_strangers_row_is_found: breaks(PassesStrangers, scenarios::strangers());
    a_floor_above_a_strangers_row_is_found: sticks(RaisesPastStrangers, scenarios::strangers_of_one());
    a_floor_above_an_unsettled_event_is_found: sticks(RaisesPastUnsettled, scenarios::unanswered());
    settling_past_a_failed_event_is_found: breaks(SettlesPastFailures, scenarios::refusals_without_answers());
    settling_before_the_confirm_is_found: breaks(SettlesBeforeConfirms, scenarios::hangs());
    sending_behind_a_refused_event_is_found: breaks(SendsBehindARefusal, scenarios::refusals());
    a_retry_that_does_not_hold_its_key_is_found: breaks(RetryHoldsNothing, scenarios::refusals());
    a_claim_without_an_idle_timeout_is_found: sticks(HasNoIdleTimeout, scenarios::hangs());
    a_bare_bound_as_horizon_is_found: sticks(LooksAtNoWriter, scenarios::late_writers());
    a_horizon_from_the_claims_end_is_found: sticks(TakesTheHorizonLate, scenarios::late_writers());
    a_floor_that_stays_above_freed_rows_is_found: sticks(NeverFallsToFirm, scenarios::freed());
    a_raise_after_a_fall_is_found: sticks(RaisesAfterAFall, scenarios::pauses());
    resuming_without_a_fall_is_found: sticks(ResumesWithoutAFall, scenarios::pauses());
}
