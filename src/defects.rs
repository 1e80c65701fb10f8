//! Deliberate defects, for proving the tests: a checker that never finds anything proves nothing.
//!
//! Compiled only with the feature `defects`, which refuses to be in a release. One defect at a time,
//! named by the environment variable `OUTBOXD_DEFECT`. Without the feature `defect!(…)` is the
//! constant `false`, and nothing of this is in the binary.

#[cfg(all(feature = "defects", not(debug_assertions)))]
compile_error!("the feature `defects` breaks the promise on purpose: it is for test builds only");

/// Stands where the right code is: `defect!(A | B)` is whether one of them is switched on, and
/// `defect!(A: wrong, else right)` chooses.
#[cfg(feature = "defects")]
macro_rules! defect {
    ($name:ident: $wrong:expr, else $right:expr) => {
        if defect!($name) { $wrong } else { $right }
    };
    ($($name:ident)|+) => {
        $($crate::defects::Defect::$name.is_on())||+
    };
}

/// No defect is there without the feature.
#[cfg(not(feature = "defects"))]
macro_rules! defect {
    ($name:ident: $wrong:expr, else $right:expr) => {
        $right
    };
    ($($name:ident)|+) => {
        false
    };
}

/// What can be broken on purpose.
#[cfg(feature = "defects")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// What the broker did not answer for counts as published.
    SettleUnanswered,
    /// RabbitMQ: an unroutable message counts as published.
    IgnoreReturn,
    /// Lanes are read without being locked.
    SkipLaneLock,
    /// Lanes are locked by the statement that reads their rows, whose snapshot is older.
    LockWhileReading,
    /// A row that was skipped because a stranger holds it is passed by its key.
    OvertakeStranger,
    /// What stands behind a failed event of its key is settled along with it.
    SettlePastFailure,
    /// A failed event does not hold back its key.
    ReleaseFailedKey,
    /// A held key is claimed all the same, so that the retry comes after what it held back.
    ReorderRetry,
    /// Kafka: later messages pass one that was refused.
    AllowGaps,
    /// Who was refused or left unanswered along with the culprit is charged as well.
    ChargeNeighbours,
    /// Who got no answer is charged.
    ChargeOutage,
    /// A negative answer counts twice.
    ChargeTwice,
    /// Failures are not written down.
    LoseFailure,
    /// A rejected event counts as published.
    DropRejected,
    /// A claim may stand open for ever.
    ClaimForEver,
    /// A floor may rise to the newest id seen, whoever is still writing.
    BareFloor,
    /// RabbitMQ: a key's messages are sent before the earlier ones are confirmed.
    PipelineKeys,
    /// What was published and could not be settled is forgotten.
    ForgetDebt,
    /// What is in flight is dropped at shutdown.
    DropAtShutdown,
    /// Pruning goes by age alone.
    PruneUnpublished,
    /// Every claim gives its events another id.
    ChangeId,
    /// A row's own headers are not sent.
    LoseHeaders,
}

#[cfg(feature = "defects")]
impl Defect {
    /// Whether this is the one that was chosen.
    pub fn is_on(self) -> bool {
        static CHOSEN: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var("OUTBOXD_DEFECT").ok());
        (CHOSEN.as_deref()).is_some_and(|chosen| chosen == format!("{self:?}"))
    }
}
