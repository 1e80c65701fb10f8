//! Redis in front of PostgreSQL: most repeated requests are answered without asking the database.
//!
//! Redis is only believed where being wrong does no harm: `Started` comes from PostgreSQL alone. A
//! Redis that is down, flushed or slow costs speed, never a duplicate and never an error.
//!
//! Under a key stands either a *mark* (somebody is at it) or a *response*. The order of operations:
//!
//! 1. Set a mark in Redis, then begin in PostgreSQL. The mark ends before PostgreSQL's lock does: it
//!    never keeps anyone off a key that may be taken over.
//! 2. Whoever is not told `Started` removes its own mark at once.
//! 3. Commit in PostgreSQL, then put the response in the mark's place. In between others hear 409,
//!    and come again. The response ends before PostgreSQL forgets the key, and says when: a Redis that
//!    was frozen may carry out a command long after its sender gave up on it.
//! 4. To release, remove the mark first, then release in PostgreSQL: a mark never outlives its holder's
//!    release. It is removed by comparison, as a successor's may stand there by then.
//!
//! A mark is set before PostgreSQL was asked, so it may be of a request that will be told `Mismatch`.
//! Hence only a response in Redis, never a mark, tells that two requests differ. A mark that nobody
//! could remove (its holder was killed, or Redis was away just then) means 409 until it expires, two
//! seconds at most. That it expires before a slow effect is done only means that PostgreSQL is asked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use redis::{RedisResult, aio::ConnectionManager};
use serde::{Deserialize, Serialize};

use super::{Outcome, PostgresStore, Request, Response, Store, Token};
use crate::redis_mark;

mod breaker;

use breaker::Breaker;

/// Longer than that, and PostgreSQL is as fast.
const TIMEOUT: Duration = Duration::from_millis(100);
/// How long a mark lasts, if the lock in PostgreSQL does not end sooner.
const MARK_FOR: Duration = Duration::from_secs(2);

/// What stands under a key.
#[derive(Serialize, Deserialize)]
enum Entry {
    Mark {
        hash: String,
        attempt: String,
    },
    Done {
        hash: String,
        response: Response,
        /// When PostgreSQL forgets it, in milliseconds since 1970.
        until: u128,
    },
}

/// Keys in PostgreSQL, with Redis in front.
pub struct RedisStore {
    redis: ConnectionManager,
    breaker: Breaker,
    postgres: PostgresStore,
    mark_for: Duration,
    keep_for: Duration,
}

impl RedisStore {
    /// Does not connect yet: Redis may be away.
    pub fn new(
        url: &str,
        postgres: PostgresStore,
        lock_for: Duration,
        keep_for: Duration,
    ) -> RedisResult<Self> {
        Ok(Self {
            redis: redis_mark::connect(url, TIMEOUT)?,
            breaker: Breaker::default(),
            postgres,
            mark_for: lock_for.min(MARK_FOR),
            keep_for,
        })
    }

    /// What Redis knows of the key. If it knows nothing it has this request's mark now, unless it is
    /// away.
    async fn ask(&self, request: &Request) -> Option<Outcome> {
        let mark = mark(request);
        let (redis, key) = (&self.redis, name(request));
        let set = redis_mark::set_first(redis, &key, &mark, self.mark_for);
        let there = self.breaker.ask(set).await??;
        if there == mark {
            return None;
        }
        match serde_json::from_str(&there) {
            Ok(entry) => answer(request, entry),
            Err(error) => {
                tracing::warn!(%error, "what Redis has under a key is not ours");
                None
            }
        }
    }

    /// A mark left behind means 409 to everybody until it expires.
    async fn remove_mark(&self, request: &Request) {
        let mark = mark(request);
        let removed = redis_mark::remove(&self.redis, &name(request), &mark).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "could not remove a mark from Redis: it will expire");
        }
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn begin(&self, request: &Request) -> Result<Outcome, sqlx::Error> {
        if let Some(outcome) = self.ask(request).await {
            return Ok(outcome);
        }
        let outcome = self.postgres.begin(request).await;
        // Not while Redis seems to be away: each request would wait for it. Few have set a mark by then.
        if !matches!(outcome, Ok(Outcome::Started(_))) && !self.breaker.is_open() {
            self.remove_mark(request).await;
        }
        outcome
    }

    async fn remember(&self, request: &Request, response: &Response) {
        // PostgreSQL counts from when it was asked, which was later than the request began.
        let ttl = self.keep_for.saturating_sub(request.began.elapsed());
        let entry = Entry::Done {
            hash: request.hash.clone(),
            response: response.clone(),
            until: now() + ttl.as_millis(),
        };
        let (key, entry) = (name(request), text(&entry));
        let set = redis_mark::set(&self.redis, &key, &entry, ttl);
        self.breaker.ask(set).await;
    }

    async fn release(&self, request: &Request, token: &Token) -> Result<(), sqlx::Error> {
        // Tried even if Redis seems to be away: a release is rare.
        self.remove_mark(request).await;
        self.postgres.release(request, token).await
    }
}

/// Neither part can contain the separator.
fn name(request: &Request) -> String {
    format!("idempotency:{}\n{}", request.scope, request.key)
}

fn mark(request: &Request) -> String {
    text(&Entry::Mark {
        hash: request.hash.clone(),
        attempt: format!("{:x}", request.attempt),
    })
}

fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis()
}

fn text(entry: &Entry) -> String {
    serde_json::json!(entry).to_string()
}

/// The answer, if Redis may give it.
fn answer(request: &Request, entry: Entry) -> Option<Outcome> {
    match entry {
        Entry::Mark { hash, .. } => (hash == request.hash).then_some(Outcome::InProgress),
        Entry::Done { until, .. } if until <= now() => None,
        Entry::Done { hash, response, .. } if hash == request.hash => {
            Some(Outcome::Replay(response))
        }
        Entry::Done { .. } => Some(Outcome::Mismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> Request {
        Request::new("ann", "1".into(), "POST", "/orders", body.as_bytes())
    }

    fn response() -> Response {
        Response {
            status: 201,
            headers: [("location".into(), "/orders/7".into())].into(),
            body: "{}".into(),
        }
    }

    fn read(text: &str) -> Entry {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_mark_says_in_progress_but_never_mismatch() {
        let there = mark(&request("a"));
        let same = answer(&request("a"), read(&there));
        assert_eq!(same, Some(Outcome::InProgress));
        assert_eq!(answer(&request("b"), read(&there)), None);
    }

    #[test]
    fn each_attempt_has_a_mark_of_its_own() {
        assert_ne!(mark(&request("a")), mark(&request("a")));
    }

    #[test]
    fn a_response_is_replayed_to_the_same_request_only() {
        let there = text(&Entry::Done {
            hash: request("a").hash,
            response: response(),
            until: now() + 60_000,
        });
        let same = answer(&request("a"), read(&there));
        assert_eq!(same, Some(Outcome::Replay(response())));
        let other = answer(&request("b"), read(&there));
        assert_eq!(other, Some(Outcome::Mismatch));
    }

    #[test]
    fn a_response_that_postgresql_has_forgotten_is_not_replayed() {
        let there = text(&Entry::Done {
            hash: request("a").hash,
            response: response(),
            until: now(),
        });
        for body in ["a", "b"] {
            assert_eq!(answer(&request(body), read(&there)), None);
        }
    }
}
