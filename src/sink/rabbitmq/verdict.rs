//! What the broker means when it closes a channel over a message.

use lapin::{
    Error, ErrorKind,
    protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

use crate::sink::{Outcome, Reason, ReasonKind, Unavailable};

/// Whom a closed channel is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The exchange, and so every message.
    Exchange,
    /// One message among those that were not answered.
    Message,
}

/// The broker's error, if it closed the channel and not the connection.
pub(super) fn channel_error(error: &Error) -> Option<(&AMQPError, &AMQPSoftError)> {
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        return None;
    };
    match amqp.kind() {
        AMQPErrorKind::Soft(soft) => Some((amqp, soft)),
        AMQPErrorKind::Hard(_) => None,
    }
}

/// Whether the connection ended by lapin's own doing, and nothing is wrong with the broker. When the
/// broker closes a channel, lapin may write one more publish behind its close-ok; the broker takes
/// that for a publish on no channel (504) and closes the connection, under everyone's feet. Who
/// comes a moment later meets a channel in the wrong state.
pub(super) fn is_mishap(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => {
            *amqp.kind() == AMQPErrorKind::Hard(AMQPHardError::CHANNELERROR)
        }
        ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_) => true,
        _ => false,
    }
}

/// All messages go to one exchange. It is forbidden as a whole, or (topic permissions) for some
/// routing keys: when the text does not say the former, the message is to be found.
pub(super) fn verdict(error: &AMQPError, soft: &AMQPSoftError) -> Verdict {
    let forbidden = error.get_message().as_str().contains("access to exchange");
    match soft {
        AMQPSoftError::NOTFOUND => Verdict::Exchange,
        AMQPSoftError::ACCESSREFUSED if forbidden => Verdict::Exchange,
        _ => Verdict::Message,
    }
}

/// Why nothing can go to an exchange.
pub(super) fn exchange_refused(exchange: &str, error: &AMQPError) -> Unavailable {
    let remedy = match error.get_id() {
        403 => "grant the user write permission on it",
        _ => "declare it",
    };
    Unavailable::destination(format!(
        "cannot publish to {}: {}; {remedy}",
        exchange_name(exchange),
        error.get_message()
    ))
}

/// The outcome of the message that closed a channel.
pub(super) fn culprit(exchange: &str, error: &AMQPError, soft: &AMQPSoftError) -> Outcome {
    let text = error.get_message().as_str();
    let rejected = |kind| Outcome::Rejected(Reason::new(kind, text));
    match soft {
        AMQPSoftError::ACCESSREFUSED | AMQPSoftError::NOTFOUND => {
            Outcome::Unavailable(exchange_refused(exchange, error))
        }
        AMQPSoftError::CONTENTTOOLARGE => rejected(ReasonKind::TooLarge),
        AMQPSoftError::PRECONDITIONFAILED if text.contains("size") => {
            rejected(ReasonKind::TooLarge)
        }
        AMQPSoftError::PRECONDITIONFAILED => rejected(ReasonKind::Invalid),
        _ => Outcome::Transient(Reason::new(ReasonKind::Refused, text)),
    }
}

/// An unroutable message's destination.
pub(super) fn unroutable(exchange: &str, routing_key: &str) -> Unavailable {
    let remedy = match exchange {
        "" => format!("declare the queue {routing_key:?}"),
        _ => "declare a queue and bind it".into(),
    };
    Unavailable::destination(format!(
        "no queue takes messages of {} with routing key {routing_key:?}; {remedy}",
        exchange_name(exchange)
    ))
}

/// How an exchange is called in a sentence.
pub(super) fn exchange_name(exchange: &str) -> String {
    match exchange {
        "" => "the default exchange".into(),
        name => format!("exchange {name:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(soft: AMQPSoftError, text: &str) -> AMQPError {
        AMQPError::new(soft.into(), text.into())
    }

    #[test]
    fn only_a_missing_or_forbidden_exchange_is_about_everyone() {
        use AMQPSoftError::{ACCESSREFUSED, NOTFOUND, PRECONDITIONFAILED};
        for (soft, text, expected) in [
            (NOTFOUND, "no exchange 'x' in vhost '/'", Verdict::Exchange),
            (
                ACCESSREFUSED,
                "access to exchange 'x' in vhost '/' refused",
                Verdict::Exchange,
            ),
            (
                ACCESSREFUSED,
                "access to topic 'k' in exchange 'x'",
                Verdict::Message,
            ),
            (
                PRECONDITIONFAILED,
                "message size 2 is larger",
                Verdict::Message,
            ),
        ] {
            assert_eq!(
                verdict(&error(soft.clone(), text), &soft),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn the_culprit_is_charged_only_for_what_it_is() {
        use AMQPSoftError::{ACCESSREFUSED, PRECONDITIONFAILED, RESOURCELOCKED};
        let outcome = |soft: AMQPSoftError, text| culprit("", &error(soft.clone(), text), &soft);
        let kind = |outcome| match outcome {
            Outcome::Rejected(reason) | Outcome::Transient(reason) => Some(reason.kind),
            _ => None,
        };
        let size = outcome(PRECONDITIONFAILED, "message size 2 is larger than 1");
        assert_eq!(kind(size), Some(ReasonKind::TooLarge));
        let header = outcome(PRECONDITIONFAILED, "unacceptable_type_in_header");
        assert_eq!(kind(header), Some(ReasonKind::Invalid));
        let forbidden = outcome(ACCESSREFUSED, "access to topic");
        assert!(matches!(forbidden, Outcome::Unavailable(_)));
        let other = outcome(RESOURCELOCKED, "locked");
        assert!(matches!(other, Outcome::Transient(_)));
    }
}
