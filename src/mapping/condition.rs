//! Which rows are pending: a condition over columns and constants.
//!
//! # Design notes
//! * A mapping's condition becomes part of every statement and of an index. So it is read word by word and
//!   written anew: whatever is no column, constant or known word is refused. Nothing can be smuggled in,
//!   and as there are no functions it does not change with time.
//! * Whether the words make sense PostgreSQL says (`outbox::verify`).

use crate::template::quote_literal;

/// A parsed condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Column(String),
    Text(String),
    /// Written as it is: a number, an operator, a word that PostgreSQL knows.
    Plain(String),
}

/// Texts that a timestamp would take for a time that changes.
const TIMES: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
pub(super) const WORDS: [&str; 12] = [
    "and", "or", "not", "is", "null", "true", "false", "in", "like", "between", "distinct", "from",
];
/// The longer first.
const OPERATORS: [&str; 10] = ["<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ","];

impl Condition {
    /// Parses a condition such as `status = 'PENDING' and deleted_at is null`.
    ///
    /// # Errors
    /// In words, with what was found in place of a column, a constant or a word.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        let mut open = 0_i32;
        while !rest.is_empty() {
            let (token, after) = next(rest)?;
            rest = after.trim_start();
            match &token {
                Token::Column(name) if rest.starts_with('(') => {
                    return Err(format!(
                        "{name}(…) is a function: columns are compared with constants only"
                    ));
                }
                Token::Text(text) if is_a_time(text) => {
                    return Err(format!("'{text}' changes with time"));
                }
                Token::Plain(word) if word == "(" => open += 1,
                Token::Plain(word) if word == ")" => open -= 1,
                _ => {}
            }
            if open < 0 {
                return Err("`)` closes nothing".into());
            }
            tokens.push(token);
        }
        if open > 0 {
            return Err("`(` is never closed".into());
        }
        if tokens.is_empty() {
            return Err("it is empty; leave it out where every row is pending".into());
        }
        Ok(Self(tokens))
    }

    /// The columns in it.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|token| match token {
            Token::Column(name) => Some(name.as_str()),
            Token::Text(_) | Token::Plain(_) => None,
        })
    }

    /// The constants in it.
    pub fn constants(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|token| match token {
            Token::Text(text) => Some(text.as_str()),
            Token::Plain(word) => word.parse::<f64>().is_ok().then_some(word.as_str()),
            Token::Column(_) => None,
        })
    }

    /// The SQL expression; `column` writes a column.
    pub fn to_sql(&self, column: impl Fn(&str) -> String) -> String {
        let words = self.0.iter().map(|token| match token {
            Token::Column(name) => column(name),
            Token::Text(text) => quote_literal(text),
            Token::Plain(word) => word.clone(),
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

fn is_a_time(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    TIMES.iter().any(|time| first.eq_ignore_ascii_case(time))
}

/// The first token, and what comes after it.
fn next(text: &str) -> Result<(Token, &str), String> {
    let first = text.chars().next().unwrap_or_default();
    match first {
        '\'' => quoted(text, '\'').map(|(text, rest)| (Token::Text(text), rest)),
        '"' => quoted(text, '"').map(|(name, rest)| (Token::Column(name), rest)),
        '0'..='9' | '-' => number(text),
        _ if first.is_alphabetic() || first == '_' => Ok(word(text)),
        _ => {
            let operator = (OPERATORS.iter())
                .find(|operator| text.starts_with(**operator) && !text.starts_with("--"));
            let operator = operator.ok_or_else(|| format!("`{first}` cannot be there"))?;
            Ok((Token::Plain((*operator).into()), &text[operator.len()..]))
        }
    }
}

/// A text in quotes, which are doubled inside.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut inside = String::new();
    let mut rest = &text[1..];
    while let Some(at) = rest.find(quote) {
        inside.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if !rest.starts_with(quote) {
            if inside.is_empty() && quote == '"' || inside.contains('\0') {
                return Err(format!("{quote}{quote} names no column"));
            }
            return Ok((inside, rest));
        }
        inside.push(quote);
        rest = &rest[1..];
    }
    Err(format!("{quote} is never closed"))
}

fn number(text: &str) -> Result<(Token, &str), String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.');
    let length = text.len() - digits.len() + end.unwrap_or(digits.len());
    let (number, rest) = text.split_at(length);
    number
        .parse::<f64>()
        .map_err(|_| format!("`{number}` is no number"))?;
    if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return Err(format!("`{number}` is followed by a letter"));
    }
    Ok((Token::Plain(number.into()), rest))
}

fn word(text: &str) -> (Token, &str) {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    // As PostgreSQL folds what is not quoted.
    let word = word.to_ascii_lowercase();
    let token = if WORDS.contains(&word.as_str()) {
        Token::Plain(word)
    } else {
        Token::Column(word)
    };
    (token, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sql(text: &str) -> Result<String, String> {
        let condition = Condition::parse(text)?;
        Ok(condition.to_sql(|name| format!("<{name}>")))
    }

    #[test]
    fn columns_and_constants_are_written_anew() {
        for (text, expected) in [
            ("published_at IS NULL", "<published_at> is null"),
            ("Status in (0,3)", "<status> in ( 0 , 3 )"),
            ("\"StatusName\" = 'it''s'", "<StatusName> = 'it''s'"),
            (
                "not (done<>true or n >= -1.5)",
                "not ( <done> <> true or <n> >= -1.5 )",
            ),
            (r"a = 'b\'", r"<a> = E'b\\'"),
        ] {
            assert_eq!(sql(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (text, part) in [
            ("", "empty"),
            ("a = 'x", "never closed"),
            ("(a = 1", "never closed"),
            ("a = 1)", "closes nothing"),
            ("now() > a", "function"),
            ("a = 1; drop table t", "`;`"),
            ("a = 1 -- b", "number"),
            ("a /* b */ = 1", "`/`"),
            ("a = $1", "`$`"),
            ("a::text = 'b'", "`:`"),
            ("a = 1e5", "letter"),
            ("\"\" = 1", "names no column"),
            ("a < ' Today 12:00'", "changes with time"),
        ] {
            let error = sql(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        /// Outside of what is quoted there are only our own words.
        #[test]
        fn no_condition_becomes_other_sql(text in r#"[\PC'"\\;$-]{0,40}"#) {
            if let Ok(condition) = Condition::parse(&text) {
                for token in &condition.0 {
                    if let Token::Plain(word) = token {
                        let known = WORDS.contains(&word.as_str()) || OPERATORS.contains(&word.as_str());
                        prop_assert!(known || word.parse::<f64>().is_ok(), "{word}");
                    }
                }
            }
        }
    }
}
