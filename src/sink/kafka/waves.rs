//! Handing a batch over to its generation, in one wave or two.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::{attempt::Attempt, errors, producer::Batch, topics::Topics};

/// Messages handed over in one go; other tasks run in between.
const PART: usize = 256;
/// How long to wait for room in librdkafka's queue before trying again.
const ROOM_PAUSE: Duration = Duration::from_millis(5);
/// How handing over went.
enum Flow {
    On,
    /// librdkafka's queue has no room.
    Full,
    /// The generation is over.
    Over,
}

impl Attempt<'_> {
    /// Hands everything over; whether all of it was reported.
    pub(super) async fn send_in_waves(&mut self, batch: &Batch<'_>) -> bool {
        let [first, second] = self.waves(&batch.producer.topics);
        if !self.send(batch, &first).await {
            return false;
        }
        if second.is_empty() || batch.reports.any_failed() {
            return true;
        }
        batch.reports.reopen();
        self.send(batch, &second).await
    }

    /// The batch in two: where a topic is not acquainted with this generation, all but each key's
    /// first message waits for those to be confirmed.
    fn waves(&self, topics: &Topics) -> [Vec<usize>; 2] {
        let acquainted: HashMap<&str, bool> = self
            .destinations()
            .map(|topic| (topic, topics.is_acquainted(topic)))
            .collect();
        if acquainted.values().all(|&acquainted| acquainted) {
            return [self.undecided().collect(), Vec::new()];
        }
        let mut begun = HashSet::new();
        let (first, second) = self.undecided().partition(|&index| {
            acquainted[self.messages[index].destination.as_str()]
                || self.lane(index).is_none_or(|lane| begun.insert(lane))
        });
        [first, second]
    }

    /// Hands a wave over and waits for its reports; whether all of it was handed over and reported.
    async fn send(&mut self, batch: &Batch<'_>, wave: &[usize]) -> bool {
        let handed_over = self.hand_over(batch, wave).await;
        batch.reports.close();
        let reported = handed_over && batch.reported(self.deadline).await;
        let confirmed = wave.iter().filter_map(|&index| {
            let partition = batch.reports.confirmed(index)?;
            Some((self.messages[index].destination.as_str(), partition))
        });
        batch.producer.topics.acquaint(confirmed);
        reported
    }

    /// Hands a wave over, in order, waiting for room; whether nothing is left but what is held.
    async fn hand_over(&mut self, batch: &Batch<'_>, wave: &[usize]) -> bool {
        let mut rest = wave;
        while !rest.is_empty() && !batch.reports.any_failed() {
            if Instant::now() >= self.deadline {
                return false;
            }
            let (done, flow) = self.hand_over_part(batch, &rest[..rest.len().min(PART)]);
            rest = &rest[done..];
            match flow {
                Flow::On => yield_now().await,
                Flow::Full => sleep(ROOM_PAUSE).await,
                Flow::Over => return false,
            }
        }
        true
    }

    fn hand_over_part(&mut self, batch: &Batch<'_>, part: &[usize]) -> (usize, Flow) {
        let Some(gate) = batch.gate() else {
            return (0, Flow::Over);
        };
        for (done, &index) in part.iter().enumerate() {
            if self.is_held(index) {
                continue;
            }
            match gate.send(index, self.messages[index]) {
                Ok(()) => {}
                Err(Code::QueueFull) => return (done, Flow::Full),
                Err(Code::Fatal) => return (done, Flow::Over),
                Err(code) => self.decide(index, errors::alone(code, self.messages[index])),
            }
        }
        (part.len(), Flow::On)
    }
}
