//! Whether a mapping fits the table it is for: found out without touching a row.
//!
//! # Design notes
//! * What the catalogs tell is told all at once; then PostgreSQL is asked to plan, never to run, what the
//!   mapping has in its own words: the condition, and the UPDATE.
//! * That a published row is pending no more must follow from the mapping alone: the planner is given the
//!   condition with the set columns replaced by what they are set to, and must find it always false.

use super::{
    DbError, Ordering, Outbox, Session,
    catalog::Column,
    expressions::of_row,
    session::statement,
    table::{Table, get, order_column},
};
use crate::{
    mapping::{Done, Mapping, Setting},
    outbox::quote_identifier,
    template::quote_literal,
};

/// Whenever an event is published, it is between these.
const TIMES: [&str; 2] = ["2000-01-01 00:00:00", "9999-12-31 00:00:00"];

/// Why a mapping does not fit, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) what: String,
    pub(super) remedy: String,
}

/// Looks at one mapping and one table.
struct Fitting<'a> {
    mapping: &'a Mapping,
    table: &'a Table,
    /// Nothing but SELECT and the lock of a reader may be asked for.
    only_reads: bool,
    misfits: Vec<Misfit>,
}

impl Outbox {
    /// What keeps a relay from working by this mapping, or from keeping its promises.
    pub(super) async fn misfits(
        &self,
        session: &mut Session,
        table: &Table,
    ) -> Result<Vec<Misfit>, DbError> {
        self.misfits_of(session, table, false).await
    }

    /// The same for a role that may read only, as far as it can be told. (To plan an UPDATE takes the
    /// right to it, and the lock.)
    pub(super) async fn misfits_for_reader(
        &self,
        session: &mut Session,
        table: &Table,
    ) -> Result<Vec<Misfit>, DbError> {
        self.misfits_of(session, table, true).await
    }

    async fn misfits_of(
        &self,
        session: &mut Session,
        table: &Table,
        only_reads: bool,
    ) -> Result<Vec<Misfit>, DbError> {
        let mut fitting = Fitting {
            mapping: &self.mapping,
            table,
            only_reads,
            misfits: Vec::new(),
        };
        for wrong in table.found.wrong_types(&self.names, &self.mapping) {
            fitting.add(wrong, "map another column, or alter this one");
        }
        if self.mapping.is_own() {
            return Ok(fitting.misfits);
        }
        fitting.id();
        fitting.heirs();
        if self.ordering == Ordering::Key {
            fitting.order();
        }
        fitting.pending(session).await?;
        if fitting.misfits.is_empty() {
            fitting.done(session).await?;
        }
        Ok(fitting.misfits)
    }

    /// Whether claims find their rows, in order, by an index.
    pub(super) async fn reads_by_index(
        &self,
        session: &mut Session,
        table: &Table,
    ) -> Result<bool, DbError> {
        let sql = format!(
            "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off;
             explain (costs off) select {id} from {outbox} o where {pending} and {lane} = 5 order by {order} limit 1",
            id = table.id_column,
            outbox = table.names.outbox(),
            pending = table.pending,
            lane = table.lane,
            order = table.order_by(),
        );
        let rows = session.batch("verify", sql).await?;
        let plan = rows.iter().map(|row| get::<String>(row, 0));
        let plan = plan.collect::<Result<Vec<_>, _>>()?;
        let by_lane =
            |line: &String| line.contains("Index Cond:") && line.contains("hashtextextended");
        Ok(plan.iter().any(by_lane) && !plan.iter().any(|line| line.contains("Sort Key:")))
    }
}

