//! The inbox: the message's id and its effect are committed together, so there are both or neither.

use std::time::Duration;

use sqlx::PgPool;

use super::{Effect, Placed, insert};

const ACCEPT: &str = "select inbox_accept($1, $2, $3)";

/// Which messages have had their effect, in the database of the effect.
pub struct Inbox {
    pub pool: PgPool,
    pub consumer: String,
    pub keep_for: Duration,
}

impl Inbox {
    /// Pays once.
    pub async fn pay(&self, id: &str, placed: &Placed) -> Result<Effect, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // Whoever has the same message at this moment waits here for the other's commit.
        let is_new: bool = sqlx::query_scalar(ACCEPT)
            .bind(&self.consumer)
            .bind(id)
            .bind(self.keep_for)
            .fetch_one(&mut *transaction)
            .await?;
        if !is_new {
            transaction.rollback().await?;
            return Ok(Effect::Duplicate);
        }
        insert(&mut transaction, placed).await?;
        transaction.commit().await?;
        Ok(Effect::Paid)
    }
}
