//! Rows that were skipped because a stranger holds them: nothing of their keys may pass them.

use std::collections::HashSet;

use super::{Claim, Lane, Want, array, exclusions, read::ranks, text_array};
use crate::{
    event::RowId,
    outbox::{
        Link, Outbox,
        error::DbError,
        session::statement,
        table::{LANES, Order, Table, get},
    },
};

impl Outbox {
    /// Withholds events behind rows that are pending, not excluded, and were not taken. (Also behind
    /// one that became visible since the rows were read: its key's events then wait for it.)
    pub(super) async fn withhold_behind_strangers(
        &self,
        link: &mut Link,
        want: &Want,
        claim: &mut Claim,
    ) -> Result<(), DbError> {
        let exclude = claim.failures || !want.paused.is_empty();
        let range = range_sql(claim, &link.table, exclude.then_some(&want.paused[..]));
        let counted = link
            .session
            .batch("claim", format!("select count(*) {range}"))
            .await?;
        let seen: i64 = counted.first().map_or(Ok(0), |row| get(row, 0))?;
        let fresh = claim.events.iter().filter(|event| event.attempts.is_none());
        let taken = fresh.count();
        if usize::try_from(seen).is_ok_and(|seen| seen == taken) {
            return Ok(());
        }
        let columns = format!(
            "u.lane, {}, {} as destination, {} as key, {} as number",
            link.table.id.readable(&link.table.id_column),
            link.table.destination,
            link.table.key,
            match &link.table.order {
                Order::Numbered(column) => format!("{column}::bigint"),
                Order::Ranked(_) => "0::bigint".into(),
            }
        );
        let sql = format!(
            "select {columns} {range} order by {}",
            link.table.order_by()
        );
        let rows = link.session.fetch("claim", statement(sql)).await?;
        let ids: HashSet<&RowId> = claim.events.iter().map(|event| &event.id).collect();
        let (mut stopped, mut behind) = (HashSet::new(), HashSet::new());
        let mut skipped = Vec::new();
        for row in &rows {
            let id = link.table.id.read(row, 1)?;
            let key: (Option<String>, Option<String>) = (get(row, 2)?, get(row, 3)?);
            let has_order = key.0.is_some() && key.1.is_some();
            if !ids.contains(&id) {
                skipped.push((get::<i64>(row, 0)?, get::<i64>(row, 4)?));
                if has_order {
                    stopped.insert(key);
                }
            } else if has_order && stopped.contains(&key) {
                behind.insert(id);
            }
        }
        for (number, position) in skipped {
            if let Some(lane) = claim.lane_mut(usize::try_from(number).unwrap_or_default() % LANES)
            {
                let first = lane.skipped.map_or(position, |first| first.min(position));
                lane.skipped = Some(first);
            }
        }
        claim.events.retain(|event| !behind.contains(&event.id));
        Ok(())
    }
}

/// The FROM of a plain read of exactly the ranges that the claim accounts for.
fn range_sql(claim: &Claim, table: &Table, paused: Option<&[String]>) -> String {
    let last = |lane: &Lane| lane.accounted(claim.horizon);
    let read: Vec<&Lane> = match table.order {
        Order::Numbered(_) => claim
            .lanes
            .iter()
            .filter(|lane| last(lane) > lane.mark.floor)
            .collect(),
        Order::Ranked(_) => claim
            .lanes
            .iter()
            .filter(|lane| lane.rank.is_some())
            .collect(),
    };
    let (reached, within) = match &table.order {
        Order::Numbered(column) => (
            array(read.iter().map(|lane| last(lane))),
            format!("{column} > u.floor and {column} <= u.last"),
        ),
        Order::Ranked(_) => {
            let (reached, last) = ranks(table, &read);
            (reached, format!("({}) <= ({last})", table.order_by()))
        }
    };
    format!(
        "from unnest({lanes}, {floors}, {reached}) u(lane, floor, last{ids})
           join {outbox} o on {pending} and {lane} = u.lane and {within}{excluded}",
        lanes = array(read.iter().map(|lane| lane.number as i64)),
        floors = array(read.iter().map(|lane| lane.mark.floor)),
        ids = if table.is_ranked() { ", last_id" } else { "" },
        outbox = table.names.outbox(),
        pending = table.pending,
        lane = table.lane,
        excluded = paused.map_or(String::new(), |paused| exclusions(
            table,
            &text_array(paused)
        )),
    )
}
