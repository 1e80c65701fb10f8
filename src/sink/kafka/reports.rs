//! What the broker reported about the messages of one batch.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicI32, AtomicUsize, Ordering},
    },
};

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

use crate::lock::lock;

const UNSENT: i32 = -1;
const UNREPORTED: i32 = -2;
const FAILED: i32 = -3;

/// The reports of one batch: written by the producer's poll thread, read by the task that
/// publishes. A message costs a few atomic writes, and the last report wakes the task, once.
pub(super) struct Reports {
    /// By index in the batch: the partition it was confirmed in, or one of the above.
    states: Box<[AtomicI32]>,
    /// Messages handed over and not reported, plus one while messages are being handed over.
    missing: AtomicUsize,
    failures: Mutex<BTreeMap<usize, Code>>,
    complete: Notify,
}

impl Reports {
    pub(super) fn new(messages: usize) -> Self {
        Self {
            states: (0..messages).map(|_| AtomicI32::new(UNSENT)).collect(),
            missing: AtomicUsize::new(1),
            failures: Mutex::default(),
            complete: Notify::new(),
        }
    }

    /// Expects a report about a message; to be called before it is handed over.
    pub(super) fn expect(&self, index: usize) {
        self.set(index, UNREPORTED);
        self.reopen();
    }

    /// Expects it no more: the message was not taken.
    pub(super) fn unexpect(&self, index: usize) {
        self.set(index, UNSENT);
        self.close();
    }

    /// Notes what became of a message.
    pub(super) fn report(&self, index: usize, result: Result<i32, Code>) {
        let state = match result {
            Ok(partition) => partition.max(0),
            Err(code) => {
                lock(&self.failures).insert(index, code);
                FAILED
            }
        };
        self.set(index, state);
        self.close();
    }

    /// Waits until everything handed over is reported. For one task, and once nothing more is
    /// handed over; `reopen` before more is.
    pub(super) async fn complete(&self) {
        while self.missing.load(Ordering::Acquire) > 0 {
            self.complete.notified().await;
        }
    }

    /// Begins to hand over more, after `close`.
    pub(super) fn reopen(&self) {
        self.missing.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing more is handed over for now.
    pub(super) fn close(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete.notify_one();
        }
    }

    /// The partition that confirmed a message.
    pub(super) fn confirmed(&self, index: usize) -> Option<i32> {
        let state = self.state(index);
        (state >= 0).then_some(state)
    }

    /// Whether a message was handed over, so that it may have arrived.
    pub(super) fn was_sent(&self, index: usize) -> bool {
        self.state(index) != UNSENT
    }

    /// Messages that failed, in their order.
    pub(super) fn failures(&self) -> BTreeMap<usize, Code> {
        lock(&self.failures).clone()
    }

    /// Whether any message failed.
    pub(super) fn any_failed(&self) -> bool {
        !lock(&self.failures).is_empty()
    }

    fn state(&self, index: usize) -> i32 {
        let state = self.states.get(index);
        state.map_or(UNSENT, |state| state.load(Ordering::Relaxed))
    }

    fn set(&self, index: usize, to: i32) {
        if let Some(state) = self.states.get(index) {
            state.store(to, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_is_complete_when_every_message_handed_over_is_reported() {
        let reports = Reports::new(3);
        reports.expect(0);
        reports.expect(1);
        reports.report(0, Ok(4));
        reports.report(1, Err(Code::PurgeQueue));
        reports.close();
        reports.complete().await;
        assert_eq!(reports.confirmed(0), Some(4));
        assert_eq!(reports.confirmed(1), None);
        assert_eq!(reports.confirmed(2), None);
        assert_eq!([0, 1, 2].map(|i| reports.was_sent(i)), [true, true, false]);
        assert_eq!(reports.failures(), BTreeMap::from([(1, Code::PurgeQueue)]));
    }

    #[tokio::test]
    async fn it_can_be_reopened() {
        let reports = Reports::new(1);
        reports.close();
        reports.complete().await;
        reports.reopen();
        reports.expect(0);
        reports.close();
        let waited = tokio::time::timeout(std::time::Duration::ZERO, reports.complete()).await;
        assert!(waited.is_err());
        reports.report(0, Ok(0));
        reports.complete().await;
    }
}
