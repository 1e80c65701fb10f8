//! Publishing a batch: wave after wave, until the plan has nothing left to send.

use std::{collections::HashMap, sync::Arc, time::Duration};

use lapin::{Channel, Error, types::ShortString};
use tokio::time::Instant;

use super::{
    connection::{Broker, Link},
    plan::Plan,
    properties::{Envelope, envelope},
    verdict::{Verdict, channel_error, culprit, exchange_refused, is_mishap, unroutable, verdict},
    wave::{Answer, Wave},
};
use crate::{
    event::Message,
    sink::{Outcome, Reason, ReasonKind, Unavailable},
};

/// Messages of one wave at most: enough to keep a broker busy, few enough to repeat after a fault.
const WINDOW: usize = 2000;

/// Messages that may wait in lapin to be written.
const AHEAD: usize = 64;

/// How long a channel may take to open after another was closed. Under load lapin loses the answer now and
/// then (nothing more is heard on the connection), and it would be waited for until the deadline.
const REOPENING: Duration = Duration::from_secs(5);

/// How often a batch goes on after a mishap, on another connection.
const MISHAPS: usize = 3;

/// Publishes a batch, and gives every message its outcome by the deadline.
pub(super) async fn publish(
    broker: &Broker,
    link: Arc<Link>,
    messages: &[&Message],
    deadline: Instant,
) -> Vec<Outcome> {
    let config = broker.config();
    let mut invalid = HashMap::new();
    let envelopes = (messages.iter().enumerate())
        .map(|(index, message)| {
            let envelope = envelope(message, link.frame_max());
            envelope
                .map_err(|reason| invalid.insert(index, reason))
                .ok()
        })
        .collect();
    let mut batch = Batch {
        broker,
        link,
        exchange: &config.exchange,
        messages,
        envelopes,
        plan: Plan::new(messages, config.order, invalid),
        suspects: 0,
        closed: false,
        mishaps: 0,
        deadline,
    };
    let unavailable = batch.send().await.err();
    let unavailable = unavailable.unwrap_or_else(|| Unavailable::sink("not sent"));
    batch.plan.finish(&unavailable)
}

struct Batch<'a> {
    broker: &'a Broker,
    link: Arc<Link>,
    exchange: &'a ShortString,
    messages: &'a [&'a Message],
    /// None for a message that cannot be sent, or was.
    envelopes: Vec<Option<Envelope>>,
    plan: Plan<'a>,
    /// The one that closed a channel is among so many next messages.
    suspects: usize,
    /// The broker has closed a channel of this batch.
    closed: bool,
    mishaps: usize,
    deadline: Instant,
}

