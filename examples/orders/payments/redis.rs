//! Marks in Redis instead of an inbox: common, and weaker. Here to be compared, not to be copied.
//!
//! For effects outside the database of the inbox there may be nothing better. The order of operations:
//! look for the `done` mark, take the lock, look again (the holder before may have finished in
//! between), commit the effect, set `done`, give the lock back, acknowledge. Without Redis nothing goes
//! on: each step waits for it.
//!
//! The effect and the mark are in two places, so these repeat it:
//! * a crash between the commit of the effect and the `done` mark;
//! * a lock that expires while the effect is still under way: somebody else takes it then;
//! * a Redis that loses its memory (a restart without persistence, a failover to a replica that lags
//!   behind, eviction) while the broker delivers a message again.

use std::time::Duration;

use redis::aio::ConnectionManager;
use sqlx::PgPool;
use tokio::time::sleep;

use super::{FIRST_PAUSE, LONGEST_PAUSE, Placed, Settled, insert};
use crate::{Failure, redis_mark};

/// Nothing here is about speed: rather wait than take the lock for lost.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Which messages have had their effect, in Redis.
pub struct Marks {
    pool: PgPool,
    redis: ConnectionManager,
    consumer: String,
    lock_for: Duration,
    keep_for: Duration,
}

impl Marks {
    pub fn new(
        pool: PgPool,
        url: &str,
        consumer: &str,
        lock_for: Duration,
        keep_for: Duration,
    ) -> Result<Self, Failure> {
        Ok(Self {
            pool,
            redis: redis_mark::connect(url, TIMEOUT)?,
            consumer: consumer.to_owned(),
            lock_for,
            keep_for,
        })
    }

    /// Pays once, unless something goes wrong at a bad moment. After an error: to be tried again.
    pub async fn pay(&self, id: &str, placed: &Placed) -> Result<Settled, Failure> {
        let done = format!("{}:done:{id}", self.consumer);
        let lock = format!("{}:lock:{id}", self.consumer);
        if redis_mark::is_set(&self.redis, &done).await? {
            return Ok(Settled::Duplicate);
        }
        let holder = format!("{:x}", fastrand::u128(..));
        let there = redis_mark::set_first(&self.redis, &lock, &holder, self.lock_for).await;
        if there
            .as_ref()
            .is_ok_and(|there| there.as_ref() != Some(&holder))
        {
            return Err("another consumer has the lock".into());
        }
        let paid = match there {
            Ok(_) => self.pay_locked(&done, placed).await,
            // It may have been taken all the same.
            Err(error) => Err(error.into()),
        };
        let unlocked = redis_mark::remove(&self.redis, &lock, &holder).await;
        if let Err(error) = unlocked {
            tracing::warn!(%error, "could not give a lock back: it will expire");
        }
        paid
    }

    async fn pay_locked(&self, done: &str, placed: &Placed) -> Result<Settled, Failure> {
        if redis_mark::is_set(&self.redis, done).await? {
            return Ok(Settled::Duplicate);
        }
        let mut transaction = self.pool.begin().await?;
        insert(&mut transaction, placed).await?;
        transaction.commit().await?;
        // From here to the mark, a crash repeats the effect.
        self.mark_done(done).await;
        Ok(Settled::Paid)
    }

    /// Until it is there: to go back and try the whole again would repeat the effect.
    async fn mark_done(&self, done: &str) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = redis_mark::set(&self.redis, done, "1", self.keep_for).await {
            tracing::warn!(%error, "paid, but not marked as done yet, will try again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
