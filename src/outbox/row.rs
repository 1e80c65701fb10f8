//! A row of the outbox, decoded: the one place that knows the order of the selected columns.

use sqlx::{Row, ValueRef, postgres::PgRow};

use super::{
    error::DbError,
    table::{Order, PayloadType, Table, get},
};
use crate::{
    event::{Event, Headers, Message, RowId, parse_headers},
    sink::{Reason, ReasonKind},
};

/// What PostgreSQL counts time from, in microseconds after 1970.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// How many columns are selected where rows are ordered by their ids; else one more comes in front of the
/// last, the size: a row's place.
const COLUMNS: usize = 10;
const PAYLOAD: usize = 6;
const PLACE: usize = 9;

/// How many columns are selected, where further ones begin.
pub(super) fn count(table: &Table) -> usize {
    COLUMNS + usize::from(!table.is_ordered_by_id())
}

/// What tells a row's place in the order, besides its id.
fn place(table: &Table) -> Option<String> {
    match &table.order {
        Order::Numbered(_) if table.is_ordered_by_id() => None,
        Order::Numbered(column) => Some(format!("{column}::bigint")),
        Order::Ranked(columns) => Some(
            columns
                .first()
                .map_or("null::text".into(), |(column, _)| format!("{column}::text")),
        ),
    }
}

/// The columns that are read of a row `o`.
pub(super) fn columns(table: &Table) -> String {
    format!(
        "{id} as id, {lane} as lane, {event_id} as event_id, {destination} as destination, {key} as key, \
         {event_type} as event_type, {payload} as payload, {headers} as headers, timestamptz_send({created_at}) as created_at{place}",
        id = table.id.readable(&table.id_column),
        lane = table.lane,
        event_id = table.event_id,
        destination = table.destination,
        key = table.key,
        event_type = table.event_type,
        payload = table.payload_sql(),
        headers = table.headers,
        created_at = table.created_at,
        place = place(table).map_or(String::new(), |place| format!(", {place} as place")),
    )
}

/// Bytes of a row `o` of [`columns`]. Writing a jsonb out is most of what reading costs: its size is taken
/// of what is sent, not of the column.
const SIZE: &str = "coalesce(octet_length(o.payload), 0) + coalesce(octet_length(o.headers), 0)";

/// Selects the rows of `from`, a subquery of [`columns`] named `o`, with their sizes.
pub(super) fn sized(from: &str) -> String {
    format!("select o.*, {SIZE} as size from {from}")
}

/// As [`sized`], as many rows as fit into `bytes`, the first in any case. A payload above `most` bytes is
/// left where it is. (Both are SQL.)
pub(super) fn sized_within(table: &Table, from: &str, bytes: &str, most: &str) -> String {
    sized_within_and(table, from, bytes, most, "")
}

/// The same with further columns at the end: `, name`.
pub(super) fn sized_within_and(
    table: &Table,
    from: &str,
    bytes: &str,
    most: &str,
    further: &str,
) -> String {
    let place = place(table).map_or("", |_| ", place");
    format!(
        "select id, lane, event_id, destination, key, event_type, case when size <= {most} then payload end, headers, created_at{place}, size{further} \
           from (select o.*, {SIZE} as size, sum({SIZE}) over (rows unbounded preceding) as total from {from}) o where total - size < {bytes}"
    )
}

/// Bytes of payload and headers.
pub(super) fn size(row: &PgRow, table: &Table) -> Result<usize, DbError> {
    let size: i32 = get(row, count(table) - 1)?;
    Ok(usize::try_from(size).unwrap_or_default())
}

/// Decodes a row. What makes it impossible to send is part of the event, not an error.
pub(super) fn event(
    row: &PgRow,
    table: &Table,
    now_us: i64,
    most: usize,
) -> Result<Event, DbError> {
    let text = |index| get::<Option<String>>(row, index);
    let size = size(row, table)?;
    let destination = text(3)?;
    let mut invalid = None;
    if destination.is_none() {
        let detail = "it has no destination: what is to tell it (--topic, or the mapping) is NULL";
        invalid = Some(Reason::new(ReasonKind::Invalid, detail));
    } else if size > most {
        let detail =
            format!("{size} bytes of payload and headers, above the sink's limit of {most}");
        invalid = Some(Reason::new(ReasonKind::TooLarge, detail));
    }
    let headers = headers(get(row, 7)?, table).unwrap_or_else(|reason| {
        invalid.get_or_insert(reason);
        Headers::default()
    });
    let content_type = headers
        .content_type
        .map_or(table.payload.content_type().into(), Into::into);
    let mut message = Message {
        id: text(2)?.unwrap_or_default(),
        destination: destination.unwrap_or_default(),
        key: text(4)?,
        event_type: text(5)?.unwrap_or_default(),
        content_type,
        headers: headers.others,
        payload: payload(row, table.payload)?,
        timestamp_ms: timestamp_ms(row, now_us)?,
    };
    if defect!(ChangeId) {
        message.id = format!("{:032x}", fastrand::u128(..));
    }
    if defect!(LoseHeaders) {
        message.headers.clear();
    }
    let lane = i32::try_from(get::<i64>(row, 1)?).unwrap_or_default();
    let id = table.id.read(row, 0)?;
    let position = match (&table.order, &id) {
        (Order::Ranked(_), _) => 0,
        (Order::Numbered(_), RowId::Number(number)) if table.is_ordered_by_id() => *number,
        (Order::Numbered(_), _) => get(row, PLACE)?,
    };
    Ok(Event {
        id,
        position,
        lane,
        attempts: None,
        message,
        invalid,
    })
}

/// Where a row stands among ranked ones.
pub(super) fn rank(row: &PgRow) -> Result<Option<String>, DbError> {
    get(row, PLACE)
}

/// Those of the row, over further ones that the mapping names.
fn headers(json: Option<&str>, table: &Table) -> Result<Headers, Reason> {
    match json.and_then(|json| json.rsplit_once('\n')) {
        Some((own, further)) if table.has_further_headers => {
            Ok(parse_headers(Some(own))?.over(parse_headers(Some(further))?))
        }
        _ => parse_headers(json),
    }
}

/// The payload's bytes. Text is itself in either format of the protocol, and need not be looked at.
fn payload(row: &PgRow, of: PayloadType) -> Result<Option<Vec<u8>>, DbError> {
    if of == PayloadType::Bytes {
        return get(row, PAYLOAD);
    }
    let value = row
        .try_get_raw(PAYLOAD)
        .map_err(|error| DbError::sql("decode", error))?;
    if value.is_null() {
        return Ok(None);
    }
    let bytes = value
        .as_bytes()
        .map_err(|error| DbError::sql("decode", sqlx::Error::Decode(error)))?;
    Ok(Some(bytes.to_vec()))
}

/// `created_at`, never in the future: one future timestamp fails the whole batch on Kafka.
fn timestamp_ms(row: &PgRow, now_us: i64) -> Result<i64, DbError> {
    let created_us = get::<Option<[u8; 8]>>(row, 8)?.map_or(now_us, |sent| {
        i64::from_be_bytes(sent).saturating_add(POSTGRES_EPOCH_US)
    });
    Ok(created_us.clamp(0, now_us) / 1000)
}
