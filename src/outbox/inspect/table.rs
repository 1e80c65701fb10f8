//! The tables: what they are made of, and who else is at work on them.

use sqlx::postgres::PgRow;

use super::Inspection;
use crate::outbox::{
    DbError,
    session::statement,
    table::{COLUMNS, get},
    verify::missing_columns,
};

impl Inspection<'_> {
    /// Whether the table is there, and whole enough to ask for privileges.
    pub(super) async fn tables(&mut self) -> Result<bool, DbError> {
        let names = self.outbox.names();
        let display = names.display();
        let sql = format!(
            "select oid::bigint, relkind::text, relpersistence::text, relhassubclass, coalesce('autovacuum_enabled=false' = any(reloptions), false),
                    row_security_active(oid)
               from pg_class where oid = {}",
            names.regclass()
        );
        let rows = self.session.fetch("inspect", statement(sql)).await?;
        let Some(row) = rows.first() else {
            self.wrong(
                "table",
                format!("there is no table {display}"),
                "create it with `outboxd migrate`, or name the right one with --table",
            );
            return Ok(false);
        };
        let oid = u32::try_from(get::<i64>(row, 0)?).unwrap_or_default();
        self.kind(row)?;
        if !self.columns(oid).await? {
            return Ok(false);
        }
        self.ids(oid).await?;
        self.pending_index(oid).await?;
        self.meddlers(oid).await?;
        self.own().await?;
        Ok(true)
    }

    fn kind(&mut self, row: &PgRow) -> Result<(), DbError> {
        let names = self.outbox.names();
        let (display, outbox) = (names.display(), names.outbox());
        let (kind, persistence): (&str, &str) = (get(row, 1)?, get(row, 2)?);
        match (kind, get::<bool>(row, 3)?) {
            ("r", false) => self.ok("table", format!("{display} is there")),
            ("p", _) | ("r", true) => self.warn(
                "table",
                format!(
                    "{display} is partitioned or has child tables: claims look into each of them"
                ),
                "use a plain table: pruning keeps it small",
            ),
            _ => self.wrong(
                "table",
                format!("{display} is not a table"),
                "name the table itself with --table",
            ),
        }
        if persistence != "p" {
            self.wrong(
                "table",
                format!("{display} is unlogged: a crash of the server empties it"),
                format!("alter table {outbox} set logged"),
            );
        }
        if get(row, 4)? {
            self.warn(
                "autovacuum",
                format!("it is off for {display}"),
                format!("alter table {outbox} reset (autovacuum_enabled)"),
            );
        }
        if get(row, 5)? {
            self.wrong(
                "row security",
                format!(
                    "policies of {display} apply to this role: events they hide are never published"
                ),
                "let the relay's role bypass it: alter role … bypassrls",
            );
        }
        Ok(())
    }

    async fn columns(&mut self, oid: u32) -> Result<bool, DbError> {
        let outbox = self.outbox;
        let names = outbox.names();
        let needed: Vec<&str> = COLUMNS.into_iter().chain(outbox.topic.columns()).collect();
        let missing = missing_columns(&mut self.session, &names.outbox(), &needed).await?;
        let missing = missing.unwrap_or_default();
        if !missing.is_empty() {
            self.wrong(
                "columns",
                format!("{} has no column {}", names.display(), missing.join(", ")),
                "add it (`outboxd migrate --print` shows each with its type), or change --topic if it is named there",
            );
            return Ok(false);
        }
        let wrong = outbox.wrong_types(&mut self.session, oid).await?;
        if wrong.is_empty() {
            self.ok("columns", "all there, of types that can be sent");
        }
        for what in wrong {
            self.wrong(
                "columns",
                what,
                "alter the column, or keep the events in a table of their own",
            );
        }
        let nullable = self
            .text(format!(
                "select attname::text from pg_attribute where attrelid = {oid} and attname in ('id', 'event_id') and not attnotnull"
            ))
            .await?;
        for column in nullable {
            let table = names.outbox();
            self.wrong(
                "columns",
                format!("column {column} may be NULL: consumers could not tell such events apart"),
                format!("alter table {table} alter column {column} set not null"),
            );
        }
        Ok(true)
    }

    /// The relay's own tables, and who else is at work.
    async fn own(&mut self) -> Result<(), DbError> {
        let outbox = self.outbox;
        for (table, columns) in outbox.own_tables() {
            match missing_columns(&mut self.session, &table, columns)
                .await?
                .as_deref()
            {
                None => self.wrong(
                    "relay's tables",
                    format!("there is no table {table}"),
                    "create it with `outboxd migrate`",
                ),
                Some([]) => self.ok("relay's tables", format!("{table} is there")),
                Some(missing) => self.wrong(
                    "relay's tables",
                    format!(
                        "{table} has no column {}: is it a table of something else?",
                        missing.join(", ")
                    ),
                    "move it out of the way, then run `outboxd migrate`",
                ),
            }
        }
        let instances = outbox.names().instances();
        let readable = format!(
            "select 'x' where has_table_privilege(to_regclass({}), 'select')",
            crate::template::quote_literal(&instances),
        );
        if self.text(readable).await?.is_empty() {
            return Ok(());
        }
        let others = self
            .text(format!(
                "select instance from {instances} where not clean and seen_at > now() - interval '30 seconds' and ordering <> '{}'",
                outbox.ordering().as_str()
            ))
            .await?;
        for relay in others {
            self.wrong(
                "relays",
                format!("relay {relay} works on this table with another --ordering"),
                "stop it, or run this one with the same --ordering",
            );
        }
        Ok(())
    }
}
