//! Logs: readable on a terminal, JSON elsewhere; always on stderr, since stdout may be the sink.

use std::io::IsTerminal;

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::settings::Problems;

/// How to log.
#[derive(Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// text or json; by default text on a terminal and json elsewhere
    #[arg(long, env = "OUTBOXD_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// error, warn, info, debug or trace; or by module, as `info,outboxd::sink=debug`
    #[arg(
        long,
        env = "OUTBOXD_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log_level: String,
}

/// A validated [`LogArgs`].
pub struct LogConfig {
    json: bool,
    filter: EnvFilter,
}

impl LogArgs {
    /// Checks the values; what is wrong is noted in `problems`.
    pub fn validate(&self, problems: &mut Problems) -> Option<LogConfig> {
        let json = match self.log_format.as_deref() {
            None => !std::io::stderr().is_terminal(),
            Some(format) => {
                problems.choice("log-format", format, &[("text", false), ("json", true)])
            }
        };
        if !self.log_level.is_ascii() {
            // EnvFilter panics over some of it.
            problems.add(format!(
                "--log-level {:?} is not ASCII; write info, or info,outboxd::sink=debug",
                self.log_level
            ));
            return None;
        }
        // lapin logs returned messages with their payloads, and frames; what matters of it we say.
        match EnvFilter::try_new(format!("{},lapin=off", self.log_level)) {
            Ok(filter) => Some(LogConfig { json, filter }),
            Err(error) => {
                problems.add(format!(
                    "--log-level {:?}: {error}; write info, or info,outboxd::sink=debug",
                    self.log_level
                ));
                None
            }
        }
    }
}

impl LogConfig {
    /// Starts logging. Call it once.
    pub fn start(self) {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(self.filter)
            .with_writer(std::io::stderr);
        if self.json {
            builder.json().flatten_event(true).init();
        } else {
            builder.with_ansi(std::io::stderr().is_terminal()).init();
        }
    }
}
