//! Takes orders over HTTP, each exactly once, as in draft-ietf-httpapi-idempotency-key-header: a client
//! that heard no answer repeats its request with the same Idempotency-Key.
//!
//! The order, its event in the outbox and the response to the request are committed in one transaction.
//! Whatever dies and whenever: there is all of it or nothing, and the next request is told which.

mod answer;
mod key;
mod order;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::HeaderMap,
    response::Response,
    routing::{get, post},
};
use clap::Args;
use sqlx::PgPool;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::task::TaskTracker;

use crate::{
    Failure, database, stop,
    store::{AnyStore, Incomplete, Outcome, PostgresStore, RedisStore, Request, Token},
};
use answer::Problem;
use order::Order;

const ORDERS: &str = "/orders";
const BODY_LIMIT: usize = 64 * 1024;
const CONNECTIONS: u32 = 10;
/// After SIGTERM, for clients to end their requests.
const GRACE: Duration = Duration::from_secs(10);

/// Take orders over HTTP
#[derive(Args)]
pub struct ServiceArgs {
    /// A database with the tables of `outboxd migrate --with effects`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,

    /// A Redis that may answer repeated requests in front of PostgreSQL, one for each database
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,

    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Where the events go: a Kafka topic or a RabbitMQ queue
    #[arg(long, default_value = "orders")]
    topic: String,

    /// How long a key is remembered
    #[arg(long, default_value = "24h", value_parser = database::interval)]
    keep_for: Duration,

    /// How long a request may take: after that, its key may be taken over
    #[arg(long, default_value = "30s", value_parser = database::interval)]
    lock_for: Duration,
}

impl ServiceArgs {
    /// Serves until told to stop.
    pub async fn run(self) -> Result<(), Failure> {
        if self.keep_for < self.lock_for {
            return Err("--keep-for must not be below --lock-for".into());
        }
        let stop = stop::on_signal()?;
        let pool = database::open(&self.database_url, CONNECTIONS, self.lock_for).await?;
        database::require(&pool, "idempotency_begin").await?;
        order::migrate(&pool).await?;
        let service = Arc::new(Service {
            store: self.store(&pool)?,
            pool,
            topic: self.topic,
            begun: TaskTracker::new(),
        });
        let listener = TcpListener::bind(self.listen).await?;
        tracing::info!(listen = %self.listen, "serving");
        let serving = axum::serve(listener, Arc::clone(&service).routes())
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::select! {
            served = serving => served?,
            // A client that never ends its request must not keep the service from ending.
            () = async { stop.cancelled().await; sleep(GRACE).await } => {}
        }
        // axum waits for its clients only. Those that went away left requests behind.
        service.begun.close();
        service.begun.wait().await;
        Ok(())
    }

    fn store(&self, pool: &PgPool) -> Result<AnyStore, Failure> {
        let (lock_for, keep_for) = (self.lock_for, self.keep_for);
        let postgres = PostgresStore::new(pool.clone(), lock_for, keep_for);
        Ok(match &self.redis_url {
            None => Arc::new(postgres),
            Some(url) => Arc::new(RedisStore::new(url, postgres, lock_for, keep_for)?),
        })
    }
}

struct Service {
    pool: PgPool,
    store: AnyStore,
    topic: String,
    /// Requests that are to be finished, whether or not their clients wait.
    begun: TaskTracker,
}

impl Service {
    fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route(ORDERS, post(place_order))
            .route("/healthz", get(|| async { "ok\n" }))
            .fallback(|| async { Problem::NotFound.response() })
            .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed.response() })
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(self)
    }

    /// Everything from taking the key to the answer.
    async fn answer(&self, request: Request, order: Order) -> Result<Response, Problem> {
        match self.store.begin(&request).await? {
            Outcome::Started(token) => self.effect(&request, &token, &order).await,
            Outcome::InProgress => Err(Problem::InProgress),
            Outcome::Replay(response) => answer::replayed(response),
            Outcome::Mismatch => Err(Problem::KeyReused),
        }
    }

    /// The order itself. A refusal for a reason of the trade ("sold out") would be a response like any
    /// other, stored by `complete`; only what may be tried again releases the key.
    async fn effect(
        &self,
        request: &Request,
        token: &Token,
        order: &Order,
    ) -> Result<Response, Problem> {
        match order.place(&self.pool, &self.topic, token).await {
            Ok(response) => {
                self.store.remember(request, &response).await;
                answer::first(response)
            }
            Err(incomplete) => {
                // The transaction is rolled back: it was dropped. Should it be committed all the same, its
                // key is completed, which `release` leaves alone.
                if let Err(error) = self.store.release(request, token).await {
                    tracing::warn!(%error, "a key stays taken until its lock runs out");
                }
                Err(match incomplete {
                    Incomplete::HeldNoLonger => Problem::InProgress,
                    Incomplete::Database(error) => error.into(),
                })
            }
        }
    }
}

async fn place_order(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answered = match read(&headers, body) {
        // In a task of its own: a client that goes away ends its handler, and would leave the key
        // taken, with nobody to complete or release it.
        Ok((request, order)) => {
            let begun = service.begun.clone();
            let answer = async move { service.answer(request, order).await };
            begun.spawn(answer).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a request failed");
                Err(Problem::Internal)
            })
        }
        Err(problem) => Err(problem),
    };
    answered.unwrap_or_else(|problem| problem.response())
}

/// What the client wants, before any key is taken: a request that is wrong in itself costs none.
fn read(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(Request, Order), Problem> {
    let user = user(headers)?;
    let key = key::from_headers(headers)?;
    let body = body.map_err(|error| Problem::Body(error.status(), error.body_text()))?;
    let order = Order::parse(user, &body)?;
    Ok((Request::new(user, key, "POST", ORDERS, &body), order))
}

/// Who asks. A gateway would set this header after it has authenticated the user, and drop what the
/// client itself sent under that name.
fn user(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut users = headers.get_all("x-user").iter();
    match (users.next(), users.next()) {
        (Some(user), None) if !user.is_empty() && user.len() <= 255 => {
            user.to_str().map_err(|_| Problem::Unauthenticated)
        }
        _ => Err(Problem::Unauthenticated),
    }
}