impl Batch<'_> {
    async fn send(&mut self) -> Result<(), Unavailable> {
        let mut spare = None;
        loop {
            let indexes = self.plan.wave(self.window());
            if indexes.is_empty() {
                break;
            }
            let channel = match spare.take() {
                Some(channel) => channel,
                None => self.open().await?,
            };
            spare = self.send_wave(channel, &indexes).await?;
        }
        if let Some(channel) = spare {
            self.link.give_back(channel);
        }
        Ok(())
    }

    /// A channel; on another connection if this one has just gone down, as it does in a mishap.
    async fn open(&mut self) -> Result<Channel, Unavailable> {
        let mut deadline = self.deadline;
        if self.closed {
            deadline = deadline.min(Instant::now() + REOPENING);
        }
        if let Ok(channel) = self.link.channel(deadline).await {
            return Ok(channel);
        }
        self.link = self.broker.link(self.deadline).await?;
        self.link.channel(self.deadline).await
    }

    /// Sends one wave and settles it with the plan. Gives the channel back if it is still good.
    async fn send_wave(
        &mut self,
        channel: Channel,
        indexes: &[usize],
    ) -> Result<Option<Channel>, Unavailable> {
        for &index in indexes {
            // Sending uses an envelope up; few are sent again.
            if self.envelopes[index].is_none() {
                let envelope = envelope(self.messages[index], self.link.frame_max());
                self.envelopes[index] = envelope.ok();
            }
        }
        let ahead = self.ahead();
        let mut wave = Wave::new(self.messages, indexes);
        let run = wave.run(&channel, self.exchange, &mut self.envelopes, ahead);
        let interrupted = self.link.within(self.deadline, run).await.err();
        if interrupted.is_some() {
            wave.harvest();
        }
        let (answers, fault) = wave.answers();
        if let Some(unavailable) = interrupted {
            self.abandon(answers, &unavailable);
            return Err(unavailable);
        }
        let Some(fault) = fault else {
            self.settle(answers, |_| None);
            self.suspects = self.suspects.saturating_sub(indexes.len());
            return Ok(Some(channel));
        };
        self.judge(answers, &fault)?;
        Ok(None)
    }

    /// One by one once a channel was closed: what is still being written then may take the connection
    /// with it.
    fn ahead(&self) -> usize {
        if self.closed { 1 } else { AHEAD }
    }

    /// A closed channel leaves messages unanswered, one of which is to blame. They are sent again,
    /// half as many at a time, until the broker's no is about one message alone: so no other is
    /// ever charged, and a batch of thousands needs a dozen channels and not thousands.
    fn window(&self) -> usize {
        match self.suspects {
            0 => WINDOW,
            suspects => (suspects / 2).max(1),
        }
    }

    /// A wave whose channel failed.
    fn judge(&mut self, answers: Vec<(usize, Answer)>, fault: &Error) -> Result<(), Unavailable> {
        self.closed = true;
        let Some((error, soft)) = channel_error(fault) else {
            if is_mishap(fault) && self.mishaps < MISHAPS {
                self.mishaps += 1;
                self.settle(answers, |_| None);
                return Ok(());
            }
            let unavailable = self.link.broken(fault);
            self.abandon(answers, &unavailable);
            return Err(unavailable);
        };
        let exchange = self.exchange.as_str();
        let count = |what| answers.iter().filter(|(_, answer)| *answer == what).count();
        let silent = count(Answer::Silence);
        self.suspects = silent + count(Answer::Doubtful);
        match verdict(error, soft) {
            Verdict::Exchange => {
                self.settle(answers, |_| None);
                self.plan.refuse_all(&exchange_refused(exchange, error));
            }
            Verdict::Message if silent == 1 || defect!(ChargeNeighbours) => {
                let outcome = culprit(exchange, error, soft);
                let blame = |answer| (answer == Answer::Silence).then(|| outcome.clone());
                self.settle(answers, blame);
                self.suspects = 0;
            }
            Verdict::Message => self.settle(answers, |_| None),
        }
        Ok(())
    }

    /// A wave that was not answered in time, or whose connection broke.
    fn abandon(&mut self, answers: Vec<(usize, Answer)>, unavailable: &Unavailable) {
        self.settle(answers, |answer| {
            (answer != Answer::Unsent).then(|| Outcome::Unavailable(unavailable.clone()))
        });
    }

    /// Answers that are certain speak for themselves; `otherwise` is for those that are not.
    fn settle(
        &mut self,
        answers: Vec<(usize, Answer)>,
        otherwise: impl Fn(Answer) -> Option<Outcome>,
    ) {
        let exchange = self.exchange.as_str();
        let outcome = |index: usize, answer| match answer {
            Answer::Routed => Some(Outcome::Published),
            Answer::Returned => {
                let destination = &self.messages[index].destination;
                Some(Outcome::Unavailable(unroutable(exchange, destination)))
            }
            Answer::Refused => Some(Outcome::Transient(Reason::new(
                ReasonKind::Refused,
                "a queue refused it (nack): it is full (overflow reject-publish) or unavailable",
            ))),
            Answer::Doubtful | Answer::Silence | Answer::Unsent => otherwise(answer),
        };
        let answers = answers.into_iter();
        let outcomes = answers.map(|(index, answer)| (index, outcome(index, answer)));
        self.plan.settle(outcomes.collect());
    }
}
