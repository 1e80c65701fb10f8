//! What may go wrong with a table, as its catalog tells.

use sqlx::postgres::PgRow;

use super::{DbError, Found, Listed, Session, Surveyed, Surveyor, Table, order_column};
use crate::{
    mapping::Done,
    outbox::{quote_identifier, session::statement, table::get},
    template::quote_literal,
};

impl Surveyor<'_> {
    /// Kind, policies, triggers, size and privileges.
    pub(super) async fn heed_catalog(
        &mut self,
        listed: &mut Listed,
        surveyed: &mut Surveyed,
    ) -> Result<(), DbError> {
        if !listed.is_readable {
            return self.heed_privileges(surveyed).await;
        }
        let oid = listed.oid;
        let failures = quote_literal(&surveyed.names.failures());
        let looked = self.ask(async |session| look(session, oid, &failures).await);
        let row = match looked.await? {
            Ok(row) => row,
            Err(error) => {
                surveyed.refused("the table itself", &error);
                return Ok(());
            }
        };
        listed.pages = get(&row, 4)?;
        surveyed.is_made = get(&row, 7)?;
        listed.inserted = get(&row, 6)?;
        surveyed.heed_kind(&row)
    }

    async fn heed_privileges(&mut self, surveyed: &mut Surveyed) -> Result<(), DbError> {
        let role = self.ask(async |session| {
            let row = session.fetch_one("survey", statement("select current_user::text"));
            get::<String>(&row.await?, 0)
        });
        let role = quote_identifier(&role.await??);
        let (schema, table) = (surveyed.names.quoted_schema(), surveyed.names.outbox());
        surveyed.doubt(
            "this role may not read the table: neither rows nor whether the mapping fits were looked at",
            Some(format!(
                "grant usage on schema {schema} to {role}; grant select on {table} to {role};"
            )),
        );
        Ok(())
    }
}

async fn look(session: &mut Session, oid: i64, failures: &str) -> Result<PgRow, DbError> {
    let sql = format!(
        "select c.relkind::text, c.relpersistence::text, c.relhassubclass, row_security_active(c.oid),
                greatest(coalesce((select sum(pg_relation_size(relid)) from pg_partition_tree(c.oid)), 0), pg_relation_size(c.oid))::bigint / 8192,
                array(select quote_ident(tgname) || ' on ' || concat_ws('/', case when tgtype & 4 <> 0 then 'insert' end,
                        case when tgtype & 16 <> 0 then 'update' end, case when tgtype & 8 <> 0 then 'delete' end)
                        from pg_trigger where tgrelid = c.oid and not tgisinternal and tgenabled <> 'D' and tgtype & 28 <> 0 order by tgname),
                coalesce(s.n_tup_ins, 0)::bigint,
                to_regclass({failures}) is not null
           from pg_class c left join pg_stat_all_tables s on s.relid = c.oid where c.oid = {oid}"
    );
    session.fetch_one("survey", statement(sql)).await
}

impl Surveyed {
    fn heed_kind(&mut self, row: &PgRow) -> Result<(), DbError> {
        let outbox = self.names.outbox();
        let (kind, persistence): (&str, &str) = (get(row, 0)?, get(row, 1)?);
        if !matches!(kind, "r" | "p") {
            self.doubt("it is not a table", None);
        } else if kind == "p" || get(row, 2)? {
            self.doubt(
                "it is partitioned or has child tables: claims look into each of them",
                None,
            );
        }
        if persistence == "u" {
            self.doubt(
                "it is unlogged: a crash of the server empties it",
                Some(format!("alter table {outbox} set logged;")),
            );
        }
        if get(row, 3)? {
            self.doubt(
                "row security applies to this role: events that its policies hide are never published",
                Some("let the relay's role bypass it: alter role … bypassrls".into()),
            );
        }
        let notifies = |trigger: &String| self.is_ours(trigger);
        let triggers: Vec<_> = get::<Vec<String>>(row, 5)?;
        let triggers: Vec<_> = triggers.into_iter().filter(|it| !notifies(it)).collect();
        for trigger in triggers {
            let (what, remedy) = if trigger.ends_with(" on insert") {
                (
                    "does it publish or delete the row itself?",
                    "see that the row stays, and is published once",
                )
            } else {
                (
                    "one that fails, or suppresses the change, stops the relay",
                    "see that it lets rows be marked and deleted",
                )
            };
            self.doubt(format!("trigger {trigger}: {what}"), Some(remedy.into()));
        }
        Ok(())
    }

    /// Whether it is the trigger of `migrate --with notify`.
    fn is_ours(&self, trigger: &str) -> bool {
        let name = self.names.beside("_notify");
        trigger.ends_with(" on insert") && trigger.contains(name.trim_matches('"'))
    }

    /// A table that is always empty, though nobody has published from it.
    pub(super) fn heed_emptiness(&mut self, listed: &Listed) {
        let inserted = listed.inserted;
        let is_empty = (self.backlog).is_some_and(|it| it.is_exact && it.events == 0);
        if is_empty
            && inserted > 0
            && self.mapping.done == Done::Delete
            && self.mapping.pending.is_none()
        {
            self.doubt(
                format!(
                    "it is empty, though {inserted} rows were inserted: what is deleted in the transaction that inserts it, \
                     as Debezium allows, leaves nothing to relay"
                ),
                Some("let the application leave its rows: outboxd deletes what it has published (see docs/from-debezium.md)".into()),
            );
        }
    }

    /// How far the order of events can be told.
    pub(super) fn heed_order(&mut self, table: &Table, found: &Found) {
        if self.mapping.key.is_none() {
            self.doubt(
                "events have no key, and so no order",
                Some("name one in a mapping (key = \"…\"), if their order matters".into()),
            );
            return;
        }
        let Some(by) = order_column(found, &self.mapping) else {
            return;
        };
        let (name, outbox) = (&by.name, self.names.outbox());
        let column = quote_identifier(name);
        if !by.is_not_null {
            self.doubt(
                format!("{name} may be NULL: such events come last"),
                Some(format!(
                    "alter table {outbox} alter column {column} set not null;"
                )),
            );
        }
        if table.is_ranked() {
            self.doubt(
                format!(
                    "{name} is not drawn by the INSERT, one by one: of two transactions that write events of one key, \
                     the one that commits last may have the earlier {name}"
                ),
                Some(format!(
                    "{}, and order = \"outbox_order\"; or let writers of one key take turns",
                    numbering(&outbox, "outbox_order")
                )),
            );
        }
    }
}

/// The statement that gives rows an order.
pub(super) fn numbering(outbox: &str, column: &str) -> String {
    let column = quote_identifier(column);
    format!("alter table {outbox} add column {column} bigint generated always as identity unique")
}
