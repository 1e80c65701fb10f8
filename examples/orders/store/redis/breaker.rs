//! Asks Redis only while it answers: without this, each request would wait for the timeout.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::RedisResult;

/// How long a Redis that did not answer is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Open (nobody asks) for a moment after each failure.
#[derive(Default)]
pub struct Breaker(Mutex<Option<Instant>>);

impl Breaker {
    /// The answer, unless there is none.
    pub async fn ask<T>(&self, query: impl Future<Output = RedisResult<T>>) -> Option<T> {
        if !self.lets_through() {
            return None;
        }
        match query.await {
            Ok(answer) => {
                if self.until().take().is_some() {
                    tracing::info!("Redis answers again");
                }
                Some(answer)
            }
            Err(error) => {
                if self.until().replace(Instant::now() + PAUSE).is_none() {
                    tracing::warn!(%error, "Redis does not answer: PostgreSQL does alone");
                }
                None
            }
        }
    }

    /// Whether Redis is being left alone.
    pub fn is_open(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    /// After the pause one goes ahead and tries, while the others still keep off.
    fn lets_through(&self) -> bool {
        let mut until = self.until();
        match *until {
            Some(pause) if Instant::now() < pause => false,
            Some(_) => {
                *until = Some(Instant::now() + PAUSE);
                true
            }
            None => true,
        }
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use redis::{ErrorKind, RedisError};

    use super::*;

    #[tokio::test]
    async fn after_a_failure_nobody_asks_for_a_while() {
        let breaker = Breaker::default();
        assert_eq!(breaker.ask(async { Ok(1) }).await, Some(1));
        let failure = RedisError::from((ErrorKind::Io, "away"));
        assert_eq!(breaker.ask::<i32>(async { Err(failure) }).await, None);
        assert!(breaker.is_open());
        assert_eq!(breaker.ask(async { Ok(2) }).await, None);
    }

    #[tokio::test]
    async fn one_tries_again_after_the_pause() {
        let breaker = Breaker(Mutex::new(Some(Instant::now())));
        let (first, second) = (breaker.lets_through(), breaker.lets_through());
        assert_eq!((first, second), (true, false));
        *breaker.until() = Some(Instant::now());
        assert_eq!(breaker.ask(async { Ok(1) }).await, Some(1));
        assert!(!breaker.is_open());
    }
}
