//! Looking at a database whose outbox is not known yet: which tables there are, and what one holds.
//!
//! # Design notes
//! * Catalogs tell the tables, so that a role that may read none of them sees them all. Rows are read of a
//!   table that looks like an outbox only, the first few, within a few seconds, and nothing is locked.
//! * Nothing of the relay's own need be there: this is before `outboxd migrate`.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Database, DbError, Link, Names, Ordering, Outbox, Timeouts, row, session::statement, table::get,
};
use crate::{
    event::Event,
    mapping::{Column, Mapping},
};

/// Pending rows are counted up to here.
const COUNTED: i64 = 100_000;

/// A table that may be an outbox.
#[derive(Debug, Clone)]
pub struct SeenTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// How many events wait in a table that looks like an outbox.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waiting {
    /// Pending rows; `None`: more than were counted.
    pub events: Option<i64>,
    /// Age of the oldest of those that were counted, where the mapping has a time.
    pub oldest: Option<Duration>,
}

const TABLES: &str = "
    select n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, null), not a.attnotnull,
           exists (select from pg_index i where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null
                      and i.indnkeyatts = 1 and i.indkey[0] = a.attnum),
           a.attidentity <> '' or coalesce(pg_get_expr(f.adbin, f.adrelid) like 'nextval(%', false),
           array(select e.enumlabel::text from pg_enum e where e.enumtypid = a.atttypid order by e.enumsortorder)
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef f on f.adrelid = c.oid and f.adnum = a.attnum
     where c.relkind in ('r', 'p') and not c.relispartition and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
     order by 1, 2, a.attnum";

/// The tables of a database.
///
/// # Errors
/// When the database cannot be asked.
pub async fn tables(database: &Database, timeouts: &Timeouts) -> Result<Vec<SeenTable>, DbError> {
    let mut session = database.connect().await?;
    session.begin_reading(timeouts).await?;
    let rows = session.fetch("inspect", statement(TABLES)).await?;
    session.commit().await?;
    session.close().await;
    let mut tables: BTreeMap<(String, String), Vec<Column>> = BTreeMap::new();
    for row in &rows {
        let column = Column {
            name: get(row, 2)?,
            sql_type: get(row, 3)?,
            is_nullable: get(row, 4)?,
            is_unique: get(row, 5)?,
            is_drawn: get(row, 6)?,
            labels: get(row, 7)?,
        };
        tables
            .entry((get(row, 0)?, get(row, 1)?))
            .or_default()
            .push(column);
    }
    let tables = tables.into_iter();
    let seen = tables.map(|((schema, table), columns)| SeenTable {
        schema,
        table,
        columns,
    });
    Ok(seen.collect())
}

impl Outbox {
    /// A table by a mapping that is only proposed.
    pub fn proposed(
        database: Database,
        names: Names,
        mapping: Mapping,
        timeouts: Timeouts,
    ) -> Self {
        Self::new(database, names, mapping, Ordering::Key, timeouts)
    }

    /// How many events wait, and for how long.
    pub async fn waiting(&self, link: &mut Link) -> Result<Waiting, DbError> {
        let sql = format!(
            "select count(*), extract(epoch from clock_timestamp() - min(created_at) filter (where isfinite(created_at)))::float8
               from (select {created_at} as created_at from {outbox} o where {pending} limit {COUNTED} + 1) o",
            created_at = link.table.created_at,
            outbox = self.names.outbox(),
            pending = link.table.pending,
        );
        link.session.begin_reading(&self.timeouts).await?;
        let row = link.session.fetch_one("inspect", statement(sql)).await?;
        link.session.commit().await?;
        let events: i64 = get(&row, 0)?;
        let seconds = get::<Option<f64>>(&row, 1)?.filter(|_| self.mapping.time.is_some());
        Ok(Waiting {
            events: (events <= COUNTED).then_some(events),
            oldest: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        })
    }

    /// The first pending events, as they would be sent.
    pub async fn samples(&self, link: &mut Link, limit: u32) -> Result<Vec<Event>, DbError> {
        let table = &link.table;
        let rows = format!(
            "(select {columns} from {outbox} o where {pending} order by {order} limit {limit}) o",
            columns = row::columns(table),
            outbox = self.names.outbox(),
            pending = table.pending,
            order = table.order_by(),
        );
        let sql = format!(
            "select o.*, (extract(epoch from clock_timestamp()) * 1000000)::bigint from ({}) o",
            row::sized(&rows)
        );
        link.session.begin_reading(&self.timeouts).await?;
        let rows = link.session.fetch("inspect", statement(sql)).await?;
        link.session.commit().await?;
        let now = row::COLUMNS;
        let events = rows.iter();
        events
            .map(|row| row::event(row, &link.table, get(row, now)?, usize::MAX))
            .collect()
    }
}
