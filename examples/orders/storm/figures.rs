//! What is counted afterwards, in the database and in the logs.

use std::{fs, path::Path, sync::Arc, time::Duration};

use sqlx::{FromRow, PgPool, Row, postgres::PgRow};

use super::{clients::Counts, crew::Kills};
use crate::Failure;

/// Counted before they are joined: events and payments of an order would multiply.
const ORDERS: &str = "
    select item, cents, coalesce(events, 0) as events, coalesce(payments, 0) as payments,
        coalesce(paid, 0) as paid
    from orders
    left join (select aggregate_id, count(*) as events from outbox group by 1) e
        on aggregate_id = 'order-' || id
    left join (select order_id, count(*) as payments, sum(cents)::bigint as paid from payments group by 1) p
        on order_id = id";

const EVENTS: &str = "select count(*) from outbox";

const UNASKED_PAYMENTS: &str =
    "select count(*) from payments where order_id not in (select id from orders)";

const PENDING: &str = "select count(*) from outbox where published_at is null";

/// How it went.
pub struct Figures {
    pub counts: Arc<Counts>,
    /// In the broker.
    pub messages: u64,
    /// By the inbox.
    pub skipped: usize,
    pub kills: Kills,
    pub took: Duration,
}

/// What the database says in the end.
pub struct Books {
    pub orders: Vec<PaidOrder>,
    /// Of whatever.
    pub events: i64,
    pub pending_events: i64,
    /// Of orders that are not there.
    pub unasked_payments: i64,
}

/// An order, and what followed from it.
#[derive(Clone)]
pub struct PaidOrder {
    pub item: String,
    pub cents: i64,
    pub events: i64,
    pub payments: i64,
    /// All payments together, in cents.
    pub paid: i64,
}

impl FromRow<'_, PgRow> for PaidOrder {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            item: row.try_get("item")?,
            cents: row.try_get("cents")?,
            events: row.try_get("events")?,
            payments: row.try_get("payments")?,
            paid: row.try_get("paid")?,
        })
    }
}

/// Reads it.
pub async fn books(pool: &PgPool) -> Result<Books, Failure> {
    Ok(Books {
        orders: sqlx::query_as(ORDERS).fetch_all(pool).await?,
        events: count(pool, EVENTS).await?,
        pending_events: pending(pool).await?,
        unasked_payments: count(pool, UNASKED_PAYMENTS).await?,
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
