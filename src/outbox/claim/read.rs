//! Later round trips of a claim: failures and rows of the lanes that are locked now.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{Claim, Lane, Want, array, exclusions, holding_sql, text_array};
use crate::{
    outbox::{
        Link, Outbox,
        error::DbError,
        row,
        session::statement,
        table::{LANES, Order, Table, get},
    },
    template::quote_literal,
};

impl Outbox {
    /// The set of holding failures of each lane, read under its lock. Where it is not the one that
    /// the floor rests on, held rows may be free: the lane is read from further below. There may be
    /// dead and discarded events there, of which nobody asked yet.
    pub(super) async fn read_holding(
        &self,
        link: &mut Link,
        claim: &mut Claim,
    ) -> Result<(), DbError> {
        if claim.failures {
            let holding = holding_sql(&link.table);
            let sql = format!("select u.lane, {holding} from unnest($1::bigint[]) u(lane)");
            let numbers: Vec<i64> = claim.lanes.iter().map(|lane| lane.number as i64).collect();
            for row in &link
                .session
                .fetch("claim", statement(sql).bind(numbers))
                .await?
            {
                let number: i64 = get(row, 0)?;
                if let Some(lane) = claim.lane_mut(usize::try_from(number).unwrap_or_default()) {
                    lane.holding = get(row, 1)?;
                }
            }
        }
        for lane in &mut claim.lanes {
            if lane.holding != lane.mark.holding {
                lane.mark = self
                    .floors()
                    .fall_to_firm(lane.number, lane.mark, lane.holding);
                lane.last = lane.mark.floor;
                lane.rank = None;
                claim.failures = true;
            }
        }
        Ok(())
    }

    /// Due retries, by primary key: the first of each key, if nothing older holds it. A failure whose
    /// row is gone (deleted, published by hand, another event under a reused id) is dropped.
    pub(super) async fn read_retries(
        &self,
        link: &mut Link,
        want: &Want,
        claim: &mut Claim,
    ) -> Result<(), DbError> {
        let table = &link.table;
        let (outbox, failures) = (table.names.outbox(), table.names.failures());
        let lanes: Vec<i64> = claim.lanes.iter().map(|lane| lane.number as i64).collect();
        let sql = format!(
            "select {id}, f.attempts,
                    exists (select from {outbox} o where {is_of} and {pending})
               from {failures} f
              where f.lane = any($1) and f.state = 'retrying' and f.next_attempt_at <= clock_timestamp()
                and not f.destination = any($2)
                and not exists (select from {failures} b where b.holds and b.lane = f.lane
                                   and hashtextextended(b.key, 0) = hashtextextended(f.key, 0) and b.key = f.key
                                   and b.destination = f.destination and b.id < f.id)
              order by f.next_attempt_at limit $3",
            id = table.id.readable("f.id"),
            is_of = table.is_of_failure(),
            pending = table.pending,
        );
        let query = statement(sql)
            .bind(lanes)
            .bind(&want.paused)
            .bind(want.events as i64);
        let (mut attempts, mut orphans) = (HashMap::new(), Vec::new());
        for row in &link.session.fetch("claim", query).await? {
            let id = table.id.read(row, 0)?;
            if get(row, 2)? {
                attempts.insert(id, get::<i32>(row, 1)?.unsigned_abs());
            } else {
                orphans.push(id);
            }
        }
        if !orphans.is_empty() {
            let orphans = table.id.array(orphans.iter());
            let sql =
                format!("delete from {failures} where id = any({orphans}) and state = 'retrying'");
            link.session.execute("claim", statement(sql)).await?;
        }
        if attempts.is_empty() {
            return Ok(());
        }
        let due = format!(
            "(select {columns} from {outbox} o where {id} = any({ids}) and {pending} order by {order} for update of o skip locked) o",
            columns = row::columns(table),
            id = table.id_column,
            ids = table.id.array(attempts.keys()),
            pending = table.pending,
            order = table.order_by(),
        );
        let sql = row::sized_within(table, &due, "$1", &want.event_bytes.to_string());
        let query = statement(sql).bind(want.bytes as i64);
        for row in &link.session.fetch("claim", query).await? {
            let mut event = row::event(row, table, claim.now_us, want.event_bytes)?;
            event.attempts = attempts.get(&event.id).copied();
            claim.events.push(event);
        }
        Ok(())
    }

    /// Pending rows of the locked lanes, side by side; lanes that have more are read again for what
    /// is left of the batch, so that one hot lane fills it.
    pub(super) async fn read_rows(
        &self,
        link: &mut Link,
        want: &Want,
        claim: &mut Claim,
    ) -> Result<(), DbError> {
        let excluded = if claim.failures || !want.paused.is_empty() {
            exclusions(&link.table, &text_array(&want.paused))
        } else {
            String::new()
        };
        let most = want.events.min(self.event_bytes.fitting(want.bytes));
        loop {
            let room = most.saturating_sub(claim.events.len());
            let bytes = want.bytes.saturating_sub(claim.bytes);
            let mut open: Vec<usize> = (0..claim.lanes.len())
                .filter(|&i| !claim.lanes[i].exhausted)
                .collect();
            if room == 0 || bytes == 0 || open.is_empty() {
                return Ok(());
            }
            open.truncate(room);
            let limit = room / open.len();
            let lanes: Vec<&Lane> = open.iter().map(|&i| &claim.lanes[i]).collect();
            let rows = rows_sql(&link.table, &lanes, limit, &excluded);
            let (bytes_sql, most_sql) = (bytes.to_string(), want.event_bytes.to_string());
            let sql = row::sized_within(&link.table, &rows, &bytes_sql, &most_sql);
            let rows = link.read("claim", sql).await?;
            let before = claim.bytes;
            let mut counts = [0_usize; LANES];
            for row in &rows {
                counts[claim.take(row, &link.table, want)?] += 1;
            }
            let read = claim.bytes - before;
            self.event_bytes.learn(read, rows.len(), want.bytes);
            if read >= bytes {
                return Ok(());
            }
            for i in open {
                claim.lanes[i].exhausted = counts[claim.lanes[i].number] < limit;
            }
        }
    }
}

