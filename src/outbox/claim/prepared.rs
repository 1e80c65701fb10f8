//! The statements of a plain claim, kept parsed and planned by the session.
//!
//! # Design notes
//! * Parsing and planning is more than half of what a small claim costs PostgreSQL: 0.8 of 1.4 ms.
//! * Not by the protocol's named statements: behind a transaction-pooling PgBouncer a name may silently
//!   be another client's. SQL's PREPARE under a random name either runs what we prepared, or fails since
//!   that session never heard of it. Then there is a pooler: the claim is begun anew without, and so are
//!   all later ones of this process. (What was prepared stays with the pooler's session till that ends,
//!   a third of a megabyte.)
//! * EXECUTE takes its snapshot before it waits for a table's lock, where a plain statement does so
//!   after. A failure that was written meanwhile would be missed: its table is locked before.
//! * Nothing but names is written into the statements; whatever may change is a parameter.
//! * What a claim with failures or pauses asks differs from one to the next, and is not prepared.

use std::sync::atomic::Ordering::Relaxed;

use sqlx::postgres::PgRow;

use super::scout::Scout;
use crate::outbox::{Outbox, Session, error::DbError};

/// SQLSTATE of a statement that is not there.
const UNKNOWN_STATEMENT: &str = "26000";
/// Else PostgreSQL would plan anew each time, to see whether that pays.
const KEEP_PLANS: &str = "set local plan_cache_mode = force_generic_plan";

const TYPES: &str = "bigint[], bigint[], bigint[], bigint, bigint, bigint, bigint, bigint";

/// What the statements are given, as SQL: values, or parameters.
#[derive(Clone)]
pub(super) struct Arguments {
    /// Floors of all lanes.
    pub(super) floors: String,
    /// The sets of holding failures they rest on.
    pub(super) known: String,
    /// Lanes to look at: those that do not rest.
    pub(super) awake: String,
    /// Lanes to lock at most.
    pub(super) most: String,
    /// The lowest id that is read.
    pub(super) lowest: String,
    /// Rows to read at once, at most.
    pub(super) first_rows: String,
    /// Bytes to read at once, at most.
    pub(super) first_bytes: String,
    /// Bytes of an event that can be sent, at most.
    pub(super) event_bytes: String,
}

impl Arguments {
    fn parameters() -> Self {
        Self {
            floors: "$1".into(),
            known: "$2".into(),
            awake: "$3".into(),
            most: "$4".into(),
            lowest: "$5".into(),
            first_rows: "$6".into(),
            first_bytes: "$7".into(),
            event_bytes: "$8".into(),
        }
    }

    /// In the order of the parameters.
    fn list(&self) -> String {
        [
            &self.floors,
            &self.known,
            &self.awake,
            &self.most,
            &self.lowest,
            &self.first_rows,
            &self.first_bytes,
            &self.event_bytes,
        ]
        .map(String::as_str)
        .join(", ")
    }
}

impl Outbox {
    /// Runs a scout by the statements that this session knows, between others. `None` where it does not
    /// know them: there is a pooler in between.
    pub(super) async fn scout_prepared(
        &self,
        session: &mut Session,
        scout: &Scout<'_>,
        before: &[String],
        after: &[String],
    ) -> Result<Option<Vec<PgRow>>, DbError> {
        if session.prepared().is_empty() {
            self.prepare(session, scout).await?;
        }
        let arguments = scout.arguments.list();
        let execute =
            (session.prepared().iter()).map(|name| format!("execute {name}({arguments})"));
        let failures = self.names.failures();
        let lock = format!("lock table {failures} in access share mode");
        let statements: Vec<String> = (before.iter().cloned())
            .chain([KEEP_PLANS.into(), lock])
            .chain(execute)
            .chain(after.iter().cloned())
            .collect();
        match session.batch("claim", statements.join("; ")).await {
            Ok(rows) => Ok(Some(rows)),
            Err(error) if error.code().as_deref() == Some(UNKNOWN_STATEMENT) => {
                tracing::debug!("a pooler is before the database: nothing is prepared any more");
                self.pooled.store(true, Relaxed);
                session.rollback().await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Prepares a scout's statements in this session.
    async fn prepare(&self, session: &mut Session, scout: &Scout<'_>) -> Result<(), DbError> {
        let prefix = format!("outboxd_{:032x}", fastrand::u128(..));
        let general = Scout {
            arguments: Arguments::parameters(),
            ..scout.clone()
        };
        let (names, prepare): (Vec<_>, Vec<_>) = (general.statements().iter().enumerate())
            .map(|(number, sql)| {
                let name = format!("{prefix}_{number}");
                let prepare = format!("prepare {name}({TYPES}) as {sql}");
                (name, prepare)
            })
            .unzip();
        session.begin(&self.timeouts).await?;
        session.batch("prepare", prepare.join("; ")).await?;
        session.commit().await?;
        session.note_prepared(names);
        Ok(())
    }
}
