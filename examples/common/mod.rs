//! What the examples share: the shipped binary, the servers, and the names of things made on them.

pub mod broker;
pub mod database;
pub mod kafka;
pub mod program;
pub mod rabbitmq;
pub mod relay;
pub mod report;
pub mod servers;

use std::time::{SystemTime, UNIX_EPOCH};

/// What went wrong, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// For names that nobody has used before.
pub fn suffix() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("{:x}", now.unwrap_or_default().as_millis())
}

/// The outcome of the work, unless somebody presses Ctrl-C.
pub async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }
}
