//! What the database said no with, and how to mend it.

use std::time::Duration;

const READ_ONLY: &str = "the server is read-only (a standby?): point --database-url at the primary";

/// A failed database operation.
#[derive(Debug, thiserror::Error)]
#[error("{}{cause}", self.place())]
pub struct DbError {
    /// A short name of what was tried: `claim`, `settle`, `connect`. The metric's label.
    pub operation: &'static str,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{0}")]
    Sql(sqlx::Error),
    #[error("no answer within {}", humantime::format_duration(Duration::from_millis(u64::try_from(.0.as_millis()).unwrap_or(u64::MAX))))]
    Deadline(Duration),
    #[error("{0}")]
    Settings(String),
    #[error("{0}")]
    Table(String),
    #[error("{0}")]
    Privilege(String),
}

impl DbError {
    pub(super) fn sql(operation: &'static str, error: sqlx::Error) -> Self {
        Self {
            operation,
            cause: Cause::Sql(error),
        }
    }

    pub(super) fn deadline(operation: &'static str, waited: Duration) -> Self {
        Self {
            operation,
            cause: Cause::Deadline(waited),
        }
    }

    pub(super) fn settings(detail: String) -> Self {
        Self {
            operation: "connect",
            cause: Cause::Settings(detail),
        }
    }

    /// The table is not what it must be; `detail` says how and what to do.
    pub(super) fn table(detail: impl Into<String>) -> Self {
        Self {
            operation: "describe",
            cause: Cause::Table(detail.into()),
        }
    }

    /// A privilege is missing that no statement was refused for; `detail` says which and what to do.
    pub(super) fn privilege(detail: String) -> Self {
        Self {
            operation: "describe",
            cause: Cause::Privilege(detail),
        }
    }

    /// Where it happened; what is wrong with settings, tables and privileges says so itself.
    fn place(&self) -> String {
        match self.cause {
            Cause::Sql(_) | Cause::Deadline(_) => format!("database: {}: ", self.operation),
            Cause::Settings(_) | Cause::Table(_) | Cause::Privilege(_) => String::new(),
        }
    }

    /// The SQLSTATE, where the server gave one.
    pub fn code(&self) -> Option<String> {
        match &self.cause {
            Cause::Sql(sqlx::Error::Database(error)) => {
                error.code().map(std::borrow::Cow::into_owned)
            }
            _ => None,
        }
    }

    /// What the server said, where it answered with an error.
    pub(super) fn said(&self) -> Option<String> {
        match &self.cause {
            Cause::Sql(sqlx::Error::Database(error)) => Some(error.message().to_owned()),
            _ => None,
        }
    }

    /// Whether it answers the question, and others may be asked.
    pub(super) fn is_answer(&self) -> bool {
        match &self.cause {
            Cause::Sql(_) => self.said().is_some() && !self.is_unreachable(),
            Cause::Table(_) | Cause::Privilege(_) => true,
            Cause::Settings(_) | Cause::Deadline(_) => false,
        }
    }

    /// Whether the tables are not as they must be: wrong at start (exit 78), waited out later.
    pub fn is_schema(&self) -> bool {
        matches!(self.cause, Cause::Table(_))
            || matches!(self.code().as_deref(), Some("42P01" | "42703" | "3F000"))
    }

    /// Whether the settings themselves are wrong.
    pub fn is_settings(&self) -> bool {
        matches!(self.cause, Cause::Settings(_))
    }

    /// Whether a privilege is missing.
    pub fn is_privilege(&self) -> bool {
        matches!(self.cause, Cause::Privilege(_)) || self.code().as_deref() == Some("42501")
    }

    /// Whether a lock was waited for in vain.
    pub fn is_lock_timeout(&self) -> bool {
        self.code().as_deref() == Some("55P03")
    }

    /// Whether a statement took longer than it may.
    pub fn is_statement_timeout(&self) -> bool {
        self.code().as_deref() == Some("57014") || matches!(self.cause, Cause::Deadline(_))
    }

    /// Whether the server gave up waiting for a lock, or for the end of the statement.
    pub(super) fn is_impatience(&self) -> bool {
        self.is_lock_timeout() || self.code().as_deref() == Some("57014")
    }

    /// Whether the answer to the whole of the outage may be to wait for a server to come back.
    pub fn is_unreachable(&self) -> bool {
        match &self.cause {
            Cause::Sql(sqlx::Error::Database(_)) => {
                matches!(self.code().as_deref(), Some(code) if code.starts_with("57P") || code.starts_with("08") || code == "53300")
            }
            Cause::Deadline(_) | Cause::Sql(_) => true,
            Cause::Settings(_) | Cause::Table(_) | Cause::Privilege(_) => false,
        }
    }

    /// What to do about it, where that is known.
    pub fn remedy(&self) -> Option<&'static str> {
        Some(match self.code()?.as_str() {
            "42501" => "grant what is missing: `outboxd check` prints the GRANTs",
            "42P01" | "3F000" => {
                "create the tables with `outboxd migrate`, or name the right one with --table"
            }
            "42703" => "a column is missing: `outboxd check` says which",
            "25006" => READ_ONLY,
            // What a standby answers to `begin … read write`.
            "0A000" if self.operation == "begin" => READ_ONLY,
            "53300" => {
                "the server has no connections left: raise max_connections or lower --workers"
            }
            "53100" => {
                "the server's disk is full: nothing can be marked published until there is space"
            }
            "55P03" => "another session holds a lock on the table (DDL?): it is waited for",
            "28P01" | "28000" => "the server refused user or password of --database-url",
            "3D000" => "the database of --database-url does not exist",
            "57014" => "a statement took longer than --statement-timeout",
            "25P03" => "a transaction stood idle for too long and the server ended it",
            _ => return None,
        })
    }
}
