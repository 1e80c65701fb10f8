//! Names of the tables.

use crate::template::quote_literal;

/// Longest table name that leaves room for the names derived from it (63 bytes in all).
const LONGEST_NAME: usize = 46;

/// Quotes an identifier.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names of the outbox table and of the relay's own tables beside it, in the same schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    schema: String,
    table: String,
}

impl Names {
    /// Parses `table` or `schema.table`; without a schema it is `public`.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (schema, table) = text.split_once('.').unwrap_or(("public", text));
        if schema.is_empty() || table.is_empty() || table.contains('.') {
            return Err("it is not a table's name; write it like outbox or sales.outbox".into());
        }
        if text.contains('\0') {
            return Err("it contains a NUL".into());
        }
        if table.len() > LONGEST_NAME || schema.len() > 63 {
            return Err(format!(
                "it is too long: {LONGEST_NAME} bytes at most, to leave room for `{table}_failures`"
            ));
        }
        Ok(Self {
            schema: schema.into(),
            table: table.into(),
        })
    }

    /// `"schema"."outbox_suffix"`: what belongs to the table.
    pub(super) fn qualified(&self, suffix: &str) -> String {
        self.in_schema(&format!("{}{suffix}", self.table))
    }

    /// `"schema"."outbox"`.
    pub fn outbox(&self) -> String {
        self.qualified("")
    }

    /// `"schema"."outbox_failures"`.
    pub fn failures(&self) -> String {
        self.qualified("_failures")
    }

    /// `"schema"."outbox_instances"`.
    pub fn instances(&self) -> String {
        self.qualified("_instances")
    }

    /// `"schema"."name"`: quoted, of what the outbox tables of a schema share.
    pub(super) fn in_schema(&self, name: &str) -> String {
        format!("{}.{}", self.quoted_schema(), quote_identifier(name))
    }

    /// `"outbox_pending"`: the quoted name, without schema, of what belongs to the table.
    pub(super) fn beside(&self, suffix: &str) -> String {
        quote_identifier(&format!("{}{suffix}", self.table))
    }

    /// `"schema"`.
    pub fn quoted_schema(&self) -> String {
        quote_identifier(&self.schema)
    }

    /// The schema's plain name.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The table's plain name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// `schema.outbox`, unquoted: for people, and the payload of NOTIFY.
    pub fn display(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The statement that gives the outbox's rows an order.
    pub(super) fn numbering(&self, column: &str) -> String {
        format!(
            "alter table {} add column {} bigint generated always as identity unique",
            self.outbox(),
            quote_identifier(column)
        )
    }

    /// `to_regclass('…')` of a quoted name, as SQL.
    pub fn regclass(&self) -> String {
        format!("to_regclass({})", quote_literal(&self.outbox()))
    }
}
