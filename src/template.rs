//! Templates, as of `--topic` and in mappings: literal text with `{column}` in it, such as
//! `events.{aggregate_type}`.
//!
//! One is never filled in here: it compiles to an SQL expression, so that the database can also
//! exclude the rows of a paused destination.

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Column(String),
}

impl Template {
    /// Parses a template. `{{` and `}}` stand for the braces themselves.
    ///
    /// # Errors
    /// In words, when it is empty, or a brace is left open, closed without being opened, or empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("it contains a NUL".into());
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if after.starts_with(brace) {
                literal.push_str(brace);
                rest = &after[1..];
                continue;
            }
            if brace == "}" {
                return Err("`}` closes nothing; write `}}` for the brace itself".into());
            }
            let Some((column, after)) = after.split_once('}') else {
                return Err(format!("`{{{after}` is never closed"));
            };
            if column.is_empty() {
                return Err("`{}` names no column".into());
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Column(column.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        if parts.is_empty() {
            return Err("it is empty".into());
        }
        Ok(Self(parts))
    }

    /// That column's text.
    pub fn column(name: &str) -> Self {
        Self(vec![Part::Column(name.into())])
    }

    /// That text.
    pub fn constant(text: &str) -> Self {
        Self(vec![Part::Literal(text.into())])
    }

    /// The columns it reads.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Column(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// The SQL expression, of type text; NULL when a column is.
    /// `column` writes a column.
    pub fn to_sql(&self, column: impl Fn(&str) -> String) -> String {
        let parts: Vec<_> = self
            .0
            .iter()
            .map(|part| match part {
                Part::Literal(text) => format!("{}::text", quote_literal(text)),
                Part::Column(name) => format!("{}::text", column(name)),
            })
            .collect();
        format!("({})", parts.join(" || "))
    }
}

/// Quotes text as an SQL literal, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    if escaped.contains('\\') {
        format!("E'{escaped}'")
    } else {
        format!("'{escaped}'")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outbox::quote_identifier;

    fn of_row(column: &str) -> String {
        format!("o.{}", quote_identifier(column))
    }

    /// What is left of an SQL expression once its literals and identifiers are taken out.
    fn outside_quotes(sql: &str) -> String {
        let (mut rest, mut outside) = (sql, String::new());
        while let Some(at) = rest.find(['\'', '"']) {
            let escapes = rest[..at].ends_with('E');
            outside.push_str(rest[..at].trim_end_matches('E'));
            let quote = rest.as_bytes()[at] as char;
            let mut inside = rest[at + 1..].char_indices();
            let end = loop {
                let (place, char) = inside.next().expect("a quote is closed");
                if char == '\\' && escapes {
                    inside.next();
                } else if char == quote && !rest[at + 2 + place..].starts_with(quote) {
                    break at + 2 + place;
                } else if char == quote {
                    inside.next();
                }
            };
            rest = &rest[end..];
        }
        outside + rest
    }

    proptest! {
        #[test]
        fn no_template_becomes_sql(text in r#"[\PC'"\\{}\x00;$-]{0,40}"#) {
            if let Ok(template) = Template::parse(&text) {
                let outside = outside_quotes(&template.to_sql(of_row));
                let ours = outside.replace("o.", "").replace("::text", "").replace(" || ", "");
                prop_assert_eq!(ours, "()");
            }
        }
    }

    #[test]
    fn text_and_columns_become_a_concatenation() {
        let template = Template::parse("events.{aggregate_type}.v1").unwrap();
        assert_eq!(
            template.to_sql(of_row),
            r#"('events.'::text || o."aggregate_type"::text || '.v1'::text)"#
        );
        assert_eq!(template.columns().collect::<Vec<_>>(), ["aggregate_type"]);
    }

    #[test]
    fn quotes_backslashes_and_doubled_braces_stay_text() {
        let template = Template::parse(r#"a'b\c{{d}}{e"f}"#).unwrap();
        assert_eq!(
            template.to_sql(of_row),
            r#"(E'a''b\\c{d}'::text || o."e""f"::text)"#
        );
    }

    #[test]
    fn broken_templates_say_what_is_wrong() {
        for (text, part) in [
            ("{a", "never closed"),
            ("a}", "closes nothing"),
            ("{}", "no column"),
            ("", "empty"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
