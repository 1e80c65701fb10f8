//! What a table's columns may mean: proposals of mappings, from names, types and known values alone.
//!
//! # Design notes
//! * Three ways, the surest first: the table is outboxd's own; a preset has columns that are all there; the
//!   columns' names are guessed from. Where a preset fits nothing is guessed.
//! * A name that only a preset or two have (`aggregatetype`) tells much, one that all have (`payload`) tells
//!   nothing: that is counted over the presets, not written down.
//! * A proposal is text that [`super::parse`] reads, like any other mapping. What was guessed stands in it
//!   as a comment, so that it is still there when somebody else reads the file.

mod guess;
mod presets;
mod state;
mod text;
mod words;

use super::{Mapping, Preset, parse, types};
use crate::template::Template;

/// A table, as far as its catalog tells.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// In their order.
    pub columns: Vec<ColumnSight>,
}

/// A column, as far as its catalog tells.
#[derive(Debug, Clone, Default)]
pub struct ColumnSight {
    /// Its name.
    pub name: String,
    /// Its type, without a length.
    pub sql_type: String,
    /// It is never NULL.
    pub is_not_null: bool,
    /// No two rows have the same.
    pub is_unique: bool,
    /// The INSERT draws it from a sequence.
    pub is_drawn: bool,
    /// What it is where an INSERT does not say, if that is a constant.
    pub default: Option<String>,
    /// What it may be, and nothing else; empty: that is open.
    pub allowed: Vec<String>,
    /// What it was seen to be.
    pub seen: Vec<String>,
}

/// How sure a proposal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// It may be something else altogether.
    Maybe,
    /// An outbox, most likely.
    Likely,
    /// It is one, of a known kind.
    Certain,
}

impl Certainty {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Maybe => "maybe",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// Where a proposal comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// The table is outboxd's own.
    Own,
    /// A preset, as it is.
    Preset(Preset),
    /// A preset of which something is replaced.
    Changed(Preset),
    /// Guessed from the columns.
    Guess,
}

/// What a table's columns may mean.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Where it comes from.
    pub source: Source,
    /// How sure it is.
    pub certainty: Certainty,
    /// Why, in a few words.
    pub why: String,
    /// The mapping, as TOML; empty for outboxd's own table.
    pub text: String,
    /// What was guessed, or is not heeded. It is in the text as well.
    pub doubts: Vec<String>,
}

impl Proposal {
    /// The mapping itself.
    ///
    /// # Errors
    /// As [`parse`]: never, unless a name cannot be written in a mapping.
    pub fn mapping(&self) -> Result<Mapping, Vec<String>> {
        match self.source {
            Source::Own => Ok(Mapping::own(Template::column("aggregate_type"))),
            _ => parse("outbox.toml", &self.text),
        }
    }
}

/// What the table may be, the likelier first. With `insisting`, also what hardly looks like an outbox.
pub fn propose(sight: &Sight, insisting: bool) -> Vec<Proposal> {
    if is_own(sight) {
        return vec![Proposal {
            source: Source::Own,
            certainty: Certainty::Certain,
            why: "all columns of outboxd's own table".into(),
            text: String::new(),
            doubts: Vec::new(),
        }];
    }
    let of_presets = presets::fitting(sight);
    if !of_presets.is_empty() {
        return of_presets;
    }
    guess::guess(sight, insisting).into_iter().collect()
}

/// Names by which tables are found that are worth a look, without anything but lower-case letters and digits.
pub fn telling_names() -> Vec<String> {
    let of_presets = presets::all().into_iter();
    let of_presets = of_presets.map(|(_, mapping)| words::plain(&mapping.payload));
    let payload = words::PAYLOAD.into_iter().map(Into::into);
    payload.chain(of_presets).collect()
}

/// The column whose values in the table would tell more.
pub fn open_question(sight: &Sight) -> Option<&str> {
    let status = sight.pick(&words::STATUS, |_| true)?;
    status.allowed.is_empty().then_some(&status.name)
}

fn is_own(sight: &Sight) -> bool {
    let mapping = Mapping::own(Template::column("aggregate_type"));
    let mut columns = mapping.columns().into_iter();
    columns.all(|(part, name)| sight.is_usable(part, name, true))
}

impl Sight {
    fn column(&self, name: &str) -> Option<&ColumnSight> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether there is such a column, of a type for that part.
    fn is_usable(&self, part: &str, name: &str, is_own: bool) -> bool {
        self.column(name).is_some_and(|column| {
            let types = types(part, name, is_own);
            types.is_none_or(|types| types.contains(&column.sql_type.as_str()))
        })
    }

    /// The first of these names that a column has; columns that are never NULL come first.
    fn pick(&self, names: &[&str], suits: impl Fn(&ColumnSight) -> bool) -> Option<&ColumnSight> {
        let find = |never_null: bool| {
            names.iter().find_map(|name| {
                let mut columns = self.columns.iter();
                columns.find(|column| {
                    (column.is_not_null || !never_null)
                        && words::plain(&column.name) == *name
                        && column.can_be_named()
                        && suits(column)
                })
            })
        };
        find(true).or_else(|| find(false))
    }
}

impl ColumnSight {
    /// What is known of its values.
    fn values(&self) -> impl Iterator<Item = &str> {
        self.allowed.iter().chain(&self.seen).map(String::as_str)
    }

    /// Braces and NULs cannot be in a mapping.
    fn can_be_named(&self) -> bool {
        !self.name.contains(['{', '}', '\0'])
    }

    fn suits(&self, part: &str) -> bool {
        let types = types(part, &self.name, false);
        types.is_none_or(|types| types.contains(&self.sql_type.as_str()))
    }

    fn is_integer(&self) -> bool {
        matches!(self.sql_type.as_str(), "bigint" | "integer" | "smallint")
    }

    fn is_text(&self) -> bool {
        matches!(
            self.sql_type.as_str(),
            "text" | "character varying" | "character"
        )
    }

    fn is_json(&self) -> bool {
        matches!(self.sql_type.as_str(), "json" | "jsonb")
    }

    /// What may be a name, or part of one.
    fn is_short(&self) -> bool {
        !self.is_json() && !matches!(self.sql_type.as_str(), "bytea" | "boolean")
    }

    fn is_time(&self) -> bool {
        self.sql_type.starts_with("timestamp")
    }

    /// Numbers that an INSERT draws: they tell an order.
    fn is_numbered(&self) -> bool {
        self.is_integer() && self.is_unique && self.is_drawn
    }
}

#[cfg(test)]
mod tests;
