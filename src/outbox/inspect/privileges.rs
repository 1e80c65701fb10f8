//! What this role may do, and the GRANTs for what it may not.

use std::fmt::Display;

use super::{Fault, Finding, Inspection};
use crate::mapping::Done;
use crate::outbox::{DbError, needs::Need, quote_identifier, session::statement, table::get};

impl Inspection<'_> {
    pub(super) async fn privileges(&mut self) -> Result<(), DbError> {
        let role = self.role().await?;
        let before = self.findings.len();
        for need in Need::ALL {
            self.look_for(need, &role).await?;
        }
        if self.findings.len() == before {
            self.ok(
                "privileges",
                format!("role {role} may do all that the relay does"),
            );
        }
        Ok(())
    }

    /// The role's name, quoted.
    async fn role(&mut self) -> Result<String, DbError> {
        let role = statement("select current_user::text");
        let role: String = get(&self.session.fetch_one("inspect", role).await?, 0)?;
        Ok(quote_identifier(&role))
    }

    /// Before anything else: without it nothing more can be looked at.
    pub(super) async fn may_use_schema(&mut self) -> Result<bool, DbError> {
        let role = self.role().await?;
        let before = self.findings.len();
        self.look_for(Need::UseSchema, &role).await?;
        Ok(self.findings.len() == before)
    }

    async fn look_for(&mut self, need: Need, role: &str) -> Result<(), DbError> {
        let outbox = self.outbox;
        if need == Need::DeleteEvents && !self.deletes() {
            return Ok(());
        }
        if let Need::Clean(table) = need
            && outbox.may_clean(&mut self.session, table).await?.is_none()
        {
            return Ok(());
        }
        let missing = self.text(outbox.lacking(need, "current_user")).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let (missing, on) = (missing.join(", "), need.on(&outbox.names));
        let grant = format!("grant {missing} on {on} to {role}");
        match need {
            Need::UseSchema => self.lack(
                "schema",
                format!("use {on}"),
                format!("{grant}, then check again"),
            ),
            Need::ReadEvents => self.lack("read events", format!("read {on}"), grant),
            Need::ClaimEvents => {
                self.lack("claim events", format!("lock and mark rows of {on}"), grant);
            }
            Need::DeleteEvents if outbox.mapping.done == Done::Delete => self.lack(
                "delete events",
                format!("delete published rows of {on}"),
                grant,
            ),
            Need::DeleteEvents => self.lack(
                "prune events",
                format!("delete published rows of {on} past --retention"),
                format!("{grant}; or run with --retention 0, which never prunes"),
            ),
            Need::KeepFailures | Need::KeepInstances => {
                self.lack("keep failures", format!("{missing} on {on}"), grant);
            }
            // Expired idempotency keys and inbox entries stay; delivery is none the worse.
            Need::Clean(_) => self.warn(
                "effects",
                format!("this role may not delete what has expired in {on}"),
                grant,
            ),
        }
        Ok(())
    }

    fn lack(&mut self, subject: &'static str, deed: impl Display, grant: String) {
        let what = format!("this role may not {deed}");
        self.findings
            .push(Finding::error(Fault::Privilege, subject, what, grant));
    }
}
