//! Publishing what a test owns.

use outboxd::{
    event::Message,
    sink::{Outcome, Sink},
};

/// Publishes messages that a test owns.
pub trait Sending {
    /// As `Sink::publish`.
    fn send(&self, messages: &[Message]) -> impl Future<Output = Vec<Outcome>>;
}

impl<S: Sink + ?Sized> Sending for S {
    async fn send(&self, messages: &[Message]) -> Vec<Outcome> {
        self.publish(&messages.iter().collect::<Vec<_>>()).await
    }
}
