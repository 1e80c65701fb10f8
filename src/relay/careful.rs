//! Careful mode: an event that kills the process must not do so for ever, nor take others with it.
//!
//! A relay that started three times uncleanly within five minutes publishes one event at a time,
//! its id committed first. Only the same id at three deaths in a row is charged, one attempt; a
//! crash alone never makes a dead letter.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::event::RowId;
use crate::lock::lock;
use crate::outbox::{Registered, Trial};

const LASTS: Duration = Duration::from_mins(5);
const DEATHS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Careful(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    suspect: Option<Trial>,
}

impl Careful {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Starts as the instance's row says.
    pub(super) fn begin(&self, registered: &Registered) {
        if registered.careful {
            tracing::warn!(
                "this relay has died three times within five minutes: publishing one event at a time"
            );
            *self.state() = State {
                until: Some(Instant::now() + LASTS),
                suspect: registered.trial.clone(),
            };
        }
    }

    /// Starts because a task panicked, which is as good as a death.
    pub(super) fn after_panic(&self) {
        self.state().until = Some(Instant::now() + LASTS);
    }

    pub(super) fn is_on(&self) -> bool {
        self.state()
            .until
            .is_some_and(|until| until > Instant::now())
    }

    /// Whether this event was being tried at the last three deaths. Asked once: the charge clears it.
    pub(super) fn is_deadly(&self, id: &RowId) -> bool {
        let mut state = self.state();
        let deadly = state
            .suspect
            .as_ref()
            .is_some_and(|trial| trial.id == *id && trial.deaths >= DEATHS);
        if deadly {
            state.suspect = None;
        }
        deadly
    }
}
