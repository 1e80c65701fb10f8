//! What is at work on an outbox: relays, lanes, and where events fail.

use std::collections::BTreeMap;

use super::{
    DbError, Link, Outbox,
    session::statement,
    table::{LANES, get},
};

/// A relay counts as alive for so long after its last sign of life.
pub(super) const LIVE_FOR: &str = "interval '30 seconds'";

/// What is at work on an outbox.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    /// The relays that are or were.
    pub relays: Vec<RelayRow>,
    /// Failed events by destination and state.
    pub failures: Vec<FailureCount>,
    /// Lanes with pending events.
    pub lanes_pending: i64,
    /// Lanes that some relay is publishing from at this moment.
    pub lanes_claimed: i64,
}

/// A relay's row.
#[derive(Debug, Clone)]
pub struct RelayRow {
    /// Its name.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// The order it keeps.
    pub ordering: String,
    /// Seconds since its last sign of life.
    pub seen_seconds: f64,
    /// Whether it was shut down in order.
    pub clean: bool,
    /// Whether it gave a sign of life lately and was not shut down since.
    pub live: bool,
    /// Destinations it does not publish to at the moment, and why.
    pub paused: BTreeMap<String, String>,
}

/// How many events of a destination failed.
#[derive(Debug, Clone)]
pub struct FailureCount {
    /// The destination.
    pub destination: String,
    /// `retrying`, `dead` or `discarded`.
    pub state: String,
    /// Events.
    pub events: i64,
}

impl Overview {
    /// Destinations that some live relay has paused, and why.
    pub fn paused(&self) -> BTreeMap<&str, &str> {
        let live = self.relays.iter().filter(|relay| relay.live);
        live.flat_map(|relay| &relay.paused)
            .map(|(destination, why)| (destination.as_str(), why.as_str()))
            .collect()
    }
}

impl Outbox {
    /// Looks at relays, lanes and failures.
    pub async fn overview(&self, link: &mut Link) -> Result<Overview, DbError> {
        link.session.begin_reading(&self.timeouts).await?;
        let mut overview = Overview::default();
        let sql = format!(
            "select instance, version, ordering, extract(epoch from clock_timestamp() - seen_at)::float8, clean,
                    not clean and seen_at > now() - {LIVE_FOR}, paused::text
               from {} order by instance",
            self.names.instances()
        );
        for row in &link.session.fetch("status", statement(sql)).await? {
            overview.relays.push(RelayRow {
                instance: get(row, 0)?,
                version: get(row, 1)?,
                ordering: get(row, 2)?,
                seen_seconds: get::<f64>(row, 3)?.max(0.0),
                clean: get(row, 4)?,
                live: get(row, 5)?,
                paused: serde_json::from_str(get(row, 6)?).unwrap_or_default(),
            });
        }
        let sql = format!(
            "select destination, state, count(*) from {} group by destination, state order by destination, state",
            self.names.failures()
        );
        for row in &link.session.fetch("status", statement(sql)).await? {
            overview.failures.push(FailureCount {
                destination: get(row, 0)?,
                state: get(row, 1)?,
                events: get(row, 2)?,
            });
        }
        (overview.lanes_pending, overview.lanes_claimed) = self.lanes(link).await?;
        link.session.commit().await?;
        Ok(overview)
    }

    async fn lanes(&self, link: &mut Link) -> Result<(i64, i64), DbError> {
        let pins = "set local enable_seqscan = off; set local enable_bitmapscan = off";
        link.session.batch("status", pins.into()).await?;
        let sql = format!(
            "select (select count(*) from generate_series(0, {LANES} - 1) u(lane)
                      where exists (select from {} o where {} and {} = u.lane)),
                    (select count(*) from pg_locks where locktype = 'advisory' and granted and objsubid = 2
                        and classid = {} and objid < {LANES}
                        and database = (select oid from pg_database where datname = current_database()))",
            self.names.outbox(),
            link.table.pending,
            link.table.lane,
            link.table.found.oid,
        );
        let row = link.session.fetch_one("status", statement(sql)).await?;
        Ok((get(&row, 0)?, get(&row, 1)?))
    }
}
