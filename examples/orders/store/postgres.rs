//! The functions of `outboxd migrate --with effects`.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{PgConnection, PgPool};

use super::{Outcome, Request, Response, Store, Token};

/// A transaction of its own: others must hear `in_progress` while the effect is still under way.
const BEGIN: &str = "
    select outcome, token::text, status, headers::text, convert_from(body, 'UTF8')
    from idempotency_begin($1, $2, $3, $4, $5)";

const COMPLETE: &str =
    "select idempotency_complete($1::text::uuid, $2, $3::text::jsonb, convert_to($4, 'UTF8'))";

const RELEASE: &str = "select idempotency_release($1::text::uuid)";

/// What [`COMPLETE`] raises when the key is held no longer.
const HELD_NO_LONGER: &str = "OX001";

/// Keys in PostgreSQL.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    /// After this time a request without a response is given up on.
    lock_for: Duration,
    /// For so long a response is given again.
    keep_for: Duration,
}

type Begun = (
    String,
    Option<Token>,
    Option<i32>,
    Option<String>,
    Option<String>,
);

impl PostgresStore {
    /// A store in the database of the effects.
    pub fn new(pool: PgPool, lock_for: Duration, keep_for: Duration) -> Self {
        Self {
            pool,
            lock_for,
            keep_for,
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn begin(&self, request: &Request) -> Result<Outcome, sqlx::Error> {
        let begun: Begun = sqlx::query_as(BEGIN)
            .bind(&request.scope)
            .bind(&request.key)
            .bind(&request.hash)
            .bind(self.lock_for)
            .bind(self.keep_for)
            .fetch_one(&self.pool)
            .await?;
        outcome(begun).map_err(sqlx::Error::Decode)
    }

    async fn remember(&self, _: &Request, _: &Response) {
        // It is stored already.
    }

    async fn release(&self, _: &Request, token: &Token) -> Result<(), sqlx::Error> {
        let released: bool = sqlx::query_scalar(RELEASE)
            .bind(token)
            .fetch_one(&self.pool)
            .await?;
        if !released {
            // Taken over; or the commit that seemed to fail did not, and the next one hears `replay`.
            tracing::info!(token, "the key was held no longer");
        }
        Ok(())
    }
}

fn outcome(begun: Begun) -> Result<Outcome, sqlx::error::BoxDynError> {
    Ok(match begun {
        (outcome, Some(token), ..) if outcome == "started" => Outcome::Started(token),
        (outcome, _, Some(status), Some(headers), Some(body)) if outcome == "replay" => {
            Outcome::Replay(Response {
                status: status.try_into()?,
                headers: serde_json::from_str(&headers)?,
                body,
            })
        }
        (outcome, ..) if outcome == "in_progress" => Outcome::InProgress,
        (outcome, ..) if outcome == "mismatch" => Outcome::Mismatch,
        (outcome, ..) => return Err(format!("idempotency_begin answers {outcome}").into()),
    })
}

/// Why a response could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum Incomplete {
    /// The lock ran out, and another request took the key over: this effect must not be.
    #[error("the key is held no longer")]
    HeldNoLonger,
    /// May be tried again.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Stores the response: the last statement in the transaction of the effect, since it locks the key.
pub async fn complete(
    transaction: &mut PgConnection,
    token: &Token,
    response: &Response,
) -> Result<(), Incomplete> {
    let headers = serde_json::to_string(&response.headers);
    let completed = sqlx::query(COMPLETE)
        .bind(token)
        .bind(i32::from(response.status))
        .bind(headers.map_err(|error| sqlx::Error::Encode(error.into()))?)
        .bind(&response.body)
        .execute(transaction)
        .await;
    match completed {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(HELD_NO_LONGER) => {
            Err(Incomplete::HeldNoLonger)
        }
        Err(error) => Err(error.into()),
    }
}
