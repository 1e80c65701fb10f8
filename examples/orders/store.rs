//! Where idempotency keys and responses are kept.
//!
//! PostgreSQL is the truth: only it says [`Outcome::Started`], and the response is stored in the
//! transaction of the effect ([`postgres::complete`]), so that there are both or neither. Redis may
//! stand in front of it and answer what it knows, faster.

mod postgres;
mod redis;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::{
    postgres::{Incomplete, PostgresStore, complete},
    redis::RedisStore,
};

/// How the keys of a service are kept.
#[async_trait]
pub trait Store: Send + Sync {
    /// Takes the request's key, or tells why not. After [`Outcome::Started`] the request must be
    /// completed or released.
    async fn begin(&self, request: &Request) -> Result<Outcome, sqlx::Error>;

    /// Told after the commit of the effect and its response: may help to answer faster next time.
    async fn remember(&self, request: &Request, response: &Response);

    /// Gives the key up after the effect was rolled back, so that the next request starts afresh.
    async fn release(&self, request: &Request, token: &Token) -> Result<(), sqlx::Error>;
}

/// Any of them.
pub type AnyStore = Arc<dyn Store>;

/// Proof that PostgreSQL gave the key to this request.
pub type Token = String;

/// What became of an attempt to take a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Go on.
    Started(Token),
    /// Another request holds the key.
    InProgress,
    /// It was answered before.
    Replay(Response),
    /// The key was used with another request.
    Mismatch,
}

/// A request with an idempotency key.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose keys these are: two users may choose the same one.
    pub scope: String,
    pub key: String,
    /// By this the same key with another request is told.
    pub hash: String,
    /// Tells this attempt from others at the same key.
    attempt: u128,
    began: Instant,
}

impl Request {
    /// An attempt that begins now.
    pub fn new(user: &str, key: String, method: &str, path: &str, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        // Neither of the first two can contain the separator.
        hash.update(format!("{method}\n{path}\n"));
        hash.update(body);
        Self {
            scope: format!("{user} {method} {path}"),
            key,
            hash: BASE64_STANDARD_NO_PAD.encode(hash.finalize()),
            attempt: fastrand::u128(..),
            began: Instant::now(),
        }
    }
}

/// A response that can be stored and given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    /// This service answers in JSON only.
    pub body: String,
}
