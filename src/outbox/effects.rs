//! The tables of `migrate --with effects`: idempotency keys and inbox, which services and consumers use
//! through the functions of `migrations/effects.sql`. The relay only deletes what has expired.
//!
//! # Design notes
//! * One set for a schema, also beside several outbox tables: `inbox` and `idempotency_keys` are what
//!   users write in their code. Cleaners of several relays step around each other (SKIP LOCKED).
//! * How long an entry is kept is its writer's to say, by `keep_for`; so there is no setting here.
//! * An application may have a table `inbox` of its own. Nothing is deleted unless it has our columns
//!   and our function stands beside it; `migrate` refuses to make ours then.

use super::{DbError, Link, Names, Outbox, Session, session::statement, table::get};

/// Rows deleted in one step, of each table: a few milliseconds, so that a request which uses an
/// expired key at this moment hardly waits.
const PAGE: i64 = 1_000;

/// The two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effects {
    /// `idempotency_keys`.
    Keys,
    /// `inbox`.
    Inbox,
}

/// What one step deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Idempotency keys.
    pub keys: u64,
    /// Inbox entries.
    pub inbox: u64,
    /// Whether there may be more.
    pub more: bool,
}

impl Effects {
    pub(super) const ALL: [Self; 2] = [Self::Keys, Self::Inbox];

    /// The quoted name.
    pub(super) fn table(self, names: &Names) -> String {
        names.in_schema(match self {
            Self::Keys => "idempotency_keys",
            Self::Inbox => "inbox",
        })
    }

    /// The function that writes the table.
    fn function(self, names: &Names) -> String {
        let (name, arguments) = match self {
            Self::Keys => ("idempotency_begin", "text, text, text, interval, interval"),
            Self::Inbox => ("inbox_accept", "text, text, interval"),
        };
        format!("{}({arguments})", names.in_schema(name))
    }

    /// Every column.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Keys => &[
                "scope",
                "key",
                "request_hash",
                "token",
                "locked_until",
                "expires_at",
                "status",
                "headers",
                "body",
            ],
            Self::Inbox => &["consumer", "message_id", "expires_at"],
        }
    }
}

impl Outbox {
    /// Which of the tables are there, and ours.
    pub(super) async fn effects(&self, session: &mut Session) -> Result<Vec<Effects>, DbError> {
        let sql = "select to_regclass($1) is not null and to_regprocedure($2) is not null and not exists (
               select from unnest($3::text[]) c where not exists (
                 select from pg_attribute a where a.attrelid = to_regclass($1) and a.attname = c and not a.attisdropped))";
        let mut there = Vec::new();
        for effects in Effects::ALL {
            let columns: Vec<String> = effects.columns().iter().map(ToString::to_string).collect();
            let query = statement(sql)
                .bind(effects.table(&self.names))
                .bind(effects.function(&self.names))
                .bind(columns);
            if get(&session.fetch_one("prune_effects", query).await?, 0)? {
                there.push(effects);
            }
        }
        Ok(there)
    }

    /// Deletes some of what has expired, if the tables are there. Waits for nobody: rows in use are
    /// left for another time.
    ///
    /// # Errors
    /// Of operation `prune_effects`.
    pub async fn prune_effects(&self, link: &mut Link) -> Result<Expired, DbError> {
        let session = &mut link.session;
        session.begin(&self.timeouts).await?;
        let mut expired = Expired::default();
        for effects in self.effects(session).await? {
            let table = effects.table(&self.names);
            // Asked twice: also of the row as it is when it is deleted.
            let sql = format!(
                "delete from {table} where expires_at < now() and ctid = any(array(
                   select ctid from {table} where expires_at < now() order by expires_at limit $1 for update skip locked))"
            );
            let query = statement(sql).bind(PAGE);
            let gone = session.execute("prune_effects", query).await?;
            expired.more |= i64::try_from(gone) == Ok(PAGE);
            match effects {
                Effects::Keys => expired.keys = gone,
                Effects::Inbox => expired.inbox = gone,
            }
        }
        session.commit().await?;
        Ok(expired)
    }
}
