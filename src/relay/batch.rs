//! One batch: claimed, published, settled.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use super::{
    Relay,
    health::gauge,
    in_flight::{Taken, lanes},
    worker::{Debt, MOMENT},
};
use crate::{
    event::{Event, Failure, Message},
    lock::lock,
    outbox::{Claim, Confirmed, DbError, Link, Want},
    settlement::{Settlement, settle},
    sink::{Outcome, Reason, ReasonKind, Unavailable},
};

/// What one turn of the loop came to.
pub(super) enum Turn<'a> {
    Idle,
    Worked {
        /// How much of what a claim may take this one took, 0 to 1.
        fill: f64,
    },
    /// What was claimed is on its way already, or published and not settled: it was given back.
    Underway,
    /// Published, confirmed, and not settled.
    Owing(Vec<Confirmed>, DbError, Debt<'a>),
}

impl Relay {
    /// One claim, from beginning to end.
    pub(super) async fn turn(&self, link: &mut Option<Link>) -> Result<Turn<'_>, DbError> {
        let link = match link {
            Some(link) => link,
            None => link.insert(self.outbox.publishing_link().await?),
        };
        let started = Instant::now();
        let claim = self.outbox.claim(link, || self.want()).await?;
        self.metrics.database_up.set(1);
        if claim.is_empty() {
            link.session.commit().await?;
            self.outbox.raise_floors(&claim, &[]);
            return Ok(Turn::Idle);
        }
        let Some(_taken) = self.take_lanes(&claim).await else {
            link.session.commit().await?;
            return Ok(Turn::Underway);
        };
        self.metrics
            .claim_duration
            .observe(started.elapsed().as_secs_f64());
        self.metrics.batch_events.observe(claim.events.len() as f64);
        let in_flight = gauge(claim.events.len());
        self.metrics.in_flight_events.add(in_flight);
        let turn = self.relay(link, claim, started).await;
        self.metrics.in_flight_events.sub(in_flight);
        turn
    }

    /// The lanes to publish, unless another worker has lost its locks on them. A debt comes before the
    /// lanes it is about are free.
    async fn take_lanes(&self, claim: &Claim) -> Option<Taken<'_>> {
        let lanes = lanes(&claim.events, self.outbox.ordering());
        let taken = tokio::time::timeout(MOMENT, self.in_flight.take(lanes)).await;
        taken.ok().filter(|_| *self.debts.borrow() == 0)
    }

    /// Publishes a claim's events and settles them.
    async fn relay(
        &self,
        link: &mut Link,
        mut claim: Claim,
        claiming: Instant,
    ) -> Result<Turn<'_>, DbError> {
        if let Some(format) = &self.settings.format {
            format.apply(&mut claim.events);
        }
        let started = Instant::now();
        let outcomes = self.try_events(&claim).await?;
        self.metrics
            .publish_duration
            .observe(started.elapsed().as_secs_f64());
        self.measure(&claim, &outcomes, claiming);
        let settlement = self.decide(&claim, outcomes);
        self.settle(link, claim, settlement).await
    }

    fn fill(&self, claim: &Claim) -> f64 {
        let events = claim.events.len() as f64 / self.settings.batch_size as f64;
        let bytes = claim.bytes as f64 / self.settings.batch_bytes as f64;
        events.max(bytes).min(1.0)
    }

    fn want(&self) -> Want {
        let careful = self.careful.is_on();
        Want {
            events: if careful { 1 } else { self.settings.batch_size },
            bytes: self.settings.batch_bytes,
            lanes: self.share_of_lanes(),
            event_bytes: self.sink.max_message_bytes(),
            paused: self.health.paused(),
        }
    }

    /// Publishes a claim's events; in careful mode, after its one event's id is committed.
    async fn try_events(&self, claim: &Claim) -> Result<Vec<Outcome>, DbError> {
        let [event] = &claim.events[..] else {
            return Ok(self.publish(&claim.events).await);
        };
        if !self.careful.is_on() {
            return Ok(self.publish(&claim.events).await);
        }
        let mut link = self.outbox.link().await?;
        // Once charged, its deaths count anew.
        let deadly = self.careful.is_deadly(&event.id);
        let trial = (!deadly).then_some(&event.id);
        self.outbox
            .note_trial(&mut link, &self.settings.instance, trial)
            .await?;
        if deadly {
            return Ok(vec![Outcome::Transient(Reason::new(
                ReasonKind::Crashed,
                "the relay died three times in a row while publishing it",
            ))]);
        }
        let outcomes = self.publish(&claim.events).await;
        // It came through: whether that could be written down must not cost the outcome.
        match self
            .outbox
            .note_trial(&mut link, &self.settings.instance, None)
            .await
        {
            Ok(()) => link.session.close().await,
            Err(error) => self.failed(&error),
        }
        Ok(outcomes)
    }

    /// Gives the sink what can be sent; answers for the rest.
    async fn publish(&self, events: &[Event]) -> Vec<Outcome> {
        if events.iter().all(|event| event.invalid.is_none()) {
            let messages: Vec<&Message> = events.iter().map(|event| &event.message).collect();
            return self.ask_sink(&messages).await;
        }
        // What follows an invalid event in its key waits for the next claim: it may be held by then.
        let mut broken = HashSet::new();
        let mut outcomes = vec![Outcome::Withheld; events.len()];
        let mut sendable = Vec::new();
        for (index, event) in events.iter().enumerate() {
            if event
                .ordering_key()
                .is_some_and(|key| broken.contains(&key))
            {
                continue;
            }
            match &event.invalid {
                Some(reason) => {
                    outcomes[index] = Outcome::Rejected(reason.clone());
                    broken.extend(event.ordering_key());
                }
                None => sendable.push(index),
            }
        }
        let messages: Vec<&Message> = sendable
            .iter()
            .map(|&index| &events[index].message)
            .collect();
        if !messages.is_empty() {
            for (index, outcome) in sendable.into_iter().zip(self.ask_sink(&messages).await) {
                outcomes[index] = outcome;
            }
        }
        outcomes
    }

    /// Asks the sink, and answers in its place if it panics or does not keep its own deadline.
    async fn ask_sink(&self, messages: &[&Message]) -> Vec<Outcome> {
        let publishing = AssertUnwindSafe(self.sink.publish(messages)).catch_unwind();
        let deadline = self.settings.publish_timeout + Duration::from_secs(3);
        match tokio::time::timeout(deadline, publishing).await {
            Ok(Ok(outcomes)) if outcomes.len() == messages.len() => outcomes,
            Ok(Ok(outcomes)) => {
                let detail = format!(
                    "bug: {} answers for {} messages",
                    outcomes.len(),
                    messages.len()
                );
                vec![Outcome::Unavailable(Unavailable::sink(detail)); messages.len()]
            }
            Ok(Err(_)) if messages.len() == 1 => {
                vec![Outcome::Transient(Reason::new(
                    ReasonKind::Crashed,
                    "publishing it panicked",
                ))]
            }
            Ok(Err(_)) => {
                tracing::error!("publishing a batch panicked: publishing one event at a time");
                self.careful.after_panic();
                vec![Outcome::Withheld; messages.len()]
            }
            Err(_) => {
                let unavailable =
                    Unavailable::sink("the sink did not answer within the publish timeout");
                vec![Outcome::Unavailable(unavailable); messages.len()]
            }
        }
    }

    fn measure(&self, claim: &Claim, outcomes: &[Outcome], claiming: Instant) {
        let elapsed = claiming.elapsed();
        let retries = claim.events.iter().filter(|event| event.attempts.is_some());
        self.metrics.answered(outcomes, retries.count());
        // The database's clock now: when the claim began there, and what passed since.
        let now_ms = claim.now_us / 1000 + i64::try_from(elapsed.as_millis()).unwrap_or_default();
        for (event, outcome) in claim.events.iter().zip(outcomes) {
            if *outcome == Outcome::Published {
                let age_ms = now_ms.saturating_sub(event.message.timestamp_ms).max(0);
                self.metrics
                    .delivery_latency
                    .observe(age_ms as f64 / 1000.0);
            }
        }
    }

    fn decide(&self, claim: &Claim, outcomes: Vec<Outcome>) -> Settlement {
        let mut rejections = lock(&self.rejections);
        let policy = &self.settings.policy;
        settle(
            &claim.events,
            outcomes,
            policy,
            &mut rejections,
            fastrand::f64,
        )
    }

    async fn settle(
        &self,
        link: &mut Link,
        claim: Claim,
        settlement: Settlement,
    ) -> Result<Turn<'_>, DbError> {
        let started = Instant::now();
        let Settlement {
            published,
            retried,
            failures,
            unsettled,
            ..
        } = &settlement;
        let settled = self
            .outbox
            .settle(link, &claim.events, published, retried, failures)
            .await;
        self.open_breakers(&settlement);
        if let Err(error) = settled {
            let confirmed = owed(&claim.events, published, failures);
            return if confirmed.is_empty() {
                Err(error)
            } else {
                Ok(Turn::Owing(confirmed, error, Debt::new(self)))
            };
        }
        self.metrics
            .settle_duration
            .observe(started.elapsed().as_secs_f64());
        self.metrics.published(published.len());
        if !published.is_empty() {
            self.health.succeeded();
        }
        self.report_failures(&claim, &settlement);
        self.outbox.raise_floors(&claim, unsettled);
        let progressed = !published.is_empty() || !failures.is_empty();
        Ok(if progressed {
            Turn::Worked {
                fill: self.fill(&claim),
            }
        } else {
            Turn::Idle
        })
    }

    fn open_breakers(&self, settlement: &Settlement) {
        if let Some(detail) = &settlement.sink_down {
            self.sink_failed(detail.clone());
        }
        for (destination, detail) in &settlement.pauses {
            self.pause(destination, detail);
        }
    }

    fn report_failures(&self, claim: &Claim, settlement: &Settlement) {
        for failure in &settlement.failures {
            let event = &claim.events[failure.index];
            let (id, destination) = (&event.message.id, &event.message.destination);
            let reason = &failure.reason;
            if failure.retry_in.is_none() {
                self.metrics.dead_lettered(reason.kind);
                tracing::error!(event.id = %id, destination, attempts = failure.attempts, %reason,
                    "event {id} is dead: `outboxd dead list` shows it, `dead retry` sends it again");
            } else {
                tracing::warn!(event.id = %id, destination, attempts = failure.attempts, %reason,
                    "event {id} failed and will be tried again");
            }
        }
    }
}

