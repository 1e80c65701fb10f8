//! Reading the table beside another relay: rows, pending or not, as the messages they would become.
//! Nothing is locked or changed, and the relay's own tables need not be there.

use super::{
    DbError, Link, Outbox, row,
    row_id::IdType,
    table::{Order, Table, get},
};
use crate::event::{Event, RowId};

/// A row that was read.
#[derive(Debug, Clone)]
pub struct Row {
    /// What would be sent.
    pub event: Event,
    /// Where it stands in the table's order, where a number tells that.
    pub place: Option<i64>,
}

impl Outbox {
    /// The newest rows' ids, as far as the table has an order.
    pub async fn newest(&self, link: &mut Link, limit: usize) -> Result<Vec<RowId>, DbError> {
        let (table, outbox) = (&link.table, link.table.names.outbox());
        let first = match &table.order {
            Order::Numbered(column) => column,
            Order::Ranked(columns) => columns.first().map_or(&table.id_column, |(name, _)| name),
        };
        let sql = format!(
            "select {} from {outbox} o order by {first} desc limit {limit}",
            table.id.readable(&table.id_column)
        );
        self.read_ids(link, sql).await
    }

    /// These rows, as far as they are there; as many as fit into `bytes`, one in any case. A payload above
    /// `most` is left where it is, and the event is invalid.
    pub async fn rows(
        &self,
        link: &mut Link,
        ids: &[RowId],
        bytes: usize,
        most: usize,
    ) -> Result<Vec<Row>, DbError> {
        let table = &link.table;
        let which = format!("{} = any({})", table.id_column, table.id.array(ids.iter()));
        self.read_messages(link, &which, bytes, most).await
    }

    /// The rows of these events, likewise. Where no index leads from an event to its row, the table is
    /// read as a whole: ask for many at once.
    pub async fn rows_of_events(
        &self,
        link: &mut Link,
        event_ids: &[String],
        bytes: usize,
        most: usize,
    ) -> Result<Vec<Row>, DbError> {
        let which = of_events(&link.table, event_ids);
        self.read_messages(link, &which, bytes, most).await
    }

    /// Those of these rows that are still to be published.
    pub async fn pending_among(
        &self,
        link: &mut Link,
        ids: &[RowId],
    ) -> Result<Vec<RowId>, DbError> {
        let table = &link.table;
        let sql = format!(
            "select {readable} from {outbox} o where {id} = any({ids}) and {pending}",
            readable = table.id.readable(&table.id_column),
            outbox = table.names.outbox(),
            id = table.id_column,
            ids = table.id.array(ids.iter()),
            pending = table.pending,
        );
        self.read_ids(link, sql).await
    }

    async fn read_ids(&self, link: &mut Link, sql: String) -> Result<Vec<RowId>, DbError> {
        link.session.begin_reading(&self.timeouts).await?;
        let rows = link.session.batch("follow", sql).await?;
        link.session.commit().await?;
        rows.iter().map(|row| link.table.id.read(row, 0)).collect()
    }

    async fn read_messages(
        &self,
        link: &mut Link,
        which: &str,
        bytes: usize,
        most: usize,
    ) -> Result<Vec<Row>, DbError> {
        let table = &link.table;
        let from = format!(
            "(select {}, {} as number from {} o where {which} order by {}) o",
            row::columns(table),
            table.number_sql().unwrap_or_else(|| "null::bigint".into()),
            table.names.outbox(),
            table.order_by(),
        );
        let further =
            ", number, (extract(epoch from clock_timestamp()) * 1000000)::bigint as clock";
        let sql =
            row::sized_within_and(table, &from, &bytes.to_string(), &most.to_string(), further);
        link.session.begin_reading(&self.timeouts).await?;
        let rows = link.read("follow", sql).await?;
        link.session.commit().await?;
        let read = rows.iter().map(|row| {
            let further = row::count(&link.table);
            let event = row::event(row, &link.table, get(row, further + 1)?, most)?;
            let place = get(row, further)?;
            Ok(Row { event, place })
        });
        read.collect()
    }
}

/// A condition: the row is that of one of these events.
fn of_events(table: &Table, event_ids: &[String]) -> String {
    let id = &table.id_column;
    let is_id = [format!("{id}::text"), format!("({id}::text)")].contains(&table.event_id);
    if !is_id {
        let ids = event_ids.iter().filter_map(|id| IdType::Text.parse_any(id));
        let ids: Vec<RowId> = ids.collect();
        return format!(
            "{} = any({})",
            table.event_id,
            IdType::Text.array(ids.iter())
        );
    }
    let ids = event_ids.iter().filter_map(|id| table.id.parse_any(id));
    let ids: Vec<RowId> = ids.collect();
    format!("{id} = any({})", table.id.array(ids.iter()))
}
