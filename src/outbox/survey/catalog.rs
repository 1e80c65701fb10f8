//! Tables that are worth a look, with their columns, as the catalogs have them.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;

use crate::{
    mapping::propose::{ColumnSight, Sight, telling_names},
    outbox::{
        DbError, Names, Session,
        catalog::{IS_DRAWN, IS_UNIQUE},
        session::statement,
        table::get,
    },
};

/// More tables of such names nobody has.
const MOST: usize = 500;

/// Tables of people, without those that are part of another.
const TABLES: &str =
    "n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and c.relkind in ('r', 'p')
     and not c.relispartition and not exists (select from pg_inherits where inhrelid = c.oid)";

/// A table that is worth a look.
pub(super) struct Listed {
    pub(super) oid: i64,
    /// Whether this role may read it.
    pub(super) is_readable: bool,
    /// Its size, once that was asked for.
    pub(super) pages: i64,
    /// Rows that were ever inserted, as far as statistics tell.
    pub(super) inserted: i64,
    pub(super) sight: Sight,
}

impl Listed {
    pub(super) fn display(&self) -> String {
        format!("{}.{}", self.sight.schema, self.sight.table)
    }
}

/// Tables with a column of a telling name, or named like an outbox; or that one.
pub(super) async fn list(
    session: &mut Session,
    only: Option<&Names>,
) -> Result<Vec<Listed>, DbError> {
    let plain = |name: &str| format!("lower(regexp_replace({name}, '[^[:alnum:]]', '', 'g'))");
    let chosen = match only {
        Some(_) => "n.nspname = $2 and c.relname = $3".into(),
        // Partitions are their parent's.
        None => format!(
            "{TABLES} and $2 = $3 and ({name} like '%outbox%' or exists (
               select from pg_attribute p where p.attrelid = c.oid and p.attnum > 0 and not p.attisdropped and {column} = any($1)))",
            name = plain("c.relname"),
            column = plain("p.attname"),
        ),
    };
    let sql = format!(
        "select c.oid::bigint, n.nspname::text, c.relname::text,
                has_schema_privilege(n.oid, 'usage') and has_any_column_privilege(c.oid, 'select'),
                a.attname::text, format_type(a.atttypid, null), a.attnotnull, {IS_UNIQUE}, {IS_DRAWN},
                pg_get_expr(d.adbin, d.adrelid),
                array(select enumlabel::text from pg_enum where enumtypid = a.atttypid order by enumsortorder),
                array(select pg_get_expr(conbin, conrelid) from pg_constraint
                       where conrelid = c.oid and contype = 'c' and conkey = array[a.attnum])
           from (select c.* from pg_class c join pg_namespace n on n.oid = c.relnamespace where {chosen} order by c.oid limit {MOST}) c
           join pg_namespace n on n.oid = c.relnamespace
           join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
           left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum and a.attgenerated = ''
          order by c.oid, a.attnum"
    );
    let (schema, table) = only.map_or(("", ""), |names| (names.schema(), names.table()));
    let query = statement(sql)
        .bind(telling_names())
        .bind(schema)
        .bind(table);
    let mut tables: BTreeMap<i64, Listed> = BTreeMap::new();
    for row in &session.fetch("survey", query).await? {
        let oid = get(row, 0)?;
        let listed = tables.entry(oid).or_insert(Listed {
            oid,
            is_readable: get(row, 3)?,
            pages: 0,
            inserted: 0,
            sight: Sight {
                schema: get(row, 1)?,
                table: get(row, 2)?,
                columns: Vec::new(),
            },
        });
        listed.sight.columns.push(column(row)?);
    }
    Ok(tables.into_values().collect())
}

/// How many tables there are.
pub(super) async fn count(session: &mut Session) -> Result<i64, DbError> {
    let sql = format!(
        "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where {TABLES}"
    );
    get(&session.fetch_one("survey", statement(sql)).await?, 0)
}

fn column(row: &PgRow) -> Result<ColumnSight, DbError> {
    let default = get::<Option<String>>(row, 9)?;
    let labels = get::<Vec<String>>(row, 10)?;
    let checks = get::<Vec<String>>(row, 11)?;
    let in_checks = checks.iter().flat_map(|check| alternatives(check));
    Ok(ColumnSight {
        name: get(row, 4)?,
        sql_type: get(row, 5)?,
        is_not_null: get(row, 6)?,
        is_unique: get(row, 7)?,
        is_drawn: get(row, 8)?,
        default: default.as_deref().and_then(constant),
        allowed: labels.into_iter().chain(in_checks).collect(),
        seen: Vec::new(),
    })
}

/// The constant that a default is, if it is one: `'NEW'::text`, `0`.
fn constant(expression: &str) -> Option<String> {
    if expression.parse::<i64>().is_ok() {
        return Some(expression.into());
    }
    match &texts(expression)[..] {
        [text] if expression.starts_with('\'') => Some(text.clone()),
        _ => None,
    }
}

/// What a check allows, if it is one of several texts or numbers: `(status = ANY (ARRAY['NEW'::text, …]))`.
fn alternatives(check: &str) -> Vec<String> {
    let Some((_, list)) = check.split_once("ANY (") else {
        return Vec::new();
    };
    let texts = texts(list);
    if !texts.is_empty() || list.contains('\'') {
        return texts;
    }
    let numbers = list.split(|c: char| !c.is_ascii_digit() && c != '-');
    let numbers = numbers.filter(|number| number.parse::<i64>().is_ok());
    numbers.map(Into::into).collect()
}

/// The texts in quotes of an expression that PostgreSQL has written.
fn texts(expression: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = expression;
    while let Some((_, after)) = rest.split_once('\'') {
        let mut text = String::new();
        let mut remaining = after;
        loop {
            let Some((part, after)) = remaining.split_once('\'') else {
                return texts;
            };
            text.push_str(part);
            remaining = after;
            if !remaining.starts_with('\'') {
                break;
            }
            text.push('\'');
            remaining = &remaining[1..];
        }
        texts.push(text);
        rest = remaining;
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_allows_is_read_as_postgresql_writes_it() {
        for (check, expected) in [
            (
                "(status = ANY (ARRAY['NEW'::text, 'it''s'::text]))",
                &["NEW", "it's"][..],
            ),
            (
                "((status)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[]))",
                &["a", "b"],
            ),
            ("(state = ANY (ARRAY[0, 1]))", &["0", "1"]),
            ("((attempts >= 0) AND (attempts <= 5))", &[]),
            ("(status <> ''::text)", &[]),
        ] {
            assert_eq!(alternatives(check), expected, "{check}");
        }
    }

    #[test]
    fn defaults_are_constants_or_nothing() {
        for (expression, expected) in [
            ("'NEW'::character varying", Some("NEW")),
            ("0", Some("0")),
            ("now()", None),
            ("nextval('a_seq'::regclass)", None),
        ] {
            assert_eq!(constant(expression).as_deref(), expected, "{expression}");
        }
    }
}
