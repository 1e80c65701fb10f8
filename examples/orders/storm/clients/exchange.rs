//! A request and its answer.

use std::{error::Error, io, net::SocketAddr, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Method, StatusCode, header},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use super::intent::{Answer, Request};
use crate::Failure;

/// Above what the service itself waits for its database.
const TIMEOUT: Duration = Duration::from_secs(10);
const BODY_LIMIT: usize = 64 * 1024;

/// What came back.
pub enum Heard {
    /// The connection was refused or broken off, or the client hung up.
    Nothing,
    InProgress,
    Unavailable,
    Final(Answer),
}

/// The way to the services.
pub struct Exchange {
    client: Client<HttpConnector, Body>,
    services: [SocketAddr; 2],
}

impl Exchange {
    pub fn new(services: [SocketAddr; 2]) -> Self {
        let client = Client::builder(TokioExecutor::new())
            // Whoever asks counts each request.
            .retry_canceled_requests(false)
            .build_http();
        Self { client, services }
    }

    /// Sends a request to one of the services, and perhaps hangs up before the answer is there: the
    /// connection is closed then.
    pub async fn ask(
        &self,
        service: usize,
        request: Request,
        hang_up: Option<Duration>,
    ) -> Result<Heard, Failure> {
        let request = axum::http::Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/orders", self.services[service]))
            .header("x-user", "ann")
            .header("idempotency-key", format!("\"{}\"", request.key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(request.body))?;
        let answer = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = to_bytes(Body::new(body), BODY_LIMIT).await?;
            let body = String::from_utf8(body.to_vec())?;
            Ok::<_, Failure>(heard(head.status, &head.headers, body))
        };
        match timeout(hang_up.unwrap_or(TIMEOUT), answer).await {
            Ok(Err(error)) if !is_of_a_dead_service(&*error) => Err(error),
            Ok(Ok(heard)) => Ok(heard),
            Ok(Err(_)) | Err(_) => Ok(Heard::Nothing),
        }
    }
}

/// Whether a connection was refused or broken off, as when a service is killed. Anything else is a fault
/// of the storm's own, or of the service's answers.
fn is_of_a_dead_service(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|cause| {
        let broken = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let closed = cause.downcast_ref::<hyper::Error>();
        matches!(
            broken,
            Some(
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::NotConnected
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::TimedOut
            )
        ) || closed.is_some_and(|error| {
            error.is_incomplete_message() || error.is_closed() || error.is_canceled()
        })
    })
}

fn heard(status: StatusCode, headers: &HeaderMap, body: String) -> Heard {
    let text = |name| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    match status {
        StatusCode::CONFLICT => Heard::InProgress,
        StatusCode::SERVICE_UNAVAILABLE => Heard::Unavailable,
        status => Heard::Final(Answer {
            status: status.as_u16(),
            location: text("location"),
            body,
            replayed: text("idempotency-replayed").is_some(),
        }),
    }
}
