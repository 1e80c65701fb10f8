//! One wave: messages sent on one channel, and when the broker's answers can be believed.
//!
//! Two habits of lapin decide that. It attaches a *returned* (unroutable) message to whichever
//! confirm it resolves next, so a return says who it is, by `message_id`, but not to which publish
//! it belongs: returns are collected as a set. And a message's return may be attached to a confirm
//! that is resolved after the message's own. So a confirm is believed
//!
//! * when every message of the wave is answered: a return is taken by some confirm that comes after
//!   it, so all of them have been;
//! * in a wave that is cut short, only if no return was seen, and everything that lapin resolved
//!   before this confirm has been looked at: its own return would have been among that.

use std::{
    collections::{HashSet, VecDeque},
    future::ready,
    io,
    task::Poll,
};

use futures_util::{FutureExt, future::Either, poll};
use lapin::{
    Channel, Confirmation, Error, PublisherConfirm, options::BasicPublishOptions,
    types::ShortString,
};

use super::properties::Envelope;
use crate::event::Message;

/// Bytes that may wait in lapin to be written, beyond a first message.
const AHEAD_BYTES: usize = 1 << 20;

/// What is known of one message of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Confirmed, and routed to a queue.
    Routed,
    /// Confirmed as dealt with, but no queue takes it.
    Returned,
    /// Refused by a queue.
    Refused,
    /// Confirmed, but it may yet turn out to have been returned.
    Doubtful,
    /// Sent, and not answered: it may have arrived, and it may be what closed the channel.
    Silence,
    /// Not sent.
    Unsent,
}

#[derive(Default)]
struct Sent {
    /// There once lapin has written the message, until the answer came.
    confirm: Option<PublisherConfirm>,
    ack: Option<bool>,
    /// Confirms that were resolved before this one may not have been looked at.
    late: bool,
}

/// A message on its way through lapin.
struct Writing<P> {
    position: usize,
    bytes: usize,
    publish: P,
}

/// The messages of a wave and the answers so far.
pub(super) struct Wave<'a> {
    messages: &'a [&'a Message],
    indexes: &'a [usize],
    /// As far as `indexes` was sent.
    sent: Vec<Sent>,
    returned: HashSet<String>,
    fault: Option<Error>,
}

