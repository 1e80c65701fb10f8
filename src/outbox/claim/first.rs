//! The first rows, read in the round trip that locks their lanes. Under a light load they are all there
//! are, and the claim is complete: so an event waits for two round trips in all, this one and the
//! settlement's.
//!
//! # Design notes
//! * They are read by a statement of their own, after the one that locks: its snapshot is newer. It
//!   learns which lanes these are by a setting that ends with the transaction.
//! * Strangers' rows are found out by counting in the same statement, by the same snapshot. That
//!   accounts for a lane only if all of it was read: else [`super::strangers`] looks.
//! * Where failures turn out to matter, what was read here is left, and read again without what they
//!   exclude. After a claim with more in it than this, the next does without: it would be one lane's.

use sqlx::postgres::PgRow;

use super::{Claim, Want, read::EventBytes, scout::Scout};
use crate::outbox::{
    Outbox,
    error::DbError,
    row,
    table::{LANES, Table, get},
};

const ROWS: usize = 256;
const BYTES: usize = 256 << 10;
/// Names the lanes that were locked. (A setting of this form needs no declaration.)
const LANES_SETTING: &str = "outboxd.lanes";

/// How much to read at first.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl First {
    pub(super) fn of(want: &Want, known: &EventBytes) -> Self {
        let bytes = BYTES.min(want.bytes);
        Self {
            rows: ROWS.min(want.events).min(known.fitting(bytes)),
            bytes,
        }
    }

    /// Whether a claim was so small that the next should look for its like.
    pub(super) fn is_enough_for(self, claim: &Claim) -> bool {
        claim.events.len() < self.rows && claim.bytes < self.bytes
    }

    /// Notes the lanes of `taken`.
    pub(super) fn note_lanes() -> String {
        format!(
            "set_config('{LANES_SETTING}', (select string_agg(lane::text, ',') from taken), true)"
        )
    }
}

impl Scout<'_> {
    /// Rows as [`row::event`] wants them, and how many there are to be taken; one without an id where none
    /// was.
    pub(super) fn first_rows(&self) -> String {
        let rows = format!(
            "(select o.* from u cross join lateral (
               select {columns} from {pending} order by {order} limit {rows} for update of o skip locked) o limit {rows}) o",
            columns = row::columns(self.table),
            order = self.table.order_by(),
            pending = self.claimable(),
            rows = self.arguments.first_rows,
        );
        format!(
            "with u as materialized (
               select lane, ({floors})[lane + 1] as floor
                 from unnest(string_to_array(nullif(current_setting('{LANES_SETTING}', true), ''), ',')::bigint[]) lane
             ), read as materialized ({read}
             ), seen as (
               select count(*) as rows from u cross join lateral (select from {pending} limit {rows} + 1) o
             ) select read.*, seen.rows from seen left join read on true",
            floors = self.arguments.floors,
            read = row::sized_within(
                self.table,
                &rows,
                &self.arguments.first_bytes,
                &self.arguments.event_bytes
            ),
            pending = self.claimable(),
            rows = self.arguments.first_rows,
        )
    }
}

impl Outbox {
    /// Takes what was read at first into the claim.
    pub(super) fn take_first(
        &self,
        rows: &[&PgRow],
        table: &Table,
        want: &Want,
        claim: &mut Claim,
    ) -> Result<(), DbError> {
        const LANE: usize = 1;
        let Some(row) = rows.first().filter(|_| !claim.failures) else {
            return Ok(());
        };
        let seen: i64 = get(row, row::count(table))?;
        for row in rows {
            if get::<Option<i64>>(row, LANE)?.is_some() {
                claim.take(row, table, want)?;
            }
        }
        self.event_bytes
            .learn(claim.bytes, claim.events.len(), want.bytes);
        if claim.first.is_enough_for(claim) {
            for lane in &mut claim.lanes {
                lane.exhausted = true;
            }
            claim.no_strangers = seen == claim.events.len() as i64;
        }
        Ok(())
    }
}

impl Claim {
    /// Takes a row of a locked lane. Gives its lane.
    pub(super) fn take(
        &mut self,
        row: &PgRow,
        table: &Table,
        want: &Want,
    ) -> Result<usize, DbError> {
        let event = row::event(row, table, self.now_us, want.event_bytes)?;
        let number = usize::try_from(event.lane).unwrap_or_default() % LANES;
        if let Some(lane) = self.lane_mut(number) {
            lane.last = event.position;
            if table.is_ranked() {
                lane.rank = Some((row::rank(row)?, event.id.clone()));
            }
        }
        self.bytes += row::size(row, table)?;
        self.events.push(event);
        Ok(number)
    }
}
