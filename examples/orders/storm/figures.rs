//! What is counted afterwards, in the database and in the logs.

use std::{fs, path::Path, sync::Arc, time::Duration};

use sqlx::PgPool;

use super::{clients::Counts, crew::Kills, verdict::Books};
use crate::Failure;

/// Each order with the sum and the number of its payments.
const ORDERS: &str = "
    select o.item, o.cents, count(p.id), coalesce(sum(p.cents), 0)::bigint
    from orders o left join payments p on p.order_id = o.id
    group by o.id";

const UNASKED_PAYMENTS: &str =
    "select count(*) from payments where order_id not in (select id from orders)";

const PENDING: &str = "select count(*) from outbox where published_at is null";

/// How it went.
pub struct Figures {
    pub counts: Arc<Counts>,
    pub events: usize,
    /// In the broker.
    pub messages: u64,
    /// By the inbox.
    pub skipped: usize,
    pub kills: Kills,
    pub took: Duration,
}

/// What the database says in the end.
pub async fn books(pool: &PgPool) -> Result<Books, Failure> {
    Ok(Books {
        orders: sqlx::query_as(ORDERS).fetch_all(pool).await?,
        unasked_payments: count(pool, UNASKED_PAYMENTS).await?,
        pending_events: pending(pool).await?,
    })
}

/// Events that are not marked published.
pub async fn pending(pool: &PgPool) -> Result<i64, Failure> {
    count(pool, PENDING).await
}

pub async fn payments(pool: &PgPool) -> Result<i64, Failure> {
    count(pool, "select count(*) from payments").await
}

async fn count(pool: &PgPool, sql: &'static str) -> Result<i64, Failure> {
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}

/// Duplicates that the consumers said they skipped.
pub fn skipped(logs: &Path) -> Result<usize, Failure> {
    let mut skipped = 0;
    for entry in fs::read_dir(logs)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("payments"))
        {
            let log = fs::read_to_string(path)?;
            skipped += log.matches("\"event\":\"duplicate skipped\"").count();
        }
    }
    Ok(skipped)
}
