//! The tables of `migrate --with effects`: idempotency keys and inbox, which services and consumers use
//! through the functions of `migrations/effects.sql`. The relay only deletes what has expired.
//!
//! # Design notes
//! * One set for a schema, also beside several outbox tables: `inbox` and `idempotency_keys` are what
//!   users write in their code. Cleaners of several relays step around each other (SKIP LOCKED).
//! * How long an entry is kept is its writer's to say, by `keep_for`; so there is no setting here.
//! * An application may have a table `inbox` of its own. Nothing is deleted unless it has our columns
//!   and our function stands beside it; `migrate` refuses to make ours then.

use super::{
    DbError, Link, Names, Outbox, Session, session::statement, table::get, verify::missing_columns,
};
use crate::template::quote_literal;

/// Rows deleted in one step, of each table: a few milliseconds, so that a request which uses an
/// expired key at this moment hardly waits.
const PAGE: i64 = 1_000;

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EffectsTable {
    IdempotencyKeys,
    Inbox,
}

/// What one step deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// Idempotency keys.
    pub keys: u64,
    /// Inbox entries.
    pub inbox: u64,
    /// Whether there may be more.
    pub more: bool,
    /// GRANTs without which a table was left as it is.
    pub grants: Vec<String>,
}

impl EffectsTable {
    pub(super) const ALL: [Self; 2] = [Self::IdempotencyKeys, Self::Inbox];

    /// The quoted name.
    pub(super) fn name(self, names: &Names) -> String {
        names.in_schema(match self {
            Self::IdempotencyKeys => "idempotency_keys",
            Self::Inbox => "inbox",
        })
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

    /// What a relay needs to clean it, without the role.
    pub(super) fn grant(self, names: &Names) -> String {
        let table = self.name(names);
        format!("grant select, delete, update (expires_at) on {table}")
    }
}

impl Outbox {
    /// Which of the tables are there, and ours; and whether this role may clean them.
    pub(super) async fn effects_tables(
        &self,
        session: &mut Session,
    ) -> Result<Vec<(EffectsTable, bool)>, DbError> {
        let mut there = Vec::new();
        for table in EffectsTable::ALL {
            let name = table.name(&self.names);
            let missing = missing_columns(session, &name, table.columns()).await?;
            if missing.is_none_or(|missing| !missing.is_empty()) {
                continue;
            }
            let sql = format!(
                "select to_regprocedure($1) is not null,
                        has_table_privilege({name}, 'select') and has_table_privilege({name}, 'delete')
                            and has_column_privilege({name}, 'expires_at', 'update')",
                name = quote_literal(&name)
            );
            let query = statement(sql).bind(table.function(&self.names));
            let row = session.fetch_one("prune_effects", query).await?;
            if get(&row, 0)? {
                there.push((table, get(&row, 1)?));
            }
        }
        Ok(there)
    }

    /// Deletes some of what has expired, if the tables are there. Waits for nobody: rows in use are
    /// left for another time.
    ///
    /// # Errors
    /// Of operation `prune_effects`. A missing privilege is none: the GRANT is among what is given.
    pub async fn prune_effects(&self, link: &mut Link) -> Result<Expired, DbError> {
        let session = &mut link.session;
        session.begin(&self.timeouts).await?;
        let mut expired = Expired::default();
        for (table, granted) in self.effects_tables(session).await? {
            if !granted {
                expired.grants.push(table.grant(&self.names));
                continue;
            }
            let name = table.name(&self.names);
            // Asked twice: the row may have changed since it was chosen.
            let sql = format!(
                "delete from {name} where expires_at < now() and ctid = any(array(
                   select ctid from {name} where expires_at < now() order by expires_at limit $1 for update skip locked))"
            );
            let query = statement(sql).bind(PAGE);
            let gone = session.execute("prune_effects", query).await?;
            expired.more |= i64::try_from(gone) == Ok(PAGE);
            match table {
                EffectsTable::IdempotencyKeys => expired.keys = gone,
                EffectsTable::Inbox => expired.inbox = gone,
            }
        }
        session.commit().await?;
        Ok(expired)
    }
}
