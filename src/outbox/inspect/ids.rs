//! How ids come about: the order of events is theirs.

use sqlx::postgres::PgRow;

use super::Inspection;
use crate::outbox::{DbError, session::statement, table::get};

impl Inspection<'_> {
    /// Order is the order of ids: each must be drawn by its INSERT, one at a time, upwards, once.
    pub(super) async fn ids(&mut self, oid: u32) -> Result<(), DbError> {
        if !self.outbox.mapping.is_own() {
            return Ok(());
        }
        let outbox = self.outbox.names().outbox();
        let unique = self
            .text(format!(
                "select indexrelid::regclass::text from pg_index where indrelid = {oid} and indisunique and indisvalid and indimmediate
                    and indpred is null and indnkeyatts = 1
                    and indkey[0] = (select attnum from pg_attribute where attrelid = {oid} and attname = 'id')"
            ))
            .await?;
        if unique.is_empty() {
            self.wrong(
                "ids",
                "column id has no primary key or unique index of its own",
                format!("alter table {outbox} add primary key (id)"),
            );
        }
        let Some(row) = self.sequence(oid).await? else {
            self.wrong(
                "ids",
                "column id is not drawn from a sequence by the INSERT: ids would not tell the order of events",
                format!("alter table {outbox} alter column id add generated always as identity"),
            );
            return Ok(());
        };
        self.judge(&row)
    }

    /// The sequence of column id, by identity or by default.
    async fn sequence(&mut self, oid: u32) -> Result<Option<PgRow>, DbError> {
        let sql = format!(
            "with id as (select attnum from pg_attribute where attrelid = {oid} and attname = 'id')
             select s.seqrelid::regclass::text, s.seqcache, s.seqcycle, s.seqincrement
               from pg_sequence s where s.seqrelid in (
                 select d.objid from pg_depend d where d.classid = 'pg_class'::regclass and d.refobjid = {oid} and d.deptype = 'i'
                    and d.refobjsubid = (select attnum from id)
                 union select d.refobjid from pg_attrdef a join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = a.oid
                  where a.adrelid = {oid} and d.refclassid = 'pg_class'::regclass and a.adnum = (select attnum from id))"
        );
        let mut rows = self.session.fetch("inspect", statement(sql)).await?;
        Ok(rows.pop())
    }

    fn judge(&mut self, row: &PgRow) -> Result<(), DbError> {
        let (sequence, cache, cycle, step): (String, i64, bool, i64) =
            (get(row, 0)?, get(row, 1)?, get(row, 2)?, get(row, 3)?);
        if cache != 1 {
            self.wrong(
                "ids",
                format!("sequence {sequence} has cache {cache}: each session draws ids ahead, and later events get lower ones"),
                format!("alter sequence {sequence} cache 1"),
            );
        }
        if cycle || step < 0 {
            self.wrong(
                "ids",
                format!("sequence {sequence} may go backwards (cycle, or a negative increment): later events get lower ids"),
                format!("alter sequence {sequence} no cycle increment by 1"),
            );
        }
        if step > 1 {
            self.warn(
                "ids",
                format!("sequence {sequence} counts by {step}: does the application give out the ids between (Hibernate's pooled ids)? Then they do not tell the order of events"),
                format!("let the INSERT draw each id, and: alter sequence {sequence} increment by 1"),
            );
        }
        if cache == 1 && !cycle && step == 1 {
            self.ok("ids", format!("drawn one by one from {sequence}"));
        }
        Ok(())
    }
}
