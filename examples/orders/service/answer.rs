//! Answers: responses, new or stored, and problems (RFC 9457).

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::store;

const REPLAYED: &str = "idempotency-replayed";

/// A response that was made just now.
pub fn first(stored: store::Response) -> Result<Response, Problem> {
    let mut response = Response::builder().status(stored.status);
    for (name, value) in stored.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(stored.body)).map_err(|error| {
        tracing::error!(%error, "a stored response is none");
        Problem::Internal
    })
}

/// A response that was made before.
pub fn replayed(stored: store::Response) -> Result<Response, Problem> {
    let mut response = first(stored)?;
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Why there is no response. None of these is stored.
#[derive(Debug)]
pub enum Problem {
    Unauthenticated,
    KeyMissing,
    KeyMalformed(&'static str),
    InProgress,
    KeyReused,
    /// Of the body itself.
    Body(StatusCode, String),
    NotFound,
    MethodNotAllowed,
    Unavailable,
    Internal,
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "the database failed; the client is told to come again");
        Self::Unavailable
    }
}

impl Problem {
    /// As application/problem+json.
    pub fn response(&self) -> Response {
        let ((status, kind, title), detail) = (self.kind(), self.detail());
        let problem = json!({
            "type": format!("/problems/{kind}"),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
        });
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, content_type, problem.to_string()).into_response();
        if matches!(
            status,
            StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE
        ) {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    /// Status, the last part of the type, and title.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "user", "Nobody is logged in"),
            Self::KeyMissing => (
                StatusCode::BAD_REQUEST,
                "key-missing",
                "Idempotency-Key is missing",
            ),
            Self::KeyMalformed(_) => (
                StatusCode::BAD_REQUEST,
                "key-malformed",
                "Idempotency-Key is malformed",
            ),
            Self::InProgress => (
                StatusCode::CONFLICT,
                "in-progress",
                "A request is outstanding for this Idempotency-Key",
            ),
            Self::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "Idempotency-Key is already used",
            ),
            Self::Body(status, _) => (*status, "body", "The body is not an order"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "Method not allowed",
            ),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not now"),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something is broken",
            ),
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Unauthenticated => "X-User must name the user, once.",
            Self::KeyMissing => {
                "Send a new unique key with each order, and the same one when you repeat it."
            }
            Self::KeyMalformed(why) => why,
            Self::InProgress => "Repeat the request in a moment.",
            Self::KeyReused => {
                "This key came with another request before: a new order needs a new key."
            }
            Self::Body(_, why) => why,
            Self::NotFound | Self::MethodNotAllowed => "There are POST /orders and GET /healthz.",
            Self::Unavailable => "Repeat the request in a moment, with the same key.",
            Self::Internal => "The log of the service says more.",
        }
    }
}
