//! SQL expressions over a row called `o`, as a mapping has them. None of them fails, whatever is in a row.

use super::{
    catalog::{Column, Found},
    names::quote_identifier,
    table::{LANES, is_integer},
};
use crate::{
    mapping::{Done, HeaderColumns, Mapping, Setting},
    template::quote_literal,
};

/// That column of a row `o`.
pub(super) fn of_row(column: &str) -> String {
    format!("o.{}", quote_identifier(column))
}

pub(super) fn lane(mapping: &Mapping, column: impl Fn(&str) -> String) -> String {
    let id = format!("{}::text", column(&mapping.id));
    let of = match &mapping.key {
        Some(key) => format!("coalesce({}, {id})", key.to_sql(column)),
        None => id,
    };
    format!("(hashtextextended({of}, 0) & {})", LANES - 1)
}

pub(super) fn pending(mapping: &Mapping, column: impl Fn(&str) -> String) -> String {
    let condition = mapping.pending.as_ref();
    condition.map_or("true".into(), |condition| {
        format!("({})", condition.to_sql(column))
    })
}

/// Where the value is NULL it is the id: every event has one.
pub(super) fn event_id(found: &Found, mapping: &Mapping) -> String {
    let id = format!("{}::text", of_row(&mapping.id));
    let Some(value) = &mapping.event_id else {
        return id;
    };
    let may_be_null = |name: &str| found.column(name).is_none_or(|column| !column.is_not_null);
    let sql = value.to_sql(of_row);
    if mapping.is_own() || !value.columns().any(may_be_null) {
        return sql;
    }
    format!("coalesce({sql}, {id})")
}

pub(super) fn destination(mapping: &Mapping) -> String {
    let values = mapping.destination.iter().map(|value| value.to_sql(of_row));
    match &values.collect::<Vec<_>>()[..] {
        [one] => one.clone(),
        several => format!("coalesce({})", several.join(", ")),
    }
}

pub(super) fn headers(mapping: &Mapping) -> String {
    let own = match &mapping.headers {
        Some(HeaderColumns::Json(column)) => format!("{}::text", of_row(column)),
        Some(HeaderColumns::Arrays(names, values)) => format!(
            "(select json_object_agg(name, value) from unnest({}, {}) h (name, value) where name is not null)::text",
            of_row(names),
            of_row(values)
        ),
        None => "null::text".into(),
    };
    further_headers(mapping).map_or(own.clone(), |further| {
        format!("coalesce({own}, '{{}}') || E'\\n' || {further}")
    })
}

/// In one line, without those that are NULL.
pub(super) fn further_headers(mapping: &Mapping) -> Option<String> {
    let content_type = mapping
        .content_type
        .iter()
        .map(|value| ("content-type", value));
    let further = mapping.further_headers.iter();
    let members: Vec<_> = content_type
        .chain(further.map(|(name, value)| (name.as_str(), value)))
        .map(|(name, value)| format!("{}, {}", quote_literal(name), value.to_sql(of_row)))
        .collect();
    let object = format!(
        "json_strip_nulls(json_build_object({}))::text",
        members.join(", ")
    );
    (!members.is_empty()).then_some(object)
}

pub(super) fn time_sql(column: &Column) -> String {
    let time = of_row(&column.name);
    if is_integer(&column.sql_type) {
        // What no timestamp can hold is no time.
        return format!(
            "to_timestamp(case when {time} between 0 and 253402300799999 then {time} end / 1000.0)"
        );
    }
    time
}

pub(super) fn set_sql(done: &Done) -> Option<String> {
    let Done::Set(settings) = done else {
        return None;
    };
    let settings = settings.iter().map(|(column, setting)| {
        let value = match setting {
            Setting::Now => "statement_timestamp()".into(),
            Setting::Constant(text) => quote_literal(text),
        };
        format!("{} = {value}", quote_identifier(column))
    });
    Some(settings.collect::<Vec<_>>().join(", "))
}
