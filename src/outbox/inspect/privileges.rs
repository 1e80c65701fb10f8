//! What this role may do, and the GRANTs for what it may not.

use std::fmt::Display;

use super::{Fault, Finding, Inspection};
use crate::outbox::{
    DbError, EffectsTable, OnPublished, quote_identifier,
    session::statement,
    table::{COLUMNS, get},
};
use crate::template::quote_literal;

impl Inspection<'_> {
    pub(super) async fn privileges(&mut self, oid: u32) -> Result<(), DbError> {
        let role = self.role().await?;
        let before = self.findings.len();
        self.outbox_privileges(oid, &role).await?;
        for (table, _) in self.outbox.own_tables() {
            self.own_privileges(&table, &role).await?;
        }
        self.effects_privileges(&role).await?;
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

    /// Without this privilege not even the tables' names can be looked up.
    pub(super) async fn may_use_schema(&mut self) -> Result<bool, DbError> {
        let names = self.outbox.names();
        let usage = format!(
            "select coalesce((select has_schema_privilege(oid, 'usage') from pg_namespace where nspname = {}), true)",
            quote_literal(names.schema())
        );
        if self.holds(usage).await? {
            return Ok(true);
        }
        let (schema, role) = (names.quoted_schema(), self.role().await?);
        let grant = format!("grant usage on schema {schema} to {role}, then check again");
        self.lack("schema", format!("use schema {schema}"), grant);
        Ok(false)
    }

    async fn outbox_privileges(&mut self, oid: u32, role: &str) -> Result<(), DbError> {
        let outbox = self.outbox.names.outbox();
        let columns: Vec<String> = COLUMNS
            .into_iter()
            .chain(self.outbox.topic.columns())
            .map(quote_literal)
            .collect();
        let select = format!(
            "select bool_and(has_column_privilege({oid}::oid, c, 'select')) from unnest(array[{}]) c",
            columns.join(",")
        );
        if !self.holds(select).await? {
            self.lack(
                "read events",
                format!("read {outbox}"),
                format!("grant select on {outbox} to {role}"),
            );
        }
        // Also where published rows are deleted: a claim locks them as an UPDATE does.
        let update = format!("select has_column_privilege({oid}::oid, 'published_at', 'update')");
        if !self.holds(update).await? {
            self.lack(
                "claim events",
                format!("lock and mark rows of {outbox}"),
                format!("grant update (published_at) on {outbox} to {role}"),
            );
        }
        if self.deletes()
            && !self
                .holds(format!("select has_table_privilege({oid}::oid, 'delete')"))
                .await?
        {
            let grant = format!("grant delete on {outbox} to {role}");
            if self.outbox.on_published == OnPublished::Delete {
                self.lack(
                    "delete events",
                    format!("delete published rows of {outbox} (--on-published delete)"),
                    grant,
                );
            } else {
                self.findings.push(Finding::error(
                    Fault::Privilege,
                    "prune events",
                    format!("this role may not delete published rows of {outbox} past --retention"),
                    format!("{grant}; or run with --retention 0, which never prunes"),
                ));
            }
        }
        Ok(())
    }

    async fn own_privileges(&mut self, table: &str, role: &str) -> Result<(), DbError> {
        let sql = "select string_agg(p, ', ' order by n) from unnest(array['select', 'insert', 'update', 'delete']) with ordinality u(p, n)
                    where to_regclass($1) is not null and not has_table_privilege(to_regclass($1), p)";
        let row = self
            .session
            .fetch_one("inspect", statement(sql).bind(table))
            .await?;
        if let Some(missing) = get::<Option<String>>(&row, 0)? {
            self.lack(
                "keep failures",
                format!("{missing} on {table}"),
                format!("grant {missing} on {table} to {role}"),
            );
        }
        Ok(())
    }

    /// Without them expired idempotency keys and inbox entries stay; delivery is none the worse.
    async fn effects_privileges(&mut self, role: &str) -> Result<(), DbError> {
        let (outbox, names) = (self.outbox, &self.outbox.names);
        for table in EffectsTable::ALL {
            if outbox.may_clean(&mut self.session, table).await? == Some(false) {
                let name = table.name(names);
                self.warn(
                    "effects",
                    format!("this role may not delete what has expired in {name}"),
                    format!("{} to {role}", table.grant(names)),
                );
            }
        }
        Ok(())
    }

    async fn holds(&mut self, sql: impl Into<String>) -> Result<bool, DbError> {
        let row = self.session.fetch_one("inspect", statement(sql)).await?;
        Ok(get::<Option<bool>>(&row, 0)?.unwrap_or_default())
    }

    fn lack(&mut self, subject: &'static str, deed: impl Display, grant: String) {
        let what = format!("this role may not {deed}");
        self.findings
            .push(Finding::error(Fault::Privilege, subject, what, grant));
    }
}
