//! The outbox table's columns as they are in the database, held against what the mapping asks for.

use sqlx::postgres::PgRow;

use super::{
    error::DbError,
    names::Names,
    session::{Session, statement},
    table::get,
};
use crate::{
    mapping::{Mapping, types},
    template::quote_literal,
};

/// A column that is there.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) sql_type: String,
    /// The type with its length and the like.
    pub(super) full_type: String,
    pub(super) is_not_null: bool,
    /// No two rows have the same.
    pub(super) is_unique: bool,
    /// Each INSERT draws it from a sequence, one by one, and cannot do otherwise. (Where it only may, an
    /// application may have drawn it long before.)
    pub(super) is_drawn: bool,
}

/// A table that is there.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The namespace of its lane locks.
    pub(super) oid: u32,
    /// Tells this table, as it is, from another of its name.
    pub(super) stamp: String,
    /// Other tables inherit from it: their rows are its own, and their ids may be the same.
    pub(super) has_heirs: bool,
    pub(super) columns: Vec<Column>,
}

/// Whether no two rows have the same in the column `a` of the table `c`.
pub(super) const IS_UNIQUE: &str =
    "exists (select from pg_index i where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
        and i.indpred is null and i.indnkeyatts = 1 and i.indkey[0] = a.attnum)";

/// Whether the INSERT draws the column `a` of the table `c` from a sequence, one by one.
pub(super) const IS_DRAWN: &str =
    "a.attidentity = 'a' and c.relkind = 'r' and exists (select from pg_sequence s where s.seqmin >= 1 and s.seqcache = 1
        and s.seqincrement = 1 and not s.seqcycle and s.seqrelid in (
          select d.objid from pg_depend d where d.classid = 'pg_class'::regclass and d.deptype = 'i'
             and d.refobjid = c.oid and d.refobjsubid = a.attnum))";

/// What changes when a table is swapped for another, rewritten, emptied by TRUNCATE, or gets another
/// payload column: what was learnt of it then, its floors too, holds no more.
pub(super) fn stamp_sql(names: &Names, payload: &str) -> String {
    format!(
        "(select format('%s/%s/%s', attrelid, pg_relation_filenode(attrelid), atttypid) from pg_attribute \
           where attrelid = {}::oid and attname = {})",
        names.regclass(),
        quote_literal(payload)
    )
}

impl Found {
    /// Looks at the table's columns.
    ///
    /// # Errors
    /// Also when there is no such table.
    pub(super) async fn look(
        session: &mut Session,
        names: &Names,
        mapping: &Mapping,
    ) -> Result<Self, DbError> {
        let sql = format!(
            "select c.oid::bigint, coalesce({stamp}, ''), a.attname::text, format_type(a.atttypid, null), a.attnotnull,
                    {IS_UNIQUE},
                    {IS_DRAWN},
                    format_type(a.atttypid, a.atttypmod),
                    exists (select from pg_inherits i where i.inhparent = c.oid and c.relkind = 'r')
               from pg_class c
               left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
              where c.oid = {oid} order by a.attnum",
            stamp = stamp_sql(names, &mapping.payload),
            oid = names.regclass()
        );
        let rows = session.fetch("describe", statement(sql)).await?;
        let Some(first) = rows.first() else {
            let remedy = if mapping.is_own() {
                "create it with `outboxd migrate`, or name the right one with --table"
            } else {
                "name the right one with --table"
            };
            return Err(DbError::table(format!(
                "there is no table {}: {remedy}",
                names.display()
            )));
        };
        let oid: i64 = get(first, 0)?;
        Ok(Self {
            oid: u32::try_from(oid)
                .map_err(|_| DbError::table(format!("oid {oid} is out of range")))?,
            stamp: get(first, 1)?,
            has_heirs: get(first, 8)?,
            columns: rows.iter().filter_map(column).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Columns that are not there, in words.
    pub(super) fn missing(&self, names: &Names, mapping: &Mapping) -> Vec<String> {
        // Whether an order is needed `fit` knows.
        let columns = mapping
            .columns()
            .into_iter()
            .filter(|(part, _)| *part != "order");
        let missing = columns.filter(|(_, name)| self.column(name).is_none());
        if mapping.is_own() {
            let missing: Vec<_> = missing.map(|(_, name)| name).collect();
            let all = format!("{} has no column {}", names.display(), missing.join(", "));
            return (!missing.is_empty()).then_some(all).into_iter().collect();
        }
        let words = missing.map(|(part, name)| self.lacks(names, mapping, part, name));
        words.collect()
    }

    /// That a column is not there, in words.
    pub(super) fn lacks(&self, names: &Names, mapping: &Mapping, part: &str, name: &str) -> String {
        let (place, table) = (mapping.place(part), names.display());
        let there: Vec<_> = self.columns.iter().map(|it| it.name.as_str()).collect();
        format!(
            "{place}{table} has no column {name:?}; it has {}",
            there.join(", ")
        )
    }

    /// Columns of types that cannot be worked with, in words.
    pub(super) fn wrong_types(&self, names: &Names, mapping: &Mapping) -> Vec<String> {
        let columns = mapping.columns().into_iter();
        let wrong = columns.filter_map(|(part, name)| {
            let found = &self.column(name)?.sql_type;
            let types = types(part, name, mapping.is_own())?;
            (!types.contains(&found.as_str())).then(|| {
                format!(
                    "{}column {name} of {} is of type {found}; it must be {}",
                    mapping.place(part),
                    names.display(),
                    types.join(" or ")
                )
            })
        });
        wrong.collect()
    }
}

fn column(row: &PgRow) -> Option<Result<Column, DbError>> {
    let read = |name| {
        Ok(Column {
            name,
            sql_type: get(row, 3)?,
            full_type: get(row, 7)?,
            is_not_null: get(row, 4)?,
            is_unique: get(row, 5)?,
            is_drawn: get(row, 6)?,
        })
    };
    let name = get::<Option<String>>(row, 2).transpose()?;
    Some(name.and_then(read))
}
