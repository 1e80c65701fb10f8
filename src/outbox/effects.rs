//! The tables of `migrate --with effects`: idempotency keys and inbox, which services and consumers use
//! through the functions of `migrations/effects.sql`. The relay only deletes what has expired.
//!
//! # Design notes
//! * One set for a schema, also beside several outbox tables: `inbox` and `idempotency_keys` are what
//!   users write in their code. Cleaners of several relays step around each other (SKIP LOCKED).
//! * How long an entry is kept is its writer's to say, by `keep_for`; so there is no setting here.
//! * Cleaning must not be felt: it waits for no lock, on a row or on the table, and what goes wrong with
//!   one table is neither the other's nor delivery's business.
//! * An application may have a table `inbox` of its own. Nothing is deleted unless it has our columns
//!   and our function stands beside it; `migrate` refuses to make ours then.

use super::{
    DbError, Link, Names, Outbox, Session, needs::Need, session::statement, table::get,
    verify::missing_columns,
};

/// Rows deleted in one step: a few milliseconds, so that a request which uses an expired key at this
/// moment hardly waits.
const PAGE: i64 = 1_000;
/// Whoever holds the whole table is soon done, or is not to be disturbed.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '50ms'";

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectsTable {
    /// What requests were begun and completed.
    IdempotencyKeys,
    /// What messages have had their effect.
    Inbox,
}

/// What came of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleaned {
    /// There is no such table, or it is not ours.
    NotThere,
    /// A privilege is missing: the GRANT, without the role.
    NotGranted(String),
    /// Somebody holds the table as a whole.
    InUse,
    /// So many rows are gone; whether there may be more.
    Deleted { rows: u64, more: bool },
}

impl EffectsTable {
    /// Both.
    pub const ALL: [Self; 2] = [Self::IdempotencyKeys, Self::Inbox];

    /// The plain name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdempotencyKeys => "idempotency_keys",
            Self::Inbox => "inbox",
        }
    }

    /// The name with its schema, quoted.
    pub(super) fn name(self, names: &Names) -> String {
        names.in_schema(self.as_str())
    }

    /// The function that writes the table.
    fn function(self, names: &Names) -> String {
        let (name, arguments) = match self {
            Self::IdempotencyKeys => ("idempotency_begin", "text, text, text, interval, interval"),
            Self::Inbox => ("inbox_accept", "text, text, interval"),
        };
        format!("{}({arguments})", names.in_schema(name))
    }

    /// Every column.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::IdempotencyKeys => &[
                "scope",
                "key",
                "request_hash",
                "token",
                "begun_in",
                "locked_until",
                "expires_at",
                "status",
                "headers",
                "body",
            ],
            Self::Inbox => &["consumer", "message_id", "expires_at"],
        }
    }

    /// What must be unique in it.
    pub(super) fn keys(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::IdempotencyKeys => &[&["scope", "key"], &["token"]],
            Self::Inbox => &[&["consumer", "message_id"]],
        }
    }
}

impl Outbox {
    /// The name of cleaning among operations, in errors and metrics.
    pub const CLEAN: &str = "clean";

    /// Whether the table is there, and ours; and then, whether this role may clean it.
    pub(super) async fn may_clean(
        &self,
        session: &mut Session,
        table: EffectsTable,
    ) -> Result<Option<bool>, DbError> {
        let name = table.name(&self.names);
        let missing = missing_columns(session, &name, table.columns()).await?;
        if missing.is_none_or(|missing| !missing.is_empty()) {
            return Ok(None);
        }
        let sql = format!(
            "select to_regprocedure($1) is not null, not exists ({})",
            self.lacking(Need::Clean(table), "current_user")
        );
        let query = statement(sql).bind(table.function(&self.names));
        let row = session.fetch_one(Self::CLEAN, query).await?;
        Ok(if get(&row, 0)? {
            Some(get(&row, 1)?)
        } else {
            None
        })
    }

    /// Deletes some of what has expired. Waits for nobody: rows in use are left for another time.
    ///
    /// # Errors
    /// The link may be used again, unless the server is [unreachable](DbError::is_unreachable).
    pub async fn clean(&self, link: &mut Link, table: EffectsTable) -> Result<Cleaned, DbError> {
        link.session.begin(&self.timeouts).await?;
        match self.clean_in(&mut link.session, table).await {
            Ok(cleaned) => {
                link.session.commit().await?;
                Ok(cleaned)
            }
            Err(error) if error.is_unreachable() => Err(error),
            Err(error) => {
                link.session.rollback().await?;
                if error.is_lock_timeout() {
                    return Ok(Cleaned::InUse);
                }
                Err(error)
            }
        }
    }

    async fn clean_in(
        &self,
        session: &mut Session,
        table: EffectsTable,
    ) -> Result<Cleaned, DbError> {
        match self.may_clean(session, table).await? {
            None => return Ok(Cleaned::NotThere),
            Some(false) => {
                return Ok(Cleaned::NotGranted(
                    Need::Clean(table).grant(&self.names, &self.mapping),
                ));
            }
            Some(true) => {}
        }
        session.batch(Self::CLEAN, LOCK_TIMEOUT.into()).await?;
        let name = table.name(&self.names);
        // Asked twice: the row may have changed since it was chosen.
        let sql = format!(
            "delete from {name} where expires_at < now() and ctid = any(array(
               select ctid from {name} where expires_at < now() order by expires_at limit $1 for update skip locked))"
        );
        let rows = session
            .execute(Self::CLEAN, statement(sql).bind(PAGE))
            .await?;
        let more = i64::try_from(rows) == Ok(PAGE);
        Ok(Cleaned::Deleted { rows, more })
    }
}
