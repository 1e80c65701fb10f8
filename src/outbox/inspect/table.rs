//! The tables: what they are made of, and who else is at work on them.

use sqlx::postgres::PgRow;

use super::Inspection;
use crate::outbox::{
    DbError, Ordering, Table,
    catalog::Found,
    quote_identifier,
    session::statement,
    table::{get, is_integer, order_column},
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
        let Some(table) = self.columns().await? else {
            return Ok(false);
        };
        self.ids(oid).await?;
        self.pending_index(&table).await?;
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

    /// The table as the mapping has it, where it has all that is named there.
    async fn columns(&mut self) -> Result<Option<Table>, DbError> {
        let outbox = self.outbox;
        let (names, mapping) = (outbox.names(), &outbox.mapping);
        let found = Found::look(&mut self.session, names, mapping).await?;
        let missing = found.missing(names, mapping);
        let advice = if mapping.is_own() {
            "add it (`outboxd migrate --print` shows each with its type), or change --topic if it is named there"
        } else {
            "name a column that is there"
        };
        for what in &missing {
            self.wrong("columns", what, advice);
        }
        if !missing.is_empty() {
            return Ok(None);
        }
        let wrong = found.wrong_types(names, mapping);
        if wrong.is_empty() {
            self.ok("columns", "all there, of types that can be sent");
        }
        if mapping.is_own() {
            self.own_columns(&found);
        }
        let Ok(table) = Table::of(found, names, mapping) else {
            for what in wrong {
                self.wrong("columns", what, "map another column, or alter this one");
            }
            return Ok(None);
        };
        for misfit in outbox.misfits(&mut self.session, &table).await? {
            self.wrong("mapping", misfit.what, misfit.remedy);
        }
        self.order(&table);
        Ok(Some(table))
    }

    /// What must not be NULL in outboxd's own table.
    fn own_columns(&mut self, found: &Found) {
        for name in ["id", "event_id"] {
            if found.column(name).is_some_and(|column| !column.is_not_null) {
                let table = self.outbox.names().outbox();
                self.wrong(
                    "columns",
                    format!(
                        "column {name} may be NULL: consumers could not tell such events apart"
                    ),
                    format!("alter table {table} alter column {name} set not null"),
                );
            }
        }
    }

    /// How far order can be promised in a table that was not made for it.
    fn order(&mut self, table: &Table) {
        let mapping = &self.outbox.mapping;
        if mapping.is_own() || mapping.key.is_none() || self.outbox.ordering() == Ordering::None {
            return;
        }
        let Some(by) = order_column(&table.found, mapping) else {
            return;
        };
        if !table.is_ranked() {
            self.ok(
                "order",
                format!("by {}, which each INSERT draws from a sequence", by.name),
            );
            return;
        }
        let place = mapping.place("order");
        let outbox = self.outbox.names().outbox();
        let remedy = if is_integer(&by.sql_type) {
            format!(
                "if it is the INSERT that draws {}, let nobody else: alter table {outbox} alter column {} set generated always \
                 (a serial column: drop its default first, and add generated always as identity with a start above its greatest)",
                by.name,
                quote_identifier(&by.name)
            )
        } else {
            format!(
                "let writers of one key take turns (lock its row first) with a {} drawn after that; \
                 or add a column that is drawn: {}",
                by.name,
                table.names.numbering("outbox_order")
            )
        };
        self.warn(
            "order",
            format!(
                "{place}events of a key are published by {} as far as they are committed: one that is committed late, with an earlier \
                 {}, comes after those that are out already, and equal ones come by id",
                by.name, by.name
            ),
            remedy,
        );
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
