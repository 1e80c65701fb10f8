//! K: the least code that claims under lane locks, publishes and settles. It keeps the order of keys with
//! any number of claims at once, and nothing else of the promise: any failure ends it.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use sqlx::{Connection, PgConnection, Postgres, Row, Transaction, postgres::PgRow};

use crate::{
    common::Failure,
    meter::{Figures, Meter},
    sink::{Outgoing, PUBLISHERS, Publishers},
    stage::{Mode, Scene},
};

const LANES: usize = 64;
/// As the relay's default.
const BATCH: i64 = 2_000;

const PINS: &str = "set local enable_bitmapscan = off; set local enable_seqscan = off;
    set local enable_sort = off; set local jit = off";

/// Lanes in turn, as many as one worker's share.
const LOCK: &str = "
    select l from unnest($1::bigint[]) l where pg_try_advisory_xact_lock(7, l::int) limit $2";

const READ: &str = "
    select o.* from unnest($1::bigint[], $2::bigint[]) u (l, f) cross join lateral (
        select id, event_id::text, aggregate_id, event_type, payload::text, headers::text, created_at, l
        from outbox
        where published_at is null and id > f
            and (hashtextextended(coalesce(aggregate_id, id::text), 0) & 63) = l
        order by id limit $3 for update skip locked) o limit $4";

/// What the workers share.
struct Kernel<'a> {
    publishers: Publishers,
    /// Below these nothing is pending: nobody writes here.
    floors: [AtomicI64; LANES],
    left: AtomicUsize,
    mode: Mode,
    scene: &'a Scene<'a>,
}

/// Empties the outbox.
pub async fn drain(scene: &Scene<'_>) -> Result<Figures, Failure> {
    let stage = scene.stage;
    let kernel = Kernel {
        publishers: stage.kind.open(stage.broker, &scene.name).await?,
        floors: [const { AtomicI64::new(0) }; LANES],
        left: AtomicUsize::new(stage.rows),
        mode: stage.mode,
        scene,
    };
    let meter = Meter::start(scene).await?;
    let workers = (0..PUBLISHERS).map(|number| kernel.work(number));
    futures_util::future::try_join_all(workers).await?;
    meter.stop().await
}

impl Kernel<'_> {
    async fn work(&self, number: usize) -> Result<(), Failure> {
        let mut connection = self.scene.connect().await?;
        let share = LANES / PUBLISHERS;
        let mut from = number * share;
        while self.left.load(Ordering::Relaxed) > 0 {
            let settled = self.claim(&mut connection, number, from, share).await?;
            self.left.fetch_sub(settled, Ordering::Relaxed);
            from = (from + share) % LANES;
        }
        Ok(())
    }

    /// One batch; gives how many events it settled.
    async fn claim(
        &self,
        connection: &mut PgConnection,
        number: usize,
        from: usize,
        share: usize,
    ) -> Result<usize, Failure> {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(PINS).execute(&mut *transaction).await?;
        let turn: Vec<i64> = (0..LANES)
            .map(|lane| ((from + lane) % LANES) as i64)
            .collect();
        let lanes: Vec<i64> = sqlx::query_scalar(LOCK)
            .bind(turn)
            .bind(share as i64)
            .fetch_all(&mut *transaction)
            .await?;
        let rows = self.read(&mut transaction, &lanes).await?;
        if !rows.is_empty() {
            let messages = rows.iter().map(|row| Outgoing {
                id: row.get(1),
                key: row.get(2),
                event_type: row.get(3),
                payload: row.get(4),
            });
            self.publishers.publish(number, messages).await?;
            self.settle(&mut transaction, &rows).await?;
        }
        transaction.commit().await?;
        for row in &rows {
            let lane = usize::try_from(row.get::<i64, _>(7))?;
            self.floors[lane].fetch_max(row.get(0), Ordering::Relaxed);
        }
        Ok(rows.len())
    }

    async fn read(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        lanes: &[i64],
    ) -> Result<Vec<PgRow>, Failure> {
        if lanes.is_empty() {
            return Ok(Vec::new());
        }
        let floors: Vec<i64> = lanes
            .iter()
            .map(|lane| Ok(self.floors[usize::try_from(*lane)?].load(Ordering::Relaxed)))
            .collect::<Result<_, Failure>>()?;
        let query = sqlx::query(READ).bind(lanes).bind(floors);
        let query = query.bind(BATCH / lanes.len() as i64).bind(BATCH);
        Ok(query.fetch_all(&mut **transaction).await?)
    }

    async fn settle(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        rows: &[PgRow],
    ) -> Result<(), Failure> {
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let sql = match self.mode {
            Mode::Mark => "update outbox set published_at = now() where id = any($1)",
            Mode::Delete => "delete from outbox where id = any($1)",
        };
        sqlx::query(sql)
            .bind(ids)
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }
}
