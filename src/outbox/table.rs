//! The one description of the outbox table that every statement is built from: SQL expressions over a row
//! called `o`, as the mapping and the columns' types have it.

use sqlx::Row;

use super::{
    catalog::{Column, Found},
    error::DbError,
    expressions::{
        destination, event_id, further_headers, headers, lane, of_row, pending, set_sql, time_sql,
    },
    names::{Names, quote_identifier},
    row_id::IdType,
    session::Session,
};
use crate::{mapping::Mapping, template::Template};

/// The number of lanes. It is in the pending index: part of the on-disk format.
pub const LANES: usize = 64;

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
    /// The content type where neither the row's headers nor the mapping name one.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Bytes => "application/octet-stream",
        }
    }

    fn of(sql_type: &str) -> Option<Self> {
        Some(match sql_type {
            "jsonb" | "json" => Self::Json,
            "text" | "character varying" => Self::Text,
            "bytea" => Self::Bytes,
            _ => return None,
        })
    }
}

/// What tells the order of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// A unique number that each INSERT draws from a sequence. Floors ([`super::floors`]) rest on that.
    Numbered(String),
    /// These columns, with their types; the last is the id. Anything may come to be visible below what
    /// has been seen: there are no floors.
    Ranked(Vec<(String, String)>),
}

/// The table as it is in the database now. Looked up by each new connection, since the schema may
/// change while the relay runs.
#[derive(Debug, Clone)]
pub struct Table {
    /// Names of this table and its companions.
    pub names: Names,
    /// What it is made of.
    pub(super) found: Found,
    /// What the payload is.
    pub payload: PayloadType,
    /// What ids are made of.
    pub(super) id: IdType,
    pub(super) order: Order,
    /// The id: `o."id"`.
    pub(super) id_column: String,
    /// A row that nobody has published yet.
    pub(super) pending: String,
    /// The key, of type text; NULL has no order.
    pub(super) key: String,
    /// The stable id, of type text.
    pub(super) event_id: String,
    /// The lane of a row. The pending index is over this very expression.
    pub(super) lane: String,
    /// The destination of a row, of type text.
    pub(super) destination: String,
    /// What happened, of type text.
    pub(super) event_type: String,
    /// Headers as JSON text; where there are further ones, these in a line of their own at the end.
    pub(super) headers: String,
    pub(super) has_further_headers: bool,
    /// When it happened, a timestamptz.
    pub(super) created_at: String,
    /// The payload column's plain name.
    pub(super) payload_name: String,
    /// What is set in a published row, as SQL; `None`: it is deleted.
    pub(super) set: Option<String>,
}

impl Table {
    /// Looks at the table.
    ///
    /// # Errors
    /// A [`DbError`] of the schema's kind that names the missing table or columns, or types that cannot
    /// be worked with.
    pub async fn describe(
        session: &mut Session,
        names: &Names,
        mapping: &Mapping,
    ) -> Result<Self, DbError> {
        let found = Found::look(session, names, mapping).await?;
        Self::of(found, names, mapping)
    }

    /// What was found, by the mapping.
    ///
    /// # Errors
    /// As [`Self::describe`].
    pub(super) fn of(found: Found, names: &Names, mapping: &Mapping) -> Result<Self, DbError> {
        let missing = found.missing(names, mapping);
        if !missing.is_empty() {
            return Err(DbError::table(missing.join("\n")));
        }
        let column = |name: &str| found.column(name);
        let id = column(&mapping.id).and_then(|id| IdType::of(&id.sql_type));
        let payload = column(&mapping.payload).and_then(|it| PayloadType::of(&it.sql_type));
        let (Some(id), Some(payload)) = (id, payload) else {
            return Err(DbError::table(found.wrong_types(names, mapping).join("\n")));
        };
        let value = |value: &Option<Template>| value.as_ref().map(|value| value.to_sql(of_row));
        let id_column = of_row(&mapping.id);
        let time = mapping.time.as_deref().and_then(column);
        Ok(Self {
            names: names.clone(),
            payload,
            id,
            order: order(&found, mapping),
            pending: pending(mapping, of_row),
            lane: lane(mapping, of_row),
            key: value(&mapping.key).unwrap_or_else(|| "null::text".into()),
            event_id: event_id(&found, mapping),
            destination: destination(mapping),
            event_type: value(&mapping.event_type).unwrap_or_else(|| "null::text".into()),
            headers: headers(mapping),
            has_further_headers: further_headers(mapping).is_some(),
            created_at: time.map_or_else(|| "clock_timestamp()".into(), time_sql),
            payload_name: mapping.payload.clone(),
            set: set_sql(&mapping.done),
            id_column,
            found,
        })
    }

    /// The payload as it is sent: text or bytea.
    pub fn payload_sql(&self) -> String {
        let column = of_row(&self.payload_name);
        match self.payload {
            PayloadType::Bytes => column,
            PayloadType::Json | PayloadType::Text => format!("{column}::text"),
        }
    }

