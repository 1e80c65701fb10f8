//! What Kafka's error codes mean for an event: the one place that decides it.

use rdkafka::error::RDKafkaErrorCode as Code;

use crate::{
    event::Message,
    sink::{Outcome, Reason, ReasonKind, Unavailable},
};

/// What an error code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing: it was purged because of something else.
    Purged,
    /// Nothing about the message itself: the broker or the connection is in trouble.
    Unanswered,
    /// The topic is not there.
    UnknownTopic,
    /// The principal may not write to the topic.
    Denied,
    /// Refused; but where a request held several messages, it may be a neighbour's fault.
    Refused(Refusal),
}

/// Why a message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    TooLarge,
    Invalid,
    Policy,
    /// The broker failed at it without saying why: it may pass another time.
    Unclear,
}

/// Classifies a code. What is not known to be about a message or its topic charges nobody.
pub(super) fn meaning(code: Code) -> Meaning {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Meaning::Refused(Refusal::TooLarge)
        }
        Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::UnsupportedForMessageFormat => Meaning::Refused(Refusal::Invalid),
        Code::PolicyViolation => Meaning::Refused(Refusal::Policy),
        Code::Unknown | Code::InvalidMessage | Code::InvalidRequest => {
            Meaning::Refused(Refusal::Unclear)
        }
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::UnknownTopicId => Meaning::UnknownTopic,
        Code::TopicAuthorizationFailed => Meaning::Denied,
        Code::PurgeQueue | Code::PurgeInflight => Meaning::Purged,
        _ => Meaning::Unanswered,
    }
}

/// The outcome of a message that was sent alone (or refused before it was sent), so that the answer
/// is about it alone.
pub(super) fn alone(code: Code, message: &Message) -> Outcome {
    match meaning(code) {
        Meaning::Purged | Meaning::Unanswered => {
            Outcome::Unavailable(Unavailable::sink(code.to_string()))
        }
        Meaning::UnknownTopic => Outcome::Unavailable(unknown_topic(&message.destination)),
        Meaning::Denied => Outcome::Unavailable(denied(&message.destination)),
        Meaning::Refused(Refusal::TooLarge) => rejected(
            ReasonKind::TooLarge,
            format!(
                "{code}: about {} bytes; the limits are max.message.bytes of topic {:?} and \
                 outboxd's message.max.bytes",
                message.size(),
                message.destination
            ),
        ),
        Meaning::Refused(Refusal::Invalid) => rejected(ReasonKind::Invalid, code.to_string()),
        Meaning::Refused(Refusal::Policy) => rejected(ReasonKind::Refused, code.to_string()),
        Meaning::Refused(Refusal::Unclear) => {
            Outcome::Transient(Reason::new(ReasonKind::Refused, code.to_string()))
        }
    }
}

fn rejected(kind: ReasonKind, detail: String) -> Outcome {
    Outcome::Rejected(Reason::new(kind, detail))
}

/// A topic that is not there, and the remedy.
pub(super) fn unknown_topic(topic: &str) -> Unavailable {
    Unavailable::destination(format!(
        "topic {topic:?} does not exist: create it (outboxd does not, so that a mistyped name is \
         not filled unseen)"
    ))
}

/// A topic that is not permitted, and the remedy.
pub(super) fn denied(topic: &str) -> Unavailable {
    Unavailable::destination(format!(
        "not authorized for topic {topic:?}: grant outboxd's principal Write and Describe on it"
    ))
}

/// A topic of which a part cannot be written to.
pub(super) fn leaderless(topic: &str, partition: i32) -> Unavailable {
    Unavailable::destination(format!(
        "partition {partition} of topic {topic:?} has no leader: its brokers are down"
    ))
}

/// A topic that gave no answer while others did.
pub(super) fn silent_topic(topic: &str) -> Unavailable {
    Unavailable::destination(format!(
        "topic {topic:?} did not confirm in time while others did: see its partitions' leaders and \
         in-sync replicas (min.insync.replicas)"
    ))
}

/// A producer's fatal error, after which it is rebuilt.
pub(super) fn fatal(code: Code, text: &str) -> Unavailable {
    Unavailable::sink(match code {
        Code::ClusterAuthorizationFailed => format!(
            "{text}: brokers before 2.8 want IdempotentWrite on the cluster granted to outboxd's \
             principal"
        ),
        _ => format!("the Kafka producer failed and was rebuilt: {text}"),
    })
}

/// What a topic's metadata says against publishing to it.
pub(super) fn topic_problem(topic: &str, code: Code) -> Unavailable {
    match meaning(code) {
        Meaning::UnknownTopic => unknown_topic(topic),
        Meaning::Denied => denied(topic),
        _ => Unavailable::destination(format!("topic {topic:?}: {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Scope;

    fn message() -> Message {
        Message {
            id: "1".into(),
            destination: "orders".into(),
            key: None,
            event_type: "OrderPlaced".into(),
            content_type: "application/json".into(),
            headers: Vec::new(),
            payload: Some(b"{}".to_vec()),
            timestamp_ms: 0,
        }
    }

    #[test]
    fn only_answers_about_the_message_are_charged() {
        for code in [
            Code::AllBrokersDown,
            Code::BrokerTransportFailure,
            Code::MessageTimedOut,
            Code::PurgeQueue,
            Code::PurgeInflight,
            Code::GaplessGuarantee,
            Code::OutOfOrderSequenceNumber,
            Code::Authentication,
            Code::SaslAuthenticationFailed,
            Code::ClusterAuthorizationFailed,
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::RequestTimedOut,
            Code::KafkaStorageError,
            Code::Fatal,
        ] {
            let Outcome::Unavailable(unavailable) = alone(code, &message()) else {
                panic!("{code} is charged");
            };
            assert_eq!(unavailable.scope, Scope::Sink, "{code}");
        }
    }

    #[test]
    fn refusals_for_good_are_rejected_with_their_kind() {
        for (code, kind) in [
            (Code::MessageSizeTooLarge, ReasonKind::TooLarge),
            (Code::MessageBatchTooLarge, ReasonKind::TooLarge),
            (Code::InvalidRecord, ReasonKind::Invalid),
            (Code::InvalidTimestamp, ReasonKind::Invalid),
            (Code::InvalidTopic, ReasonKind::Invalid),
            (Code::PolicyViolation, ReasonKind::Refused),
        ] {
            let Outcome::Rejected(reason) = alone(code, &message()) else {
                panic!("{code} is not rejected");
            };
            assert_eq!(reason.kind, kind, "{code}");
        }
        assert!(matches!(
            alone(Code::Unknown, &message()),
            Outcome::Transient(_)
        ));
    }

    #[test]
    fn a_topic_at_fault_pauses_only_itself_and_names_the_remedy() {
        for (code, remedy) in [
            (Code::UnknownTopic, "create it"),
            (Code::UnknownTopicOrPartition, "create it"),
            (Code::TopicAuthorizationFailed, "Write and Describe"),
        ] {
            let Outcome::Unavailable(unavailable) = alone(code, &message()) else {
                panic!("{code} is charged");
            };
            assert_eq!(unavailable.scope, Scope::Destination);
            assert!(unavailable.detail.contains("\"orders\""));
            assert!(unavailable.detail.contains(remedy));
        }
    }
}
