//! What librdkafka tells one generation of the producer: reports, errors, log lines.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use rdkafka::{
    ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::DeliveryResult,
    producer::ProducerContext,
};
use tokio::sync::watch;

use super::reports::Reports;
use crate::lock::lock;

/// A message's opaque is its batch's number and its index in the batch.
const INDEX_BITS: u32 = usize::BITS / 2;

/// The batches in flight of one generation, and what went wrong.
///
/// Each generation has its own, so that a report of a condemned one cannot be taken for a report
/// about a new batch.
#[derive(Default)]
pub(super) struct Context {
    batches: Mutex<HashMap<usize, Arc<Reports>>>,
    next_batch: AtomicU32,
    /// Whether the generation is condemned; also touched at every error, since librdkafka's events
    /// do not say which one is fatal.
    condemned: watch::Sender<bool>,
    trouble: Mutex<Option<String>>,
}

impl Context {
    /// Begins a batch: reports find it until `unregister`.
    pub(super) fn register(&self, reports: &Arc<Reports>) -> usize {
        let counter = self.next_batch.fetch_add(1, Ordering::Relaxed) as usize;
        let batch = counter & (usize::MAX >> INDEX_BITS);
        lock(&self.batches).insert(batch, Arc::clone(reports));
        batch
    }

    pub(super) fn unregister(&self, batch: usize) {
        lock(&self.batches).remove(&batch);
    }

    pub(super) fn opaque(batch: usize, index: usize) -> usize {
        batch << INDEX_BITS | index
    }

    /// Notes what became of a message, if its batch still waits for that.
    fn note(&self, opaque: usize, result: Result<i32, Code>) {
        let index = opaque & (usize::MAX >> INDEX_BITS);
        if let Some(reports) = lock(&self.batches).get(&(opaque >> INDEX_BITS)) {
            reports.report(index, result);
        }
    }

    pub(super) fn condemn(&self) {
        self.condemned.send_replace(true);
    }

    pub(super) fn is_condemned(&self) -> bool {
        *self.condemned.borrow()
    }

    /// Tells of errors and of the end.
    pub(super) fn troubles(&self) -> watch::Receiver<bool> {
        self.condemned.subscribe()
    }

    /// The last thing librdkafka complained about, since the last success.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    pub(super) fn clear_trouble(&self) {
        lock(&self.trouble).take();
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // It warns of an experimental option at every start. Ours is tested.
            _ if facility == "CONFWARN" && message.contains("enable.gapless.guarantee") => {}
            // librdkafka calls every fatal producer error an emergency; the generation is rebuilt.
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka reports an error");
        // It says why; "all brokers down", which follows, does not.
        if !matches!(error, KafkaError::Global(Code::AllBrokersDown)) {
            // Without "(after 3 ms in state CONNECT, 17 identical errors suppressed)".
            let reason = reason.split(" (after ").next().unwrap_or(reason);
            *lock(&self.trouble) = Some(reason.to_owned());
        }
        self.condemned.send_modify(|_| {});
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let result = match result {
            Ok(message) => Ok(message.partition()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        };
        self.note(opaque, result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_find_their_batch_and_none_after_its_end() {
        let context = Context::default();
        let [one, two] = [(); 2].map(|()| Arc::new(Reports::new(3)));
        let [first, second] = [&one, &two].map(|reports| context.register(reports));
        context.note(Context::opaque(second, 2), Ok(7));
        assert_eq!(two.confirmed(2), Some(7));
        assert_eq!(one.confirmed(2), None);
        context.unregister(first);
        context.note(Context::opaque(first, 1), Ok(7));
        assert_eq!([one.confirmed(1), two.confirmed(1)], [None, None]);
    }
}
