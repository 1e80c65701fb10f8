//! Marks in Redis instead of an inbox: common, and weaker. Here to be compared, not to be copied.
//!
//! For effects outside the database of the inbox there may be nothing better. The order of operations:
//! look for the `done` mark, take the lock, look again (the holder before may have finished in
//! between), commit the effect, set `done`, give the lock back, acknowledge. Without Redis nothing goes
//! on: each step waits for it.
//!
//! The effect and the mark are in two places, so these repeat it:
//! * a crash between the commit of the effect and the `done` mark; or a stop there while Redis is away,
//!   if the broker delivers the message again all the same;
//! * a lock that expires while the effect is still under way: somebody else takes it then;
//! * a Redis that loses its memory (a restart without persistence, a failover to a replica that lags
//!   behind, eviction) while the broker delivers a message again.

use std::time::Duration;

use redis::aio::ConnectionManager;
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Effect, FIRST_PAUSE, LONGEST_PAUSE, Placed, insert};
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
    stop: CancellationToken,
}

impl Marks {
    pub fn new(
        pool: PgPool,
        url: &str,
        consumer: &str,
        lock_for: Duration,
        keep_for: Duration,
        stop: CancellationToken,
    ) -> Result<Self, Failure> {
        Ok(Self {
            pool,
            redis: redis_mark::connect(url, TIMEOUT)?,
            consumer: consumer.to_owned(),
            lock_for,
            keep_for,
            stop,
        })
    }

    /// Pays once, unless something goes wrong at a bad moment. After an error: to be tried again.
    pub async fn pay(&self, id: &str, placed: &Placed) -> Result<Effect, Failure> {
        let done = format!("{}:done:{id}", self.consumer);
        let lock = format!("{}:lock:{id}", self.consumer);
        if redis_mark::is_set(&self.redis, &done).await? {
            return Ok(Effect::Duplicate);
        }
        let holder = format!("{:x}", fastrand::u128(..));
        let there = redis_mark::set_first(&self.redis, &lock, &holder, self.lock_for).await;
        let paid = match there {
            Ok(Some(there)) if there == holder => self.pay_locked(&done, placed).await,
            Ok(Some(_)) => return Err("another consumer has the lock".into()),
            Ok(None) => return Err("the lock, ours or another's, has just expired".into()),
            // It may have been taken all the same.
            Err(error) => Err(error.into()),
        };
        let unlocked = redis_mark::remove(&self.redis, &lock, &holder).await;
        if let Err(error) = unlocked {
            tracing::warn!(%error, "could not give a lock back: it will expire");
        }
        paid
    }

    async fn pay_locked(&self, done: &str, placed: &Placed) -> Result<Effect, Failure> {
        if redis_mark::is_set(&self.redis, done).await? {
            return Ok(Effect::Duplicate);
        }
        let mut transaction = self.pool.begin().await?;
        insert(&mut transaction, placed).await?;
        transaction.commit().await?;
        // From here to the mark, a crash repeats the effect.
        self.mark_done(done).await;
        Ok(Effect::Paid)
    }

    /// Until it is there or the consumer is told to stop: to go back and try the whole again would repeat
    /// the effect. Without the mark, the acknowledgement alone keeps the message from coming again.
    async fn mark_done(&self, done: &str) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = redis_mark::set(&self.redis, done, "1", self.keep_for).await {
            if self.stop.is_cancelled() {
                tracing::warn!(%error, done, "paid, but not marked as done: should it come again, it is paid again");
                return;
            }
            tracing::warn!(%error, "paid, but not marked as done yet, will try again");
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.stop.cancelled() => {}
            }
        }
    }
}