/// What an event of late took, in bytes. Rows beyond the byte budget are read for nothing, and with
/// large payloads that is most of what PostgreSQL would do: no more are asked for than will fit.
#[derive(Debug)]
pub(in crate::outbox) struct EventBytes(AtomicUsize);

impl EventBytes {
    /// Large, before anything is known.
    pub(in crate::outbox) fn new() -> Self {
        Self(AtomicUsize::new(8 << 10))
    }

    /// Events that fit into so many bytes, and a quarter more.
    pub(super) fn fitting(&self, bytes: usize) -> usize {
        let each = self.0.load(Relaxed).max(1);
        (bytes.saturating_add(bytes / 4) / each).max(1)
    }

    /// Rises at once, but a giant or two do not count for much, and falls by halves.
    pub(super) fn learn(&self, bytes: usize, events: usize, budget: usize) {
        if let Some(each) = bytes.checked_div(events) {
            let each = each.max(self.0.load(Relaxed) / 2);
            self.0.store(each.min(budget / 8), Relaxed);
        }
    }
}

/// The next rows of these lanes, up to so many each.
fn rows_sql(table: &Table, lanes: &[&Lane], limit: usize, excluded: &str) -> String {
    let (from, above) = match &table.order {
        Order::Numbered(_) => {
            let last = array(lanes.iter().map(|lane| lane.last));
            (format!("{last}) u(lane, floor)"), table.above_floor())
        }
        Order::Ranked(_) => {
            let (reached, last) = ranks(table, lanes);
            let above = format!("({}) > ({last})", table.order_by());
            // An index leads there only if every lane has such a place.
            let above = match lanes.iter().filter(|lane| lane.rank.is_some()).count() {
                0 => String::new(),
                places if places == lanes.len() => format!(" and {above}"),
                _ => format!(" and (u.last_id is null or {above})"),
            };
            (format!("{reached}) u(lane, last, last_id)"), above)
        }
    };
    format!(
        "unnest({numbers}, {from} {locking} cross join lateral (
           select {columns} from {outbox} o
            where {pending} and {lane} = u.lane{above}{excluded}
            order by {order} limit {limit} for update of o skip locked) o",
        numbers = array(lanes.iter().map(|lane| lane.number as i64)),
        // Slowly, so that something is committed meanwhile.
        locking = defect!(LockWhileReading: format!(
            "join (select) s on (select pg_sleep(0.01)) is not null and pg_try_advisory_xact_lock({})",
            table.lock_sql("lane::int")
        ), else String::new()),
        columns = row::columns(table),
        outbox = table.names.outbox(),
        pending = table.pending,
        lane = table.lane,
        order = table.order_by(),
    )
}

/// The last ranked row read of each lane, as the arrays `last` and `last_id`, and what they make of
/// `u.last` and `u.last_id`: something to compare rows with.
pub(super) fn ranks(table: &Table, lanes: &[&Lane]) -> (String, String) {
    let text = |text: Option<String>| text.map_or("null".into(), |text| quote_literal(&text));
    let of = |lane: &Lane| match &lane.rank {
        Some((rank, id)) => (text(rank.clone()), text(Some(id.to_string()))),
        None => (text(None), text(None)),
    };
    let (ranks, ids): (Vec<_>, Vec<_>) = lanes.iter().map(|lane| of(lane)).unzip();
    let types: Vec<&str> = match &table.order {
        Order::Ranked(columns) => columns.iter().map(|(_, it)| it.as_str()).collect(),
        Order::Numbered(_) => Vec::new(),
    };
    let last = match types[..] {
        [rank, id] => format!("u.last::{rank}, u.last_id::{id}"),
        _ => format!("u.last_id::{}", types.first().unwrap_or(&"text")),
    };
    let arrays = format!(
        "array[{}]::text[], array[{}]::text[]",
        ranks.join(","),
        ids.join(",")
    );
    (arrays, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_events_are_asked_for_than_will_fit() {
        let known = EventBytes::new();
        let budget = 4 << 20;
        assert_eq!(known.fitting(budget), 640);
        for _ in 0..10 {
            known.learn(2_000 << 10, 2_000, budget);
        }
        assert_eq!(known.fitting(budget), 5_120);
        known.learn(40 * (100 << 10), 40, budget);
        assert_eq!(known.fitting(budget), 51);
        known.learn(0, 0, budget);
        assert_eq!(known.fitting(budget), 51);
        assert_eq!(known.fitting(1), 1);
        known.learn(1 << 30, 1, budget);
        assert_eq!(known.fitting(budget), 10);
    }
}
