//! What would be published next, without taking anything.

use super::{
    DbError, Link, Outbox, row,
    session::statement,
    table::{LANES, Table, get},
};
use crate::event::Event;

impl Outbox {
    /// The next events in their order: due retries, and pending events that nothing holds. Nothing is
    /// locked or changed. Destinations that a live relay has paused are left out, as they are there.
    pub async fn peek(&self, link: &mut Link, limit: i64) -> Result<Vec<Event>, DbError> {
        let sql = sql(&link.table);
        link.session.begin_reading(&self.timeouts).await?;
        let pins = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local jit = off";
        link.session.batch("peek", pins.into()).await?;
        let query = statement(sql).bind(limit);
        let rows = link.session.fetch("peek", query).await?;
        link.session.commit().await?;
        let now_column = row::count(&link.table);
        rows.iter()
            .map(|row| row::event(row, &link.table, get(row, now_column)?, usize::MAX))
            .collect()
    }
}

fn sql(table: &Table) -> String {
    let (outbox, failures) = (table.names.outbox(), table.names.failures());
    let (pending, is_of, order) = (&table.pending, table.is_of_failure(), table.order_by());
    let (held, destination) = (table.held_sql(), &table.destination);
    let id = &table.id_column;
    format!(
        "with paused as materialized (
           select distinct jsonb_object_keys(paused) as destination from {instances}
            where not clean and seen_at > now() - interval '30 seconds'
         ), fresh as (
           select o.id, o.place from generate_series(0, {LANES} - 1) u(lane) cross join lateral (
             select {id} as id, row({order}) as place from {outbox} o where {pending} and {lane} = u.lane
                and not exists (select from {failures} f where {is_of})
                and not exists (select from {failures} f where {held})
                and not exists (select from paused p where p.destination = {destination})
              order by {order} limit $1) o
         ), due as (
           select {id} as id, row({order}) as place from {failures} f join {outbox} o on {is_of} and {pending}
            where f.state = 'retrying' and f.next_attempt_at <= clock_timestamp()
              and not exists (select from paused p where p.destination = f.destination)
              and not exists (select from {failures} b where b.holds and b.lane = f.lane and b.key = f.key
                              and b.destination = f.destination and b.id < f.id)
         ), next as materialized (
           select id, place from (select id, place from fresh union all select id, place from due) e order by place limit $1
         )
         select o.*, (extract(epoch from clock_timestamp()) * 1000000)::bigint from ({rows}) o",
        instances = table.names.instances(),
        lane = table.lane,
        rows = row::sized(&format!(
            "(select {} from next join {outbox} o on {id} = next.id order by next.place) o",
            row::columns(table)
        )),
    )
}
