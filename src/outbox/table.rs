//! The one description of the outbox table that every statement is built from: names, and SQL
//! expressions over a row called `o`.

use sqlx::Row;

use super::{
    error::DbError,
    session::{Session, statement},
};
use crate::template::{Template, quote_literal};

/// The number of lanes. It is in the pending index: part of the on-disk format.
pub const LANES: usize = 64;

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

    /// `to_regclass('…')` of a quoted name, as SQL.
    pub fn regclass(&self) -> String {
        format!("to_regclass({})", quote_literal(&self.outbox()))
    }
}

/// What the payload column is made of; the relay looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadType {
    /// `jsonb` or `json`, sent as its text.
    Json,
    /// `text` or `varchar`.
    Text,
    /// `bytea`, sent as it is.
    Bytes,
}

impl PayloadType {
    /// The content type where the row's headers name none.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Bytes => "application/octet-stream",
        }
    }
}

/// The table as it is in the database now. Looked up by each new connection, since the schema may
/// change while the relay runs.
#[derive(Debug, Clone)]
pub struct Table {
    /// Names of this table and its companions.
    pub names: Names,
    /// The table's oid: the namespace of its lane locks.
    pub oid: u32,
    /// What the payload is.
    pub payload: PayloadType,
    /// The destination of a row, of type text.
    pub destination: String,
    /// Tells this table, as it is, from another of its name: see [`stamp_sql`].
    pub stamp: String,
}

/// What changes when a table is swapped for another, rewritten, emptied by TRUNCATE, or gets another
/// payload column: what was learnt of it then, its floors too, holds no more.
pub(super) fn stamp_sql(names: &Names) -> String {
    format!(
        "(select format('%s/%s/%s', attrelid, pg_relation_filenode(attrelid), atttypid) from pg_attribute \
           where attrelid = {}::oid and attname = 'payload')",
        names.regclass()
    )
}

/// Every column the relay reads or writes.
pub const COLUMNS: [&str; 9] = [
    "id",
    "event_id",
    "aggregate_id",
    "event_type",
    "topic",
    "payload",
    "headers",
    "created_at",
    "published_at",
];

impl Table {
    /// A row that nobody has published yet.
    pub const PENDING: &'static str = "o.published_at is null";
    /// The key, of type text; NULL has no order.
    pub const KEY: &'static str = "o.aggregate_id::text";
    /// The stable id, of type text.
    pub const EVENT_ID: &'static str = "o.event_id::text";
    /// The lane of a row. The pending index is over this very expression.
    pub const LANE: &'static str =
        "(hashtextextended(coalesce(o.aggregate_id, o.id::text), 0) & 63)";

    /// Looks at the table.
    ///
    /// # Errors
    /// A [`DbError`] of the schema's kind that names the missing table or column, or the type that
    /// cannot be sent.
    pub async fn describe(
        session: &mut Session,
        names: &Names,
        topic: &Template,
    ) -> Result<Self, DbError> {
        let sql = format!(
            "select c.oid::bigint, coalesce(array_agg(a.attname::text) filter (where a.attname is not null), '{{}}'),
                    max(format_type(a.atttypid, null)) filter (where a.attname = 'payload'), {}
               from pg_class c
               left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
              where c.oid = {} group by c.oid",
            stamp_sql(names),
            names.regclass()
        );
        let rows = session.fetch("describe", statement(sql)).await?;
        let Some(row) = rows.first() else {
            return Err(DbError::table(format!(
                "there is no table {}: create it with `outboxd migrate`, or name the right one with --table",
                names.display()
            )));
        };
        let columns: Vec<String> = get(row, 1)?;
        let needed = COLUMNS.into_iter().chain(topic.columns());
        let missing: Vec<_> = needed
            .filter(|name| !columns.iter().any(|column| column == name))
            .collect();
        if !missing.is_empty() {
            return Err(DbError::table(format!(
                "{} has no column {}",
                names.display(),
                missing.join(", ")
            )));
        }
        let oid: i64 = get(row, 0)?;
        let oid =
            u32::try_from(oid).map_err(|_| DbError::table(format!("oid {oid} is out of range")))?;
        let payload_type: String = get(row, 2)?;
        let payload = match payload_type.as_str() {
            "jsonb" | "json" => PayloadType::Json,
            "text" | "character varying" => PayloadType::Text,
            "bytea" => PayloadType::Bytes,
            other => {
                return Err(DbError::table(format!(
                    "column payload of {} is of type {other}; it must be jsonb, json, text or bytea",
                    names.display()
                )));
            }
        };
        let destination = format!("coalesce(o.topic, {})", topic.to_sql("o"));
        Ok(Self {
            names: names.clone(),
            oid,
            payload,
            destination,
            stamp: get(row, 3)?,
        })
    }

    /// The payload as it is sent: text or bytea.
    pub fn payload_sql(&self) -> &'static str {
        match self.payload {
            PayloadType::Bytes => "o.payload",
            PayloadType::Json | PayloadType::Text => "o.payload::text",
        }
    }

    /// Whether the failure `f` holds the key of the row `o` in the lane `u.lane`. By the key's hash
    /// first: keys may be longer than an index entry.
    pub fn held_sql(&self) -> String {
        format!(
            "f.holds and f.lane = u.lane and hashtextextended(f.key, 0) = hashtextextended({key}, 0) \
             and f.key = {key} and f.destination = {destination}",
            key = Self::KEY,
            destination = self.destination,
        )
    }

    /// The two-part advisory lock of a lane, as SQL arguments.
    pub fn lock_sql(&self, lane: &str) -> String {
        // The oid's bits as an int4: oids above 2^31 become negative, still one namespace each.
        format!("{}, {lane}", self.oid.cast_signed())
    }
}

/// Numbers as the text of an SQL array.
pub(super) fn array(numbers: impl Iterator<Item = i64>) -> String {
    let numbers: Vec<_> = numbers.map(|number| number.to_string()).collect();
    format!("'{{{}}}'::bigint[]", numbers.join(","))
}

/// Reads a column, with the operation's name on failure.
pub(super) fn get<'r, T>(row: &'r sqlx::postgres::PgRow, index: usize) -> Result<T, DbError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index)
        .map_err(|error| DbError::sql("decode", error))
}
