//! What a relay says of itself.

use crate::{Failure, common::relay::Relay};

/// What `/metrics` says.
pub struct Metrics(String);

impl Metrics {
    /// `GET /metrics`.
    pub async fn of(relay: &Relay) -> Result<Self, Failure> {
        match relay.get("/metrics").await? {
            (200, text) => Ok(Self(text)),
            (status, text) => Err(format!("/metrics answers {status}: {}", text.trim()).into()),
        }
    }

    /// The lines of a metric, as they are.
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter(move |line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        })
    }

    /// The sum over the lines of a counter or of a gauge that counts; `None` if it is not there.
    pub fn count(&self, name: &str) -> Option<usize> {
        let values = self
            .lines(name)
            .map(|line| line.rsplit(' ').next()?.parse().ok());
        values.reduce(|sum: Option<usize>, value| Some(sum? + value?))?
    }
}
