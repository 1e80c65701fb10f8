//! Rows that were skipped because a stranger holds them: nothing of their keys may pass them.

use std::collections::{HashMap, HashSet};

use super::{Claim, Lane, Want, array, exclusions, text_array};
use crate::outbox::{
    Link, Outbox,
    error::DbError,
    session::statement,
    table::{LANES, Table, get},
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
            .batch("claim", range.replace("{columns}", "count(*)"))
            .await?;
        let seen: i64 = counted.first().map_or(Ok(0), |row| get(row, 0))?;
        let taken = claim.events.len() - claim.attempts.len();
        if usize::try_from(seen).is_ok_and(|seen| seen == taken) {
            return Ok(());
        }
        let columns = format!(
            "u.lane, o.id, {} as destination, {} as key",
            link.table.destination,
            Table::KEY
        );
        let rows = link
            .session
            .fetch("claim", statement(range.replace("{columns}", &columns)))
            .await?;
        let ids: HashSet<i64> = claim.events.iter().map(|event| event.id).collect();
        let mut skipped: HashMap<(String, String), i64> = HashMap::new();
        for row in &rows {
            let (number, id): (i64, i64) = (get(row, 0)?, get(row, 1)?);
            if ids.contains(&id) {
                continue;
            }
            if let Some(lane) = claim.lane_mut(usize::try_from(number).unwrap_or_default() % LANES)
            {
                lane.skipped = Some(lane.skipped.map_or(id, |first| first.min(id)));
            }
            if let (Some(destination), Some(key)) = (get(row, 2)?, get(row, 3)?) {
                skipped
                    .entry((destination, key))
                    .and_modify(|first| *first = id.min(*first))
                    .or_insert(id);
            }
        }
        claim.events.retain(|event| {
            let Some((destination, key)) = event.ordering_key() else {
                return true;
            };
            skipped
                .get(&(destination.into(), key.into()))
                .is_none_or(|first| event.id < *first)
        });
        let left: HashSet<i64> = claim.events.iter().map(|event| event.id).collect();
        claim.attempts.retain(|id, _| left.contains(id));
        Ok(())
    }
}

/// A plain read of exactly the ranges that the claim accounts for; `{columns}` is left open.
fn range_sql(claim: &Claim, table: &Table, paused: Option<&[String]>) -> String {
    let last = |lane: &Lane| lane.accounted(claim.horizon);
    let read = || {
        claim
            .lanes
            .iter()
            .filter(|lane| last(lane) > lane.mark.floor)
    };
    format!(
        "select {{columns}} from unnest({lanes}, {floors}, {lasts}) u(lane, floor, last)
           join {outbox} o on {pending} and {lane} = u.lane and o.id > u.floor and o.id <= u.last{excluded}",
        lanes = array(read().map(|lane| lane.number as i64)),
        floors = array(read().map(|lane| lane.mark.floor)),
        lasts = array(read().map(last)),
        outbox = table.names.outbox(),
        pending = Table::PENDING,
        lane = Table::LANE,
        excluded = paused.map_or(String::new(), |paused| exclusions(table, &text_array(paused))),
    )
}
