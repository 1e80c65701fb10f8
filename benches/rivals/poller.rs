//! A stand-in for the common kind of relay, which leases rows by one UPDATE and marks them by another.
//!
//! Modelled on go-outbox and open-outbox/relay: a status column with a partial index of what is pending,
//! `FOR UPDATE SKIP LOCKED` below an `UPDATE … RETURNING` which leases a batch, and a second UPDATE once
//! all of it is published. It is better off than they are: it publishes a batch at once and then awaits it
//! (open-outbox: one by one), with the Kafka client and settings of outboxd; and it has no retries, no
//! statistics, and no index for leases that expired.

use futures_util::future::try_join_all;
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgRow};

use crate::{
    common::Failure,
    sink::{Kind, Outgoing, Publishers},
    stage::Scene,
};

/// Its own columns and index in place of outboxd's.
const PREPARE: &str = "
    drop index outbox_pending;
    alter table outbox add status smallint not null default 0, add locked_by text, add locked_at timestamptz;
    create index on outbox (id) where status = 0";

const LEASE: &str = "
    with due as (
        select id from outbox where status = 0 order by id limit $1 for update skip locked)
    update outbox o set status = 1, locked_by = $2, locked_at = now() from due where o.id = due.id
    returning o.id, event_id::text, aggregate_id, event_type, payload::text";

const MARK: &str = "
    update outbox set status = 2, published_at = now(), locked_by = null, locked_at = null
    where id = any($1) and status = 1 and locked_by = $2";

/// The poller's program.
#[derive(clap::Args)]
pub struct Poll {
    database_url: String,
    brokers: String,
    topic: String,
    workers: usize,
    batch: i64,
}

/// Makes the outbox one of the poller's.
pub async fn prepare(scene: &Scene<'_>) -> Result<(), Failure> {
    let mut connection = scene.connect().await?;
    sqlx::raw_sql(PREPARE).execute(&mut connection).await?;
    connection.execute("vacuum analyze outbox").await?;
    connection.execute("checkpoint").await?;
    Ok(connection.close().await?)
}

impl Poll {
    /// Until no row is pending.
    pub async fn drain(&self) -> Result<(), Failure> {
        let publishers = Kind::Kafka.open(&self.brokers, &self.topic).await?;
        let workers = (0..self.workers).map(|number| self.work(number, &publishers));
        try_join_all(workers).await?;
        Ok(())
    }

    async fn work(&self, number: usize, publishers: &Publishers) -> Result<(), Failure> {
        let mut connection = PgConnection::connect(&self.database_url).await?;
        let name = format!("poller-{number}");
        loop {
            let mut rows = sqlx::query(LEASE)
                .bind(self.batch)
                .bind(&name)
                .fetch_all(&mut connection)
                .await?;
            if rows.is_empty() {
                return Ok(());
            }
            // RETURNING promises no order.
            rows.sort_unstable_by_key(id);
            let messages = rows.iter().map(|row| Outgoing {
                id: row.get(1),
                key: row.get(2),
                event_type: row.get(3),
                payload: row.get(4),
            });
            publishers.publish(number, messages).await?;
            let ids: Vec<i64> = rows.iter().map(id).collect();
            sqlx::query(MARK)
                .bind(ids)
                .bind(&name)
                .execute(&mut connection)
                .await?;
        }
    }
}

fn id(row: &PgRow) -> i64 {
    row.get(0)
}