impl Fitting<'_> {
    fn add(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.misfits.push(Misfit {
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    fn id(&mut self) {
        let Some(id) = self.table.found.column(&self.mapping.id) else {
            return;
        };
        let (place, outbox) = (self.mapping.place("id"), self.table.names.outbox());
        let quoted = quote_identifier(&id.name);
        if !id.is_unique {
            self.add(
                format!(
                    "{place}column {} has no primary key or unique index of its own: marking one event as published would mark others",
                    id.name
                ),
                format!("create unique index concurrently on {outbox} ({quoted})"),
            );
        }
        if !id.is_not_null {
            self.add(
                format!(
                    "{place}column {} may be NULL: such events could not be marked",
                    id.name
                ),
                format!("alter table {outbox} alter column {quoted} set not null"),
            );
        }
    }

    fn heirs(&mut self) {
        if self.table.found.has_heirs {
            let names = &self.table.names;
            self.add(
                format!("other tables inherit from {}: a row of theirs may have the id of another, and be marked with it", names.display()),
                "map each table by itself, or use a partitioned one",
            );
        }
    }

    /// Whether there is an order at all, for each row.
    fn order(&mut self) {
        if self.mapping.key.is_none() {
            return;
        }
        if let Some(by) = order_column(&self.table.found, self.mapping) {
            if !by.is_not_null {
                let column = quote_identifier(&by.name);
                self.add(
                    format!("{}column {} may be NULL: such events would have no order", self.mapping.place("order"), by.name),
                    format!("alter table {} alter column {column} set not null; or, if no order is needed, run with --ordering none", self.table.names.outbox()),
                );
            }
            return;
        }
        let names = &self.table.names;
        if let Some(order) = &self.mapping.order {
            let what = self.table.found.lacks(names, self.mapping, "order", order);
            let remedy = format!(
                "add it: {}; or, if no order is needed, run with --ordering none",
                names.numbering(order)
            );
            self.add(what, remedy);
            return;
        }
        let id = self.table.found.column(&self.mapping.id);
        self.add(
            format!(
                "{}nothing tells which of two events of {} came first: ids of type {} do not",
                self.mapping.place("order"),
                names.display(),
                id.map_or("?", |id| &id.sql_type)
            ),
            format!(
                "name the column that does (order = \"created_at\"); or add one: {}, and order = \"outbox_order\"; \
                 or, if no order is needed, run with --ordering none",
                names.numbering("outbox_order")
            ),
        );
    }

    async fn pending(&mut self, session: &mut Session) -> Result<(), DbError> {
        let sql = format!(
            "select from {} o where {}",
            self.table.names.outbox(),
            self.table.pending
        );
        if let Err(error) = plan(session, &sql).await? {
            let what = format!("{}{error}", self.mapping.place("pending"));
            self.add(
                what,
                "write a condition that PostgreSQL takes for this table's columns",
            );
        }
        Ok(())
    }

    async fn done(&mut self, session: &mut Session) -> Result<(), DbError> {
        let Done::Set(settings) = &self.mapping.done else {
            return Ok(());
        };
        let place = self.mapping.place("done");
        if let Some(set) = &self.table.set {
            let outbox = self.table.names.outbox();
            let sql = if self.only_reads {
                format!("select {}", self.values(settings).join(", "))
            } else {
                let pending = &self.table.pending;
                format!("update {outbox} as o set {set} where {pending}")
            };
            if let Err(error) = plan(session, &sql).await? {
                self.add(
                    format!("{place}{error}"),
                    "set columns to values of their types",
                );
                return Ok(());
            }
        }
        if !self.ends_pending(session, settings).await? {
            self.add(
                format!("{place}a published row would still be pending, and be published for ever"),
                "let `done` set a column so that `pending` is false, whatever else is in the row",
            );
        }
        for broken in self.broken_checks(session, settings).await? {
            self.add(
                format!("{place}it breaks {broken}"),
                "set what the constraint allows",
            );
        }
        Ok(())
    }

    /// What a set column is afterwards, as SQL of its type.
    fn value(column: &Column, setting: &Setting, now: &str) -> String {
        let value = match setting {
            Setting::Now => now,
            Setting::Constant(text) => text,
        };
        format!("{}::{}", quote_literal(value), column.full_type)
    }

    /// What the set columns are afterwards, each by its name.
    fn values(&self, settings: &[(String, Setting)]) -> Vec<String> {
        let values = settings.iter().filter_map(|(name, setting)| {
            let value = Self::value(self.table.found.column(name)?, setting, TIMES[0]);
            Some(format!("{value} as {}", quote_identifier(name)))
        });
        values.collect()
    }

    async fn ends_pending(
        &self,
        session: &mut Session,
        settings: &[(String, Setting)],
    ) -> Result<bool, DbError> {
        let Some(condition) = &self.mapping.pending else {
            return Ok(false);
        };
        for now in TIMES {
            let sql = condition.to_sql(|name| {
                let set = settings.iter().find(|(column, _)| column == name);
                match (set, self.table.found.column(name)) {
                    (Some((_, setting)), Some(column)) => Self::value(column, setting, now),
                    _ => of_row(name),
                }
            });
            let sql = format!("select from {} o where {sql}", self.table.names.outbox());
            let plan = plan(session, &sql).await?;
            if !plan.is_ok_and(|plan| plan.contains("One-Time Filter: false")) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Constraints over set columns alone that what they are set to would break.
    async fn broken_checks(
        &self,
        session: &mut Session,
        settings: &[(String, Setting)],
    ) -> Result<Vec<String>, DbError> {
        let names: Vec<String> = settings.iter().map(|(name, _)| name.clone()).collect();
        let sql = "select conname::text, pg_get_expr(conbin, conrelid) from pg_constraint
                    where conrelid = $1::bigint::oid and contype = 'c' and not exists (
                      select from unnest(conkey) k join pg_attribute a on a.attrelid = conrelid and a.attnum = k
                       where not a.attname = any($2::text[]))";
        let query = statement(sql)
            .bind(i64::from(self.table.found.oid))
            .bind(names);
        let constraints = session.fetch("verify", query).await?;
        let row = self.values(settings).join(", ");
        let mut broken = Vec::new();
        for constraint in &constraints {
            let (name, condition): (String, String) = (get(constraint, 0)?, get(constraint, 1)?);
            let sql = format!("select from (select {row}) o where not ({condition})");
            // The planner works out what is constant; what it cannot, the row's own UPDATE will tell.
            let plan = plan(session, &sql).await?;
            if plan.is_ok_and(|plan| plan == "Result") {
                broken.push(format!("constraint {name}: {condition}"));
            }
        }
        Ok(broken)
    }
}

/// The plan of a statement, or what PostgreSQL says of it. A missing privilege is an error, and so is
/// waiting in vain.
async fn plan(session: &mut Session, sql: &str) -> Result<Result<String, String>, DbError> {
    session
        .execute("verify", statement("savepoint plan"))
        .await?;
    let explain = format!("explain (costs off) {sql}");
    match session.batch("verify", explain).await {
        Ok(rows) => {
            session
                .execute("verify", statement("release savepoint plan"))
                .await?;
            let lines = rows.iter().map(|row| get::<String>(row, 0));
            Ok(Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n")))
        }
        Err(error) if error.is_privilege() || error.is_impatience() => Err(error),
        Err(error) => {
            let Some(said) = error.said() else {
                return Err(error);
            };
            session
                .execute("verify", statement("rollback to savepoint plan"))
                .await?;
            Ok(Err(said))
        }
    }
}
