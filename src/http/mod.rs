//! The HTTP side: metrics, probes, the status page, and a poke from an application that has just
//! committed.

mod page;

use std::{
    future::Future,
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::net::TcpListener;

use crate::relay::Relay;

/// Binds the address of `--listen`. `[::]` is every address, IPv4's too, as the image has it: on a machine
/// without IPv6 that leaves those of IPv4.
///
/// # Errors
/// When it is taken or not of this machine.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != ErrorKind::AddrInUse =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Serves until `stopped`. Nothing here waits for the database or the broker.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    relay: Arc<Relay>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/wake", post(wake))
        .merge(page::routes())
        .with_state(relay);
    axum::serve(listener, routes)
        .with_graceful_shutdown(stopped)
        .await
}

async fn metrics(State(relay): State<Arc<Relay>>) -> Response {
    match relay.metrics().encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn livez(State(relay): State<Arc<Relay>>) -> (StatusCode, &'static str) {
    if relay.is_alive() {
        (StatusCode::OK, "alive\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the relay's loop has made no progress for too long\n",
        )
    }
}

async fn readyz(State(relay): State<Arc<Relay>>) -> (StatusCode, String) {
    match relay.unready() {
        None => (StatusCode::OK, "ready\n".into()),
        Some(reasons) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reasons}\n")),
    }
}

async fn wake(State(relay): State<Arc<Relay>>) -> StatusCode {
    relay.wake();
    StatusCode::NO_CONTENT
}