/// What was confirmed, and must be marked now that its own settlement failed. Not what stands behind
/// a dead event of its key: that death is not written down, so the event is sent again, and they
/// after it.
fn owed(events: &[Event], published: &[usize], failures: &[Failure]) -> Vec<Confirmed> {
    let published: HashSet<usize> = published.iter().copied().collect();
    let failed: HashSet<usize> = failures.iter().map(|failure| failure.index).collect();
    let mut dead = HashSet::new();
    let mut owed = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let key = event.ordering_key();
        if failed.contains(&index) {
            dead.extend(key);
        } else if published.contains(&index) && !key.is_some_and(|key| dead.contains(&key)) {
            owed.push(Confirmed {
                id: event.id.clone(),
                event_id: event.message.id.clone(),
            });
        }
    }
    owed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_an_unrecorded_death_is_not_owed() {
        let events = [(1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "b")];
        let events = events.map(|(id, key)| Event::bare(id, 0, "topic", Some(key)));
        let dead = Failure {
            index: 2,
            attempts: 1,
            retry_in: None,
            holds: false,
            reason: Reason::new(ReasonKind::Invalid, "no"),
        };
        let owed = owed(&events, &[0, 1, 3, 4], &[dead]);
        let ids: Vec<String> = owed
            .iter()
            .map(|confirmed| confirmed.id.to_string())
            .collect();
        assert_eq!(ids, ["1", "2", "5"]);
    }
}
