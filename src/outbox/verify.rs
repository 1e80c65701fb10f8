//! What must be true of the tables before anything is published: part of it is on-disk format.

use sqlx::postgres::PgRow;

use super::{
    DbError, LANES, Link, Outbox, Session, Table, fit::Misfit, session::statement, table::get,
};

impl Outbox {
    /// Refuses tables that this relay must not touch; call it at start. (Missing columns of the outbox
    /// itself are refused by [`Outbox::link`].)
    ///
    /// # Errors
    /// Of the schema's kind, with the remedy: the relay's own tables or columns of them are missing, or
    /// a pending index counts its lanes otherwise, which another version made.
    pub async fn verify(&self, link: &mut Link) -> Result<(), DbError> {
        link.session.begin(&self.timeouts).await?;
        self.verify_in(&mut link.session, &link.table).await?;
        link.session.commit().await
    }

    /// Refuses a table that the mapping does not fit; for commands that publish nothing.
    ///
    /// # Errors
    /// Of the schema's kind, with everything that does not fit and the remedies.
    pub async fn verify_mapping(&self, link: &mut Link) -> Result<(), DbError> {
        link.session.begin_reading(&self.timeouts).await?;
        let misfits = self.misfits(&mut link.session, &link.table).await?;
        link.session.commit().await?;
        refuse(&misfits)
    }

    pub(super) async fn verify_in(
        &self,
        session: &mut Session,
        table: &Table,
    ) -> Result<(), DbError> {
        let indexes = self.lane_indexes(session, table.found.oid).await?;
        if let Some(index) = indexes.iter().find(|index| index.is_foreign()) {
            return Err(DbError::table(format!(
                "index {} divides the keys of {} into {} lanes, this outboxd into {LANES}: \
                 relays of both would not keep each other's order. Stop those that use it, then drop it",
                index.name,
                self.names.display(),
                index.lanes
            )));
        }
        refuse(&self.misfits(session, table).await?)?;
        if !self.mapping.is_own() && !self.reads_by_index(session, table).await? {
            tracing::warn!(
                "no index leads claims to the pending rows of {}: each reads the whole table. Make it: {}",
                self.names.display(),
                table.pending_index(&self.mapping)
            );
        }
        self.verify_id_types(session, table).await?;
        for (table, columns) in self.own_tables() {
            let missing = missing_columns(session, &table, columns).await?;
            match missing.as_deref() {
                None => {
                    return Err(DbError::table(format!(
                        "there is no table {table}: create it with `outboxd migrate`, with the same settings"
                    )));
                }
                Some([]) => {}
                Some(missing) => {
                    return Err(DbError::table(format!(
                        "{table} has no column {}: is it a table of something else?",
                        missing.join(", ")
                    )));
                }
            }
        }
        Ok(())
    }

    /// The relay's own tables speak of rows by ids of the outbox's type.
    async fn verify_id_types(&self, session: &mut Session, table: &Table) -> Result<(), DbError> {
        let sql = "select format_type(atttypid, null) from pg_attribute where attrelid = to_regclass($1) and attname = 'id'";
        let failures = self.names.failures();
        let query = statement(sql).bind(&failures);
        let rows = session.fetch("verify", query).await?;
        let found = rows.first().map(|row| get::<String>(row, 0)).transpose()?;
        let wanted = table.id.sql_type();
        if found.is_none() || found.as_deref() == Some(wanted) {
            return Ok(());
        }
        let instances = self.names.instances();
        Err(DbError::table(format!(
            "{failures} was made for ids of another type than {wanted}: stop the relays, drop it and {instances}, \
             then migrate again (what failed is forgotten, and tried anew)"
        )))
    }

    /// The relay's own tables, quoted, and what it uses of them.
    pub(super) fn own_tables(&self) -> [(String, &'static [&'static str]); 2] {
        [
            (self.names.failures(), &FAILURES_COLUMNS),
            (self.names.instances(), &INSTANCES_COLUMNS),
        ]
    }

    /// The indexes by hash of the key.
    pub(super) async fn lane_indexes(
        &self,
        session: &mut Session,
        oid: u32,
    ) -> Result<Vec<LaneIndex>, DbError> {
        // Without casts, parentheses and spaces, an expression reads alike in every version.
        let sql = "with indexes as (
               select indexrelid::regclass::text as name, indisvalid and indisready as valid, pg_get_indexdef(indexrelid, 2, true) as second,
                      regexp_replace(pg_get_indexdef(indexrelid, 1, true), '::[a-z ]+|[() ]', '', 'g') as first,
                      regexp_replace(pg_get_expr(indpred, indrelid), '[() ]', '', 'g') as predicate
                 from pg_index where indrelid = $1::bigint::oid)
             select name, valid, substring(first from '&([0-9]{1,9})$')::bigint + 1,
                    second = 'id' and predicate = 'published_atISNULL' and first like 'hashtextextendedCOALESCEaggregate_id,id,0&%'
               from indexes where first ~ '^hashtextextended.*,0&[0-9]{1,9}$' order by name";
        let query = statement(sql).bind(i64::from(oid));
        let rows = session.fetch("verify", query).await?;
        rows.iter().map(LaneIndex::read).collect()
    }
}

/// An index by hash of the key.
pub(super) struct LaneIndex {
    pub(super) name: String,
    /// A build that failed or was broken off leaves an invalid index, which is kept up for nothing.
    pub(super) valid: bool,
    pub(super) lanes: i64,
    /// Of pending rows of outboxd's own table, and by id within a lane.
    pending: bool,
}

impl LaneIndex {
    fn read(row: &PgRow) -> Result<Self, DbError> {
        Ok(Self {
            name: get(row, 0)?,
            valid: get(row, 1)?,
            lanes: get(row, 2)?,
            pending: get::<Option<bool>>(row, 3)?.unwrap_or_default(),
        })
    }

    /// Whether claims find their rows by it.
    pub(super) fn serves(&self) -> bool {
        self.valid && self.pending && !self.is_foreign()
    }

    /// Whether it was made for another number of lanes.
    pub(super) fn is_foreign(&self) -> bool {
        usize::try_from(self.lanes) != Ok(LANES)
    }
}

pub(super) fn refuse(misfits: &[Misfit]) -> Result<(), DbError> {
    if misfits.is_empty() {
        return Ok(());
    }
    let lines = misfits
        .iter()
        .map(|it| format!("{}\n  -> {}", it.what, it.remedy));
    Err(DbError::table(lines.collect::<Vec<_>>().join("\n")))
}

const FAILURES_COLUMNS: [&str; 11] = [
    "id",
    "event_id",
    "lane",
    "key",
    "destination",
    "state",
    "holds",
    "attempts",
    "next_attempt_at",
    "reason",
    "failed_at",
];

const INSTANCES_COLUMNS: [&str; 10] = [
    "instance",
    "version",
    "ordering",
    "started_at",
    "seen_at",
    "clean",
    "unclean_starts",
    "trial_id",
    "trial_deaths",
    "paused",
];

/// Columns that a table lacks; `None` if it is not there.
pub(super) async fn missing_columns(
    session: &mut Session,
    table: &str,
    columns: &[&str],
) -> Result<Option<Vec<String>>, DbError> {
    let sql = "select case when to_regclass($1) is not null then array(
                 select c from unnest($2::text[]) c where not exists (
                   select from pg_attribute a where a.attrelid = to_regclass($1) and a.attname = c and not a.attisdropped)) end";
    let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let row = session
        .fetch_one("verify", statement(sql).bind(table).bind(columns))
        .await?;
    get(&row, 0)
}
