//! How rows are found, and what happens when they are marked or deleted.

use super::Inspection;
use crate::outbox::{DbError, LANES, Table, verify::LaneIndex};

impl Inspection<'_> {
    pub(super) async fn pending_index(&mut self, table: &Table) -> Result<(), DbError> {
        let outbox = self.outbox;
        let indexes = outbox
            .lane_indexes(&mut self.session, table.found.oid)
            .await?;
        for index in indexes.iter().filter(|index| index.is_foreign()) {
            self.wrong(
                "pending index",
                format!("{} has {} lanes, this outboxd {LANES}: relays of both would not keep each other's order", index.name, index.lanes),
                format!("stop the relays that use it, then: drop index concurrently {}", index.name),
            );
        }
        for index in indexes.iter().filter(|index| !index.valid) {
            self.warn(
                "pending index",
                format!(
                    "{} is invalid: its building was broken off (or goes on at this moment)",
                    index.name
                ),
                format!("drop index concurrently {}", index.name),
            );
        }
        if let Some(index) = indexes.iter().find(|index| LaneIndex::serves(index)) {
            self.ok("pending index", format!("claims read {}", index.name));
        } else if !outbox.mapping.is_own()
            && outbox.reads_by_index(&mut self.session, table).await?
        {
            self.ok("pending index", "claims read one");
        } else {
            self.wrong(
                "pending index",
                "there is none that claims can read: each would read the whole table",
                table.pending_index(&outbox.mapping),
            );
        }
        Ok(())
    }

    /// Triggers, rules and foreign keys that fire when rows are marked or deleted.
    pub(super) async fn meddlers(&mut self, oid: u32) -> Result<(), DbError> {
        let columns = self.outbox.mapping.set_columns();
        let columns: Vec<_> = columns.map(crate::template::quote_literal).collect();
        let columns = columns.join(", ");
        let (events, commands, deed) = if self.deletes() {
            (16 | 8, "'2', '4'", "marked or deleted")
        } else {
            (16, "'2'", "marked")
        };
        let triggers = self
            .text(format!(
                "select quote_ident(tgname) from pg_trigger t where tgrelid = {oid} and not tgisinternal and tgenabled <> 'D' and tgtype & {events} <> 0
                    and (tgattr = ''::int2vector or tgtype & 8 <> 0 or exists (select from pg_attribute where attrelid = {oid} and attname = any(array[{columns}]::text[]) and attnum = any(tgattr)))"
            ))
            .await?;
        for trigger in triggers {
            self.warn(
                "triggers",
                format!("trigger {trigger} fires for each row that is {deed}; one that fails or suppresses it stops the relay"),
                "drop it, or see to it that it lets the row be marked",
            );
        }
        let rules = self
            .text(format!(
                "select quote_ident(rulename) from pg_rewrite where ev_class = {oid} and ev_type in ({commands}) and rulename <> '_RETURN'"
            ))
            .await?;
        for rule in rules {
            self.wrong(
                "rules",
                format!("rule {rule} rewrites what is done when rows are {deed}"),
                format!("drop rule {rule} on {}", self.outbox.names().outbox()),
            );
        }
        self.references(oid).await
    }

    async fn references(&mut self, oid: u32) -> Result<(), DbError> {
        if self.deletes() {
            let references = self
                .text(format!("select conrelid::regclass::text from pg_constraint where contype = 'f' and confrelid = {oid}"))
                .await?;
            for table in references {
                self.warn(
                    "foreign keys",
                    format!("{table} refers to the outbox: rows it refers to cannot be deleted"),
                    "let it refer to the business row instead, or run with --retention 0",
                );
            }
        }
        Ok(())
    }
}
