//! The settings that choose a message's form.

use clap::Args;

use super::{CloudEvents, Mode, source};
use crate::settings::Problems;

/// What an event becomes on the wire.
#[derive(Clone, Args)]
#[command(next_help_heading = "Message")]
pub struct FormatArgs {
    /// Form of a message: plain, cloudevents-binary or cloudevents-structured
    ///
    /// A CloudEvent has its attributes in headers (binary; the payload stays as it is, and NULL is
    /// a tombstone on Kafka) or in one JSON document with the payload (structured). `outboxd peek` shows
    /// how it looks. It needs --cloudevents-source.
    #[arg(
        long,
        env = "OUTBOXD_MESSAGE_FORMAT",
        value_name = "FORMAT",
        default_value = "plain"
    )]
    pub message_format: String,

    /// Attribute `source` of CloudEvents: a URI reference such as `https://example.com/orders`
    ///
    /// Names what these events come from. Consumers take events of the same source and id for copies
    /// of one: keep it when the relay moves, and give it to no other outbox that may use the same ids.
    #[arg(long, env = "OUTBOXD_CLOUDEVENTS_SOURCE", value_name = "URI-REFERENCE")]
    pub cloudevents_source: Option<String>,
}

impl FormatArgs {
    /// Checks the values; what is wrong is noted in `problems`. `None` is the plain form. `has_types`:
    /// whether events have a type at all.
    pub fn validate(
        self,
        problems: &mut Problems,
        prefix: &'static str,
        has_types: bool,
    ) -> Option<CloudEvents> {
        let before = problems.list().len();
        let mode = problems.choice(
            "message-format",
            &self.message_format,
            &[
                ("plain", None),
                ("cloudevents-binary", Some(Mode::Binary)),
                ("cloudevents-structured", Some(Mode::Structured)),
            ],
        );
        if problems.list().len() > before {
            return None;
        }
        match (mode, self.cloudevents_source) {
            (None, None) => None,
            (None, Some(_)) => {
                problems.add("--cloudevents-source does nothing with --message-format plain: leave it out, or set cloudevents-binary or cloudevents-structured");
                None
            }
            (Some(_), None) => {
                problems.add(format!(
                    "--message-format {} needs --cloudevents-source: say what the events come from, like https://example.com/orders",
                    self.message_format
                ));
                None
            }
            (Some(mode), Some(source)) => {
                if !has_types {
                    problems.add(format!(
                        "--message-format {}: every CloudEvent has a type, and the mapping says none: add `type`",
                        self.message_format
                    ));
                }
                if let Some(problem) = source::problem(&source) {
                    problems.add(format!(
                        "--cloudevents-source is not a URI reference: {problem}; write it like https://example.com/orders or /orders"
                    ));
                }
                Some(CloudEvents {
                    mode,
                    source,
                    prefix,
                })
            }
        }
    }
}