impl<'a> Wave<'a> {
    pub(super) fn new(messages: &'a [&'a Message], indexes: &'a [usize]) -> Self {
        Self {
            messages,
            indexes,
            sent: Vec::with_capacity(indexes.len()),
            returned: HashSet::new(),
            fault: None,
        }
    }

    /// Sends the wave and waits for the answers, or until the channel fails. It knows no deadline
    /// and may be dropped at any await: what was learned is kept.
    ///
    /// At most `ahead` messages wait in lapin to be written, from where they cannot be called back
    /// when the broker closes the channel. With one, its thread and ours take turns at every message,
    /// and that is half of what publishing costs.
    pub(super) async fn run(
        &mut self,
        channel: &Channel,
        exchange: &ShortString,
        envelopes: &mut [Option<Envelope>],
        ahead: usize,
    ) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let mut writing = VecDeque::with_capacity(ahead);
        let mut bytes = 0;
        for index in self.indexes {
            let Some(envelope) = envelopes[*index].take() else {
                // The plan gives out no such message; and were it one, it must not be for ever.
                self.note_fault(io::Error::other("a message cannot be sent").into());
                break;
            };
            let payload = self.messages[*index].payload.as_deref().unwrap_or_default();
            while writing.len() >= ahead || (bytes + payload.len() > AHEAD_BYTES && bytes > 0) {
                bytes -= self.written(&mut writing).await;
            }
            if self.fault.is_some() {
                break;
            }
            let (exchange, routing_key) = (exchange.clone(), envelope.routing_key);
            let mut publish = Box::pin(channel.basic_publish(
                exchange,
                routing_key,
                options,
                payload,
                envelope.properties,
            ));
            self.sent.push(Sent::default());
            // The first poll hands it to lapin: in the order of these polls messages are written.
            let first = poll!(publish.as_mut());
            bytes += payload.len();
            writing.push_back(Writing {
                position: self.sent.len() - 1,
                bytes: payload.len(),
                publish: match first {
                    Poll::Ready(written) => Either::Left(ready(written)),
                    Poll::Pending => Either::Right(publish),
                },
            });
        }
        while !writing.is_empty() {
            self.written(&mut writing).await;
        }
        for position in 0..self.sent.len() {
            if let Some(confirm) = &mut self.sent[position].confirm {
                let answer = confirm.await;
                self.note(position, answer);
            }
        }
    }

    /// Waits until the first message is written; gives its bytes.
    async fn written<P>(&mut self, writing: &mut VecDeque<Writing<P>>) -> usize
    where
        P: Future<Output = lapin::Result<PublisherConfirm>> + Unpin,
    {
        let Some(first) = writing.pop_front() else {
            return 0;
        };
        match first.publish.await {
            Ok(confirm) => self.sent[first.position].confirm = Some(confirm),
            Err(error) => self.note_fault(error),
        }
        first.bytes
    }

    /// Takes the answers that are there already, when there is no time left for the others.
    pub(super) fn harvest(&mut self) {
        // What the second look finds may be younger than something it has passed by; and so may all be,
        // where a confirm was still in lapin's hands.
        for late in [self.lost_sight(), true] {
            for position in 0..self.sent.len() {
                let confirm = self.sent[position].confirm.as_mut();
                if let Some(answer) = confirm.and_then(FutureExt::now_or_never) {
                    self.note(position, answer);
                    self.sent[position].late = late;
                }
            }
        }
    }

    /// Whether some message was handed over whose confirm we never got hold of.
    fn lost_sight(&self) -> bool {
        let lost = |sent: &Sent| sent.confirm.is_none() && sent.ack.is_none();
        self.sent.iter().any(lost)
    }

    /// What is known of every message, and why the channel failed if it did.
    pub(super) fn answers(self) -> (Vec<(usize, Answer)>, Option<Error>) {
        let complete = self.sent.len() == self.indexes.len()
            && self.sent.iter().all(|sent| sent.ack.is_some());
        let doubt = !complete && !self.returned.is_empty();
        let answer = |position: usize, index: usize| {
            let Some(sent) = self.sent.get(position) else {
                return Answer::Unsent;
            };
            match sent.ack {
                None => Answer::Silence,
                // Two messages of one id: there is no telling which, so both.
                Some(_)
                    if self.returned.contains(&self.messages[index].id)
                        && !defect!(IgnoreReturn) =>
                {
                    Answer::Returned
                }
                Some(false) => Answer::Refused,
                Some(true) if doubt || (sent.late && !complete) => Answer::Doubtful,
                Some(true) => Answer::Routed,
            }
        };
        let answers = self.indexes.iter().enumerate();
        let answers = answers
            .map(|(position, index)| (*index, answer(position, *index)))
            .collect();
        (answers, self.fault)
    }

    fn note(&mut self, position: usize, answer: lapin::Result<Confirmation>) {
        self.sent[position].confirm = None;
        let (ack, returned) = match answer {
            Ok(Confirmation::Ack(returned)) => (true, returned),
            Ok(Confirmation::Nack(returned)) => (false, returned),
            // Without confirms this is what lapin says to a message nobody vouches for.
            Ok(Confirmation::NotRequested) => {
                return self.note_fault(io::Error::other("the channel gives no confirms").into());
            }
            Err(error) => return self.note_fault(error),
        };
        self.sent[position].ack = Some(ack);
        let id = returned.and_then(|message| message.delivery.properties.message_id().clone());
        self.returned.extend(id.map(String::from));
    }

    /// Keeps the first error, but for one that says what the broker meant.
    fn note_fault(&mut self, error: Error) {
        let vague = |fault: &Error| !fault.is_amqp_error();
        if self.fault.as_ref().is_none_or(vague) {
            self.fault = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use lapin::{
        BasicProperties,
        message::{BasicReturnMessage, Delivery},
    };

    use super::*;

    const ALL: [usize; 4] = [0, 1, 2, 3];

    fn messages() -> Vec<Message> {
        let message = |id: usize| Message {
            id: id.to_string(),
            destination: "orders".into(),
            key: None,
            event_type: String::new(),
            content_type: "".into(),
            headers: Vec::new(),
            payload: None,
            timestamp_ms: 0,
        };
        ALL.map(message).to_vec()
    }

    /// A confirm, to which lapin has attached the return of some message or none.
    fn ack(returned: Option<usize>) -> Confirmation {
        let returned = returned.map(|id| {
            let mut delivery = Delivery::mock(0, "".into(), "orders".into(), false, Vec::new());
            delivery.properties = BasicProperties::default().with_message_id(id.to_string().into());
            BasicReturnMessage {
                delivery,
                reply_code: 312,
                reply_text: "NO_ROUTE".into(),
            }
        });
        Confirmation::Ack(returned)
    }

    /// What is made of answers to the first messages of a wave of four, all of which were sent.
    fn answers(given: impl IntoIterator<Item = Confirmation>) -> Vec<Answer> {
        let messages = messages();
        let messages: Vec<&Message> = messages.iter().collect();
        let mut wave = Wave::new(&messages, &ALL);
        wave.sent.resize_with(ALL.len(), Sent::default);
        for (position, answer) in given.into_iter().enumerate() {
            wave.note(position, Ok(answer));
        }
        wave.answers()
            .0
            .into_iter()
            .map(|(_, known)| known)
            .collect()
    }

    #[test]
    fn returns_belong_to_whom_they_name_and_not_to_whom_lapin_attaches_them() {
        use Answer::{Refused, Returned, Routed};
        let nack = Confirmation::Nack(None);
        let known = answers([ack(Some(2)), ack(None), ack(None), nack]);
        assert_eq!(known, [Routed, Routed, Returned, Refused]);
    }

    #[test]
    fn in_a_wave_cut_short_a_return_puts_every_other_confirm_in_doubt() {
        use Answer::{Doubtful, Returned, Routed, Silence};
        let known = answers([ack(Some(1)), ack(None), ack(None)]);
        assert_eq!(known, [Doubtful, Returned, Doubtful, Silence]);
        let known = answers([ack(None), ack(None), ack(None)]);
        assert_eq!(known, [Routed, Routed, Routed, Silence]);
    }

    #[test]
    fn in_a_wave_cut_short_what_the_last_look_finds_is_in_doubt() {
        use Answer::{Doubtful, Routed, Unsent};
        let messages = messages();
        let messages: Vec<&Message> = messages.iter().collect();
        let mut wave = Wave::new(&messages, &ALL);
        wave.sent.resize_with(2, Sent::default);
        for position in 0..2 {
            wave.note(position, Ok(ack(None)));
        }
        wave.sent[1].late = true;
        let (known, _) = wave.answers();
        assert_eq!(
            known,
            [(0, Routed), (1, Doubtful), (2, Unsent), (3, Unsent)]
        );
    }

    #[test]
    fn a_wave_knows_that_a_message_was_cut_off_while_it_was_written() {
        let messages = messages();
        let messages: Vec<&Message> = messages.iter().collect();
        let mut wave = Wave::new(&messages, &ALL);
        wave.sent.push(Sent::default());
        wave.note(0, Ok(ack(None)));
        assert!(!wave.lost_sight());
        wave.sent.push(Sent::default());
        assert!(wave.lost_sight());
    }

    #[test]
    fn a_channel_without_confirms_confirms_nothing() {
        let messages = messages();
        let messages: Vec<&Message> = messages.iter().collect();
        let mut wave = Wave::new(&messages, &[0]);
        wave.sent.push(Sent::default());
        wave.note(0, Ok(Confirmation::NotRequested));
        let (known, fault) = wave.answers();
        assert_eq!(known, [(0, Answer::Silence)]);
        assert!(fault.is_some());
    }
}
