//! Reading settings: from flags, environment and files, with every error reported at once.
//!
//! Each module owns its `clap::Args`, whose fields are text, and turns them into typed values with a
//! [`Problems`] to collect what is wrong. So a wrong value is never half of the truth: all are named
//! in one go, each with its flag, and the exit code tells a wrong value (78) from a wrong command
//! line (64).

use std::{fmt::Display, path::Path, str::FromStr, time::Duration};

use bytesize::ByteSize;
use secrecy::SecretString;

/// Longer than anyone means; beyond it, sums of times would overflow here or in PostgreSQL.
const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);
/// PostgreSQL's timeouts are milliseconds in 31 bits; a few seconds are added to some.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24 * 24);
/// More than anyone has; PostgreSQL counts in 63 bits.
const LARGEST_SIZE: ByteSize = ByteSize::tib(1);

/// What is wrong with the settings, in the order found.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes a problem; name the flag and the remedy.
    pub fn add(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    /// All of them.
    pub fn list(&self) -> &[String] {
        &self.0
    }

    /// Whether the settings can be used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parses a value, or notes what is wrong with it and gives the default.
    pub fn parse<T>(&mut self, flag: &str, value: &str) -> T
    where
        T: FromStr + Default,
        T::Err: Display,
    {
        value.parse().unwrap_or_else(|error| {
            self.add(format!("--{flag} {value:?}: {error}"));
            T::default()
        })
    }

    /// A duration such as `500ms` or `1m 30s`.
    pub fn duration(&mut self, flag: &str, value: &str) -> Duration {
        if value == "0" {
            return Duration::ZERO;
        }
        let duration = humantime::parse_duration(value).unwrap_or_else(|error| {
            self.add(format!(
                "--{flag} {value:?} is not a duration ({error}); write it like 500ms, 30s or 24h"
            ));
            Duration::ZERO
        });
        self.at_most(flag, duration, LONGEST, "100 years")
    }

    fn at_most(
        &mut self,
        flag: &str,
        duration: Duration,
        most: Duration,
        called: &str,
    ) -> Duration {
        if duration > most {
            self.add(format!("--{flag} must not be longer than {called}"));
            return most;
        }
        duration
    }

    /// A duration that may not be zero.
    pub fn positive_duration(&mut self, flag: &str, value: &str) -> Duration {
        let before = self.0.len();
        let duration = self.duration(flag, value);
        if duration.is_zero() && self.0.len() == before {
            self.add(format!("--{flag} must be longer than 0"));
        }
        duration
    }

    /// A positive duration that PostgreSQL takes as a timeout.
    pub fn timeout(&mut self, flag: &str, value: &str) -> Duration {
        let duration = self.positive_duration(flag, value);
        self.at_most(flag, duration, LONGEST_TIMEOUT, "24 days")
    }

    /// A size in bytes such as `4MiB`.
    pub fn size(&mut self, flag: &str, value: &str) -> usize {
        match value.parse::<ByteSize>() {
            Ok(size) if size > LARGEST_SIZE => {
                self.add(format!("--{flag} {value:?} is more than {LARGEST_SIZE}"));
                0
            }
            Ok(size) if size.as_u64() > 0 => usize::try_from(size.as_u64()).unwrap_or(usize::MAX),
            Ok(_) => {
                self.add(format!("--{flag} must be larger than 0"));
                0
            }
            Err(_) => {
                self.add(format!(
                    "--{flag} {value:?} is not a size; write it like 512KiB or 4MiB"
                ));
                0
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, flag: &str, value: &str, choices: &[(&str, T)]) -> T {
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == value) {
            return *choice;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.add(format!(
            "--{flag} {value:?} is none of {}",
            names.join(", ")
        ));
        choices[0].1
    }

    /// A whole number of at least `least`.
    pub fn number(&mut self, flag: &str, value: &str, least: u32) -> u32 {
        match value.parse::<u32>() {
            Ok(number) if number >= least => number,
            _ => {
                self.add(format!(
                    "--{flag} {value:?} is not a whole number of at least {least}"
                ));
                least
            }
        }
    }

    /// A secret, given in place or (better: it stays out of `ps` and `env`) in a file.
    pub fn secret(
        &mut self,
        flag: &str,
        value: Option<&str>,
        file: Option<&Path>,
    ) -> Option<SecretString> {
        match (value, file) {
            (Some(_), Some(_)) => {
                self.add(format!("--{flag} and --{flag}-file are both set; keep one"));
                None
            }
            (Some(value), None) => Some(value.into()),
            // The secret itself, in the wrong place: not to be repeated.
            (None, Some(file)) if file.to_string_lossy().contains("://") => {
                self.add(format!(
                    "--{flag}-file takes the name of a file; a URL goes to --{flag}"
                ));
                None
            }
            (None, Some(file)) => match std::fs::read_to_string(file) {
                Ok(text) => Some(text.trim_end_matches(['\r', '\n']).into()),
                Err(error) => {
                    self.add(format!("--{flag}-file {}: {error}", file.display()));
                    None
                }
            },
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_any_memory_are_problems() {
        let mut problems = Problems::default();
        assert_eq!(problems.size("batch-bytes", "4MiB"), 4 << 20);
        assert!(problems.is_empty());
        for size in ["2TiB", "18446744073709551615", "0"] {
            problems.size("batch-bytes", size);
        }
        assert_eq!(problems.list().len(), 3, "{problems:?}");
    }

    #[test]
    fn durations_that_could_only_overflow_are_problems() {
        let mut problems = Problems::default();
        assert_eq!(
            problems.duration("retention", "90days").as_secs(),
            7_776_000
        );
        assert_eq!(problems.timeout("lock-timeout", "24days"), LONGEST_TIMEOUT);
        assert!(problems.is_empty());
        problems.duration("retention", "10000years");
        problems.duration("poll-interval", "18446744073709551615s");
        problems.timeout("statement-timeout", "25days");
        assert_eq!(problems.list().len(), 3, "{problems:?}");
    }
}
