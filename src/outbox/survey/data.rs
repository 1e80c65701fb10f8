//! What is read of the rows themselves, and never by a long scan.

use super::{Backlog, DbError, Listed, SMALL, Session, Surveyed, Surveyor, Table};
use crate::{
    event::Event,
    outbox::{
        LANES, Names, quote_identifier, row,
        session::statement,
        table::{Order, get},
    },
};

/// Rows among which equal places in the order are looked for.
const LOOKED_AT: i64 = 10_000;

/// Values of a status: those that the statistics know, and those of rows at the table's beginning.
pub(super) async fn values(
    session: &mut Session,
    names: &Names,
    column: &str,
) -> Result<Vec<String>, DbError> {
    let sql = format!(
        "select distinct value from (
           select unnest(most_common_vals::text::text[]) as value from pg_stats where schemaname = $1 and tablename = $2 and attname = $3
           union all select {}::text from (select * from {} limit 1000) o) v
          where value is not null and length(value) < 50 order by value limit 20",
        quote_identifier(column),
        names.outbox(),
    );
    let query = statement(sql)
        .bind(names.schema())
        .bind(names.table())
        .bind(column);
    let rows = session.fetch("survey", query).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

impl Surveyor<'_> {
    /// Backlog, ties and messages.
    pub(super) async fn look_at_rows(
        &mut self,
        listed: &Listed,
        surveyed: &mut Surveyed,
        table: &Table,
        by_index: bool,
        samples: u32,
    ) -> Result<(), DbError> {
        let is_small = listed.pages <= SMALL;
        let has_time = surveyed.mapping.time.is_some();
        let backlog = self.ask(async |session| {
            if is_small {
                counted(session, table, has_time).await
            } else {
                estimated(session, table).await
            }
        });
        match backlog.await? {
            Ok(backlog) => surveyed.backlog = Some(backlog),
            Err(error) => surveyed.refused("pending events", &error),
        }
        surveyed.heed_emptiness(listed);
        self.look_for_ties(surveyed, table).await?;
        let way = match (is_small, by_index) {
            (true, _) => Way::Sorted,
            (false, true) => Way::ByIndex,
            (false, false) => Way::Unordered,
        };
        let read = self.ask(async |session| first(session, table, way, samples).await);
        match read.await? {
            Ok(events) => surveyed.samples = events,
            Err(error) => surveyed.refused("messages", &error),
        }
        Ok(())
    }

    async fn look_for_ties(
        &mut self,
        surveyed: &mut Surveyed,
        table: &Table,
    ) -> Result<(), DbError> {
        let Order::Ranked(columns) = &table.order else {
            return Ok(());
        };
        let [(column, _), _, ..] = &columns[..] else {
            return Ok(());
        };
        let sql = format!(
            "select count(*) from (select from (select {column} as place, {key} as key from {outbox} o limit {LOOKED_AT}) o
              where place is not null and key is not null group by place, key having count(*) > 1) t",
            key = table.key,
            outbox = table.names.outbox(),
        );
        let ties = self.ask(async |session| {
            let row = session.fetch_one("survey", statement(sql)).await?;
            get::<i64>(&row, 0)
        });
        let ties = ties.await?.unwrap_or_default();
        if ties > 0 {
            surveyed.doubt(
 "order", format!(
"events of one key have the same {} ({ties} times among the first {LOOKED_AT} rows): these come by id", column.trim_start_matches("o.")),
                "order by a number that the INSERT draws (see docs/presets.md)",
            );
        }
        Ok(())
    }
}

async fn counted(session: &mut Session, table: &Table, has_time: bool) -> Result<Backlog, DbError> {
    let sql = format!(
        "select count(*), extract(epoch from clock_timestamp() - min({time}) filter (where isfinite({time})))::float8 from {outbox} o where {pending}",
        time = if has_time {
            &table.created_at
        } else {
            "null::timestamptz"
        },
        outbox = table.names.outbox(),
        pending = table.pending,
    );
    let row = session.fetch_one("survey", statement(sql)).await?;
    Ok(Backlog {
        events: get(&row, 0)?,
        is_exact: true,
        oldest: get(&row, 1)?,
    })
}

/// What the planner expects: it knows the table's statistics, and reads nothing.
async fn estimated(session: &mut Session, table: &Table) -> Result<Backlog, DbError> {
    let sql = format!(
        "explain select from {} o where {}",
        table.names.outbox(),
        table.pending
    );
    let plan = session.batch("survey", sql).await?;
    let line: String = plan.first().map_or(Ok(String::new()), |row| get(row, 0))?;
    let rows = line.split_once("rows=").map_or("", |(_, rest)| rest);
    let rows = rows.split(' ').next().unwrap_or_default();
    Ok(Backlog {
        events: rows.parse().unwrap_or_default(),
        is_exact: false,
        oldest: None,
    })
}

/// How the first pending rows are found without a long scan.
#[derive(Clone, Copy)]
enum Way {
    /// All are sorted: there are few.
    Sorted,
    /// Lane by lane, as claims do it.
    ByIndex,
    /// Any will do.
    Unordered,
}

/// The first pending rows. What the relay knows of failures is left out: it may have no tables yet.
async fn first(
    session: &mut Session,
    table: &Table,
    way: Way,
    limit: u32,
) -> Result<Vec<Event>, DbError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let rows = row::sized(&first_sql(table, way));
    let sql = format!(
        "select o.*, (extract(epoch from clock_timestamp()) * 1000000)::bigint from ({rows}) o"
    );
    let query = statement(sql).bind(i64::from(limit));
    let rows = session.fetch("survey", query).await?;
    let now = row::count(table);
    rows.iter()
        .map(|row| row::event(row, table, get(row, now)?, usize::MAX))
        .collect()
}

fn first_sql(table: &Table, way: Way) -> String {
    let (columns, outbox, pending) = (row::columns(table), table.names.outbox(), &table.pending);
    let (order, id, lane) = (table.order_by(), &table.id_column, &table.lane);
    match way {
        Way::Sorted => {
            format!("(select {columns} from {outbox} o where {pending} order by {order} limit $1) o")
        }
        Way::Unordered => format!("(select {columns} from {outbox} o where {pending} limit $1) o"),
        Way::ByIndex => format!(
            "(select {columns} from (
                select e.* from generate_series(0, {LANES} - 1) u(lane) cross join lateral (
                  select {id} as id, row({order}) as place from {outbox} o where {pending} and {lane} = u.lane
                   order by {order} limit $1) e order by place limit $1) next
               join {outbox} o on {id} = next.id order by next.place) o"
        ),
    }
}
