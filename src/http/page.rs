//! The status page at `/`: three static files, and `/status.json` which the page asks every second.
//!
//! Whatever comes from data (keys, reasons, names) is text to the page, and its policy allows no
//! script or style but its own. It changes nothing.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::header::{self, HeaderName},
    response::IntoResponse,
    routing::get,
};

use crate::relay::Relay;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's routes.
pub(super) fn routes() -> Router<Arc<Relay>> {
    let file = |kind, text| get(move || async move { answer(kind, text) });
    Router::new()
        .route(
            "/",
            file("text/html; charset=utf-8", include_str!("index.html")),
        )
        .route(
            "/status.css",
            file("text/css; charset=utf-8", include_str!("status.css")),
        )
        .route(
            "/status.js",
            file("text/javascript; charset=utf-8", include_str!("status.js")),
        )
        .route(
            "/status.svg",
            file("image/svg+xml", include_str!("status.svg")),
        )
        .route("/status.json", get(status))
}

async fn status(State(relay): State<Arc<Relay>>) -> impl IntoResponse {
    answer("application/json", relay.status().to_string())
}

fn answer<T: IntoResponse>(kind: &'static str, body: T) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 6] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    (headers, body)
}