    /// What rows are ordered by.
    pub(super) fn order_by(&self) -> String {
        self.order_columns().join(", ")
    }

    fn order_columns(&self) -> Vec<&str> {
        match &self.order {
            Order::Numbered(column) => vec![column],
            Order::Ranked(columns) => columns.iter().map(|(column, _)| column.as_str()).collect(),
        }
    }

    /// A condition: the row lies above `u.floor`.
    pub(super) fn above_floor(&self) -> String {
        match &self.order {
            Order::Numbered(column) => format!(" and {column} > u.floor"),
            Order::Ranked(_) => String::new(),
        }
    }

    /// A condition: the row `o` does not lie above `u.floor`.
    pub(super) fn passed_sql(&self) -> String {
        match &self.order {
            Order::Numbered(column) => format!("{column} <= u.floor"),
            Order::Ranked(_) => "false".into(),
        }
    }

    /// Whether rows may come to be seen before others that are older.
    pub(super) fn is_ranked(&self) -> bool {
        matches!(self.order, Order::Ranked(_))
    }

    /// Whether the order is that of ids.
    pub(super) fn is_ordered_by_id(&self) -> bool {
        matches!(&self.order, Order::Numbered(column) if *column == self.id_column)
    }

    /// A number that tells which of several rows comes first, where one does.
    pub(super) fn number_sql(&self) -> Option<String> {
        match &self.order {
            Order::Numbered(column) => Some(format!("{column}::bigint")),
            Order::Ranked(columns) => match columns.first()? {
                (column, sql_type) if sql_type.starts_with("timestamp") => Some(format!(
                    "case when isfinite({column}) then (least(extract(epoch from {column}), 9e12) * 1000000)::bigint else 0 end"
                )),
                (column, sql_type) if is_integer(sql_type) => Some(format!("{column}::bigint")),
                _ => None,
            },
        }
    }

    /// Whether the failure `f` holds the key of the row `o` in the lane `u.lane`. By the key's hash
    /// first: keys may be longer than an index entry.
    pub fn held_sql(&self) -> String {
        format!(
            "f.holds and f.lane = u.lane and hashtextextended(f.key, 0) = hashtextextended({key}, 0) \
             and f.key = {key} and f.destination = {destination}",
            key = self.key,
            destination = self.destination,
        )
    }

    /// Whether the failure `f` is that of the row `o`.
    pub(super) fn is_of_failure(&self) -> String {
        format!(
            "{} = f.id and {} = f.event_id",
            self.id_column, self.event_id
        )
    }

    /// The two-part advisory lock of a lane, as SQL arguments.
    pub fn lock_sql(&self, lane: &str) -> String {
        // The oid's bits as an int4: oids above 2^31 become negative, still one namespace each.
        format!("{}, {lane}", self.found.oid.cast_signed())
    }

    /// The statement that makes the index by which claims find their rows, and lets writers go on.
    pub(super) fn pending_index(&self, mapping: &Mapping) -> String {
        format!(
            "create index concurrently {}",
            self.pending_index_parts(mapping)
        )
    }

    /// What that index is called, on what and of what it is.
    pub(super) fn pending_index_parts(&self, mapping: &Mapping) -> String {
        // There is no row `o` in an index.
        let columns = self.order_columns().into_iter();
        let columns = columns.map(|column| column.strip_prefix("o.").unwrap_or(column));
        let order = columns.collect::<Vec<_>>().join(", ");
        format!(
            "{} on {} ({}, {order}) where {}",
            self.names.beside("_pending"),
            self.names.outbox(),
            lane(mapping, quote_identifier),
            pending(mapping, quote_identifier),
        )
    }
}

pub(super) fn is_integer(sql_type: &str) -> bool {
    matches!(sql_type, "bigint" | "integer" | "smallint")
}

/// The column that orders rows, if any does.
pub(super) fn order_column<'a>(found: &'a Found, mapping: &Mapping) -> Option<&'a Column> {
    match &mapping.order {
        Some(name) => found.column(name),
        None => found
            .column(&mapping.id)
            .filter(|id| is_integer(&id.sql_type)),
    }
}

fn order(found: &Found, mapping: &Mapping) -> Order {
    let by = order_column(found, mapping);
    if let Some(column) = by {
        let is_numbered = is_integer(&column.sql_type) && column.is_unique && column.is_drawn;
        if mapping.is_own() || is_numbered {
            return Order::Numbered(of_row(&column.name));
        }
    }
    let id = found.column(&mapping.id);
    let by = by.filter(|column| column.name != mapping.id);
    let columns = by.into_iter().chain(id);
    Order::Ranked(
        columns
            .map(|column| (of_row(&column.name), column.full_type.clone()))
            .collect(),
    )
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
