//! What would be published next, without taking anything.

use super::{
    DbError, Link, Outbox, row,
    session::statement,
    table::{LANES, Table, get},
};
use crate::event::Event;

impl Outbox {
    /// The next events in id order: due retries, and pending events that nothing holds. Nothing is
    /// locked or changed. Destinations that a live relay has paused are left out, as they are there.
    pub async fn peek(&self, link: &mut Link, limit: i64) -> Result<Vec<Event>, DbError> {
        let sql = sql(&link.table);
        link.session.begin_reading(&self.timeouts).await?;
        let pins = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local jit = off";
        link.session.batch("peek", pins.into()).await?;
        let query = statement(sql).bind(limit);
        let rows = link.session.fetch("peek", query).await?;
        link.session.commit().await?;
        let now_column = row::COLUMNS;
        rows.iter()
            .map(|row| row::event(row, &link.table, get(row, now_column)?, usize::MAX))
            .collect()
    }
}

fn sql(table: &Table) -> String {
    let (outbox, failures) = (table.names.outbox(), table.names.failures());
    let (pending, event_id) = (Table::PENDING, Table::EVENT_ID);
    let (held, destination) = (table.held_sql(), &table.destination);
    format!(
        "with paused as materialized (
           select distinct jsonb_object_keys(paused) as destination from {instances}
            where not clean and seen_at > now() - interval '30 seconds'
         ), fresh as (
           select o.id from generate_series(0, {LANES} - 1) u(lane) cross join lateral (
             select o.id from {outbox} o where {pending} and {lane} = u.lane
                and not exists (select from {failures} f where f.id = o.id and f.event_id = {event_id})
                and not exists (select from {failures} f where {held})
                and not exists (select from paused p where p.destination = {destination})
              order by o.id limit $1) o
         ), due as (
           select o.id from {failures} f join {outbox} o on o.id = f.id and {event_id} = f.event_id and {pending}
            where f.state = 'retrying' and f.next_attempt_at <= clock_timestamp()
              and not exists (select from paused p where p.destination = f.destination)
              and not exists (select from {failures} b where b.holds and b.lane = f.lane and b.key = f.key
                              and b.destination = f.destination and b.id < f.id)
         ), next as materialized (
           select id from (select id from fresh union select id from due) e order by id limit $1
         )
         select o.*, (extract(epoch from clock_timestamp()) * 1000000)::bigint from ({rows}) o order by o.id",
        instances = table.names.instances(),
        lane = Table::LANE,
        rows = row::sized(&format!(
            "(select {} from next join {outbox} o on o.id = next.id) o",
            row::columns(table)
        )),
    )
}
