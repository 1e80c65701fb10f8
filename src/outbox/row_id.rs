//! What an id is made of, and how it is written in SQL.

use sqlx::postgres::PgRow;

use super::{error::DbError, table::get};
use crate::{event::RowId, template::quote_literal};

/// The types of ids, as the relay's own tables have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdType {
    Number,
    Uuid,
    Text,
}

impl IdType {
    pub(super) fn of(sql_type: &str) -> Option<Self> {
        Some(match sql_type {
            "bigint" | "integer" | "smallint" => Self::Number,
            "uuid" => Self::Uuid,
            "text" | "character varying" => Self::Text,
            _ => return None,
        })
    }

    pub(super) fn sql_type(self) -> &'static str {
        match self {
            Self::Number => "bigint",
            Self::Uuid => "uuid",
            Self::Text => "text",
        }
    }

    /// An id's column, as [`Self::read`] wants it.
    pub(super) fn readable(self, column: &str) -> String {
        match self {
            Self::Number => format!("{column}::bigint"),
            Self::Uuid | Self::Text => format!("{column}::text"),
        }
    }

    /// An id as a message has it; `None` where no row can have it.
    pub(super) fn parse_any(self, text: &str) -> Option<RowId> {
        let is_uuid = |text: &str| {
            text.len() == 36
                && text.char_indices().all(|(at, c)| match at {
                    8 | 13 | 18 | 23 => c == '-',
                    _ => c.is_ascii_hexdigit(),
                })
        };
        match self {
            Self::Number => text.parse().ok().map(RowId::Number),
            Self::Uuid => is_uuid(text).then(|| RowId::Text(text.into())),
            Self::Text => (!text.contains('\0')).then(|| RowId::Text(text.into())),
        }
    }

    /// An id as its text has it.
    pub(super) fn parse(self, text: String) -> RowId {
        match (self, text.parse()) {
            (Self::Number, Ok(number)) => RowId::Number(number),
            _ => RowId::Text(text),
        }
    }

    pub(super) fn read(self, row: &PgRow, index: usize) -> Result<RowId, DbError> {
        Ok(match self {
            Self::Number => RowId::Number(get(row, index)?),
            Self::Uuid | Self::Text => RowId::Text(get(row, index)?),
        })
    }

    /// A condition: the id lies above another, if there is one.
    pub(super) fn after(self, column: &str, id: Option<&RowId>) -> String {
        id.map_or("true".into(), |id| {
            format!("{column} > {}", self.literal(id))
        })
    }

    /// A hash of an id and another number.
    pub(super) fn hash(self, column: &str, seed: &str) -> String {
        let function = match self {
            Self::Number => "hashint8extended",
            Self::Uuid => "uuid_hash_extended",
            Self::Text => "hashtextextended",
        };
        format!("{function}({column}, {seed})")
    }

    pub(super) fn literal(self, id: &RowId) -> String {
        format!("{}::{}", quote_literal(&id.to_string()), self.sql_type())
    }

    pub(super) fn array<'a>(self, ids: impl Iterator<Item = &'a RowId>) -> String {
        let ids: Vec<String> = match self {
            Self::Number | Self::Uuid => ids.map(ToString::to_string).collect(),
            Self::Text => ids.map(|id| in_array(&id.to_string())).collect(),
        };
        let text = format!("{{{}}}", ids.join(","));
        format!("{}::{}[]", quote_literal(&text), self.sql_type())
    }
}

/// A text within an array's text.
fn in_array(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_their_type_wants_it() {
        let numbers = [RowId::Number(-1), RowId::Number(2)];
        assert_eq!(IdType::Number.array(numbers.iter()), "'{-1,2}'::bigint[]");
        let texts = ["a", "b\"c", r"d\e", "f'g", ""].map(|text| RowId::Text(text.into()));
        assert_eq!(
            IdType::Text.array(texts.iter()),
            r#"E'{"a","b\\"c","d\\\\e","f''g",""}'::text[]"#
        );
        assert_eq!(IdType::Text.literal(&texts[3]), "'f''g'::text");
    }
}
