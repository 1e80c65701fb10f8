//! What may go wrong with a table, as its catalog tells.

use sqlx::postgres::PgRow;

use super::{DbError, Listed, Session, Surveyed, Surveyor, Table, order_column};
use crate::{
    mapping::{Done, propose::Source},
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
                surveyed.refused("table", &error);
                return Ok(());
            }
        };
        listed.pages = get(&row, 4)?;
        listed.inserted = get(&row, 6)?;
        surveyed.is_made = get(&row, 7)?;
        surveyed.heed_kind(&row)?;
        surveyed.heed_triggers(&row)
    }

    async fn heed_privileges(&mut self, surveyed: &mut Surveyed) -> Result<(), DbError> {
        let role = self.ask(async |session| {
            let row = session.fetch_one("survey", statement("select current_user::text"));
            get::<String>(&row.await?, 0)
        });
        let role = quote_identifier(&role.await??);
        let (schema, table) = (surveyed.names.quoted_schema(), surveyed.names.outbox());
        surveyed.doubt(
            "privileges",
            "this role may not read the table: its rows were not looked at, nor whether the mapping fits",
            format!("grant usage on schema {schema} to {role}; grant select on {table} to {role};"),
        );
        Ok(())
    }
}

async fn look(session: &mut Session, oid: i64, failures: &str) -> Result<PgRow, DbError> {
    let sql = format!(
        "select c.relkind::text, c.relpersistence::text, c.relhassubclass, row_security_active(c.oid),
                greatest(coalesce((select sum(pg_relation_size(relid)) from pg_partition_tree(c.oid)), 0), pg_relation_size(c.oid))::bigint / 8192,
                array(select quote_ident(tgname) || ' fires on ' || concat_ws('/', case when tgtype & 4 <> 0 then 'insert' end,
                        case when tgtype & 16 <> 0 then 'update' end, case when tgtype & 8 <> 0 then 'delete' end)
                        from pg_trigger where tgrelid = c.oid and not tgisinternal and tgenabled <> 'D' and tgtype & 28 <> 0 order by tgname),
                coalesce(s.n_tup_ins, 0)::bigint, to_regclass({failures}) is not null
           from pg_class c left join pg_stat_all_tables s on s.relid = c.oid where c.oid = {oid}"
    );
    session.fetch_one("survey", statement(sql)).await
}

impl Surveyed {
    fn heed_kind(&mut self, row: &PgRow) -> Result<(), DbError> {
        let (display, outbox) = (self.names.display(), self.names.outbox());
        let (kind, persistence): (&str, &str) = (get(row, 0)?, get(row, 1)?);
        if !matches!(kind, "r" | "p") {
            let what = format!("{display} is not a table");
            self.doubt("table", what, "name the table itself with --table");
        } else if kind == "p" || get(row, 2)? {
            self.doubt(
                "table",
                format!(
                    "{display} is partitioned or has child tables: claims look into each of them"
                ),
                "keep partitions few",
            );
        }
        if persistence == "u" {
            self.doubt(
                "table",
                format!("{display} is unlogged: a crash of the server empties it"),
                format!("alter table {outbox} set logged;"),
            );
        }
        if get(row, 3)? {
            self.doubt(
                "row security",
                format!(
                    "policies of {display} apply to this role: events they hide are never published"
                ),
                "let the relay's role bypass it: alter role … bypassrls",
            );
        }
        Ok(())
    }

    fn heed_triggers(&mut self, row: &PgRow) -> Result<(), DbError> {
        for trigger in get::<Vec<String>>(row, 5)? {
            if !trigger.ends_with(" fires on insert") {
                self.doubt(
                    "triggers",
                    format!("trigger {trigger}: one that fails, or suppresses the change, stops the relay"),
                    "drop it, or see that it lets rows be marked or deleted",
                );
            } else if !self.is_ours(&trigger) {
                self.doubt(
                    "triggers",
                    format!("trigger {trigger}: does it publish the row itself, or delete it?"),
                    "see that each row stays, and is published once",
                );
            }
        }
        Ok(())
    }

    /// Whether it is the trigger of `migrate --with notify`.
    fn is_ours(&self, trigger: &str) -> bool {
        trigger.contains(self.names.beside("_notify").trim_matches('"'))
    }

    /// A table that is always empty, though nobody has published from it.
    pub(super) fn heed_emptiness(&mut self, listed: &Listed) {
        let inserted = listed.inserted;
        let is_empty = (self.backlog).is_some_and(|it| it.is_exact && it.events == 0);
        let holds_events_only = self.mapping.done == Done::Delete && self.mapping.pending.is_none();
        if is_empty && inserted > 0 && holds_events_only {
            self.doubt(
                "rows",
                format!(
                    "it is empty, though {inserted} rows were inserted: what is deleted in the transaction that inserts it, \
                     as Debezium allows, leaves nothing to relay"
                ),
                "let the application leave its rows: outboxd deletes what it has published (see docs/from-debezium.md)",
            );
        }
    }

    /// How far the order of events can be told.
    pub(super) fn heed_order(&mut self, table: &Table) {
        if self.mapping.key.is_none() {
            if let Source::Guess = self.proposal.source {
                // That is among what is doubtful about the guess.
                return;
            }
            self.doubt(
                "order",
                "events have no key, and so no order",
                "if their order matters, name a key in a mapping (key = \"…\")",
            );
            return;
        }
        let Some(by) = order_column(&table.found, &self.mapping) else {
            return;
        };
        let name = &by.name;
        if table.is_ranked() {
            self.doubt(
                "order",
                format!(
                    "{name} is not drawn by the INSERT, one by one: of two transactions that write events of one key, \
                     the one that commits last may have the earlier {name}"
                ),
                format!(
                    "{}; and order = \"outbox_order\" in a mapping; or let writers of one key take turns",
                    table.names.numbering("outbox_order")
                ),
            );
        }
    }
}
