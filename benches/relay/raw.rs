//! The parts, each for itself: reading, publishing, settling.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use sqlx::{AssertSqlSafe, Row};
use tokio::task::JoinSet;

use crate::{
    common::Failure,
    meter::{Figures, Meter},
    sink::{Outgoing, PUBLISHERS},
    stage::{Mode, Scene, payloads},
};

const PAGE: i64 = 5_000;
/// As the relay's defaults.
const BATCH: usize = 2_000;
const BATCH_BYTES: usize = 4 << 20;
/// As long as every event's.
pub const ID: &str = "7b6f5b0e-6f3c-4c55-8f0e-3d3f0c6f2a10";

/// R: each row once, by its key.
pub async fn read(scene: &Scene<'_>) -> Result<Figures, Failure> {
    let sql = "select id, event_id::text, aggregate_id, event_type, payload::text, headers::text, created_at
                 from outbox where id > $1 order by id limit $2";
    let mut connection = scene.connect().await?;
    let meter = Meter::start(scene).await?;
    let mut last = 0_i64;
    loop {
        let rows = sqlx::query(sql)
            .bind(last)
            .bind(PAGE)
            .fetch_all(&mut connection)
            .await?;
        match rows.last() {
            Some(row) => last = row.get(0),
            None => return meter.stop().await,
        }
    }
}

/// A: each row once, in ranges, on as many connections as the relay has.
pub async fn settle(scene: &Scene<'_>) -> Result<Figures, Failure> {
    let sql = match scene.stage.mode {
        Mode::Mark => "update outbox set published_at = now() where id > $1 and id <= $2",
        Mode::Delete => "delete from outbox where id > $1 and id <= $2",
    };
    let rows = i64::try_from(scene.stage.rows)?;
    let next = Arc::new(AtomicI64::new(0));
    let mut connections = Vec::new();
    for _ in 0..PUBLISHERS {
        connections.push(scene.connect().await?);
    }
    let meter = Meter::start(scene).await?;
    let mut settling = JoinSet::new();
    for mut connection in connections {
        let next = Arc::clone(&next);
        settling.spawn(async move {
            loop {
                let from = next.fetch_add(PAGE, Ordering::Relaxed);
                if from >= rows {
                    return Ok::<_, sqlx::Error>(());
                }
                let query = sqlx::query(AssertSqlSafe(sql)).bind(from);
                query.bind(from + PAGE).execute(&mut connection).await?;
            }
        });
    }
    for settled in settling.join_all().await {
        settled?;
    }
    meter.stop().await
}

/// P: messages like the events', from memory.
pub async fn publish(scene: &Scene<'_>) -> Result<Figures, Failure> {
    let stage = scene.stage;
    let publishers = stage.kind.open(stage.broker, &scene.name).await?;
    let payloads = payloads(stage.payload_bytes);
    let keys: Vec<String> = (0..1000).map(|n| format!("order-{n}")).collect();
    let each = stage.rows / PUBLISHERS;
    let batch = (BATCH_BYTES / stage.payload_bytes).clamp(1, BATCH);
    let meter = Meter::start(scene).await?;
    let batches = (0..PUBLISHERS).map(async |number| {
        for from in (0..each).step_by(batch) {
            let count = (each - from).min(batch);
            let messages = (from..from + count).map(|n| Outgoing {
                id: ID,
                key: &keys[n % 1000],
                event_type: "OrderPlaced",
                payload: &payloads[n % payloads.len()],
            });
            publishers.publish(number, messages).await?;
        }
        Ok::<_, Failure>(())
    });
    futures_util::future::try_join_all(batches).await?;
    meter.stop().await
}
