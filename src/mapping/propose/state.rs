//! Which rows are pending, and what becomes of published ones: guessed from columns and their values.

use super::{ColumnSight, Sight, text, words};

/// What the columns tell of a row's state.
#[derive(Debug, Default)]
pub(super) struct State {
    /// `pending` and `done`, as TOML.
    pub(super) lines: String,
    pub(super) doubts: Vec<String>,
    /// The column that tells; `None`: none does.
    pub(super) column: Option<String>,
}

pub(super) fn state(sight: &Sight) -> State {
    let status = sight.pick(&words::STATUS, |column| column.sql_type != "boolean");
    let when = sight.columns.iter().find(|column| {
        column.is_time()
            && !column.is_not_null
            && column.can_be_named()
            && words::says_when_done(&column.name)
    });
    status
        .and_then(|status| by_status(status, when))
        .or_else(|| when.map(by_time))
        .or_else(|| by_flag(sight))
        .unwrap_or_else(nothing)
}

fn nothing() -> State {
    State {
        lines: "done = \"delete\"\n".into(),
        doubts: vec![
            "no column tells published rows from pending ones: every row is published, and deleted"
                .into(),
        ],
        column: None,
    }
}

fn by_time(column: &ColumnSight) -> State {
    let (name, key) = (text::operand(&column.name), text::key(&column.name));
    State {
        lines: format!(
            "pending = {}\ndone = {{ {key} = \"now()\" }}\n",
            text::quoted(&format!("{name} is null"))
        ),
        doubts: Vec::new(),
        column: Some(column.name.clone()),
    }
}

fn by_flag(sight: &Sight) -> Option<State> {
    let column = sight.columns.iter().find(|column| {
        (column.sql_type == "boolean" || column.is_integer())
            && column.can_be_named()
            && words::says_done(&column.name)
    })?;
    let (name, key) = (text::operand(&column.name), text::key(&column.name));
    let (pending, done) = match (column.sql_type == "boolean", column.is_not_null) {
        (true, true) => (format!("not {name}"), "true"),
        (true, false) => (format!("{name} is not true"), "true"),
        (false, true) => (format!("{name} = 0"), "1"),
        (false, false) => (format!("{name} = 0 or {name} is null"), "1"),
    };
    Some(State {
        lines: format!(
            "pending = {}\ndone = {{ {key} = {done} }}\n",
            text::quoted(&pending)
        ),
        doubts: Vec::new(),
        column: Some(column.name.clone()),
    })
}

/// By a status whose values are known, or can be told from the first of them.
fn by_status(column: &ColumnSight, when: Option<&ColumnSight>) -> Option<State> {
    let mut doubts = Vec::new();
    let (pending, done) = if column.is_integer() {
        numbers(column, &mut doubts)
    } else {
        texts(column, &mut doubts)?
    };
    let others = column.values();
    let others: Vec<_> = others.filter(|it| *it != pending && *it != done).collect();
    if !others.is_empty() {
        let held = |value: &&&str| words::HELD.contains(&words::plain(value).as_str());
        let held: Vec<_> = others.iter().filter(held).copied().collect();
        let advice = if held.is_empty() {
            String::new()
        } else {
            format!("; free what a dead relay left {}", held.join(", "))
        };
        doubts.push(format!(
            "rows whose {} is {} are left alone{advice}",
            column.name,
            others.join(", ")
        ));
    }
    let written = |value: &str| {
        if column.is_integer() {
            value.into()
        } else {
            text::constant(value)
        }
    };
    let condition = format!("{} = {}", text::operand(&column.name), written(&pending));
    let done = if column.is_integer() {
        done
    } else {
        text::quoted(&done)
    };
    let key = text::key(&column.name);
    let time = when.map_or(String::new(), |when| {
        format!(", {} = \"now()\"", text::key(&when.name))
    });
    let set = format!("{key} = {done}{time}");
    Some(State {
        lines: format!(
            "pending = {}\ndone = {{ {set} }}\n",
            text::quoted(&condition)
        ),
        doubts,
        column: Some(column.name.clone()),
    })
}

fn numbers(column: &ColumnSight, doubts: &mut Vec<String>) -> (String, String) {
    let number = |text: &str| text.parse::<i64>().ok();
    let mut known: Vec<i64> = column.values().filter_map(number).collect();
    known.sort_unstable();
    let least = known.first().copied();
    let pending = column.default.as_deref().and_then(number).or(least);
    let pending = pending.unwrap_or_default();
    let done = known.iter().find(|value| **value > pending);
    let done = done.copied().unwrap_or(pending + 1);
    doubts.push(format!(
        "what the numbers of {} mean is guessed: {pending} pending, {done} published",
        column.name
    ));
    (pending.to_string(), done.to_string())
}

fn texts(column: &ColumnSight, doubts: &mut Vec<String>) -> Option<(String, String)> {
    let find = |words: &[&str]| {
        let find = |word: &&str| {
            let mut values = column.values();
            values
                .find(|value| words::plain(value) == **word)
                .map(str::to_owned)
        };
        words.iter().find_map(find)
    };
    let default = column.default.clone();
    let pending = default.or_else(|| find(&words::PENDING));
    let done = find(&words::DONE);
    if let (Some(pending), Some(done)) = (&pending, &done)
        && pending != done
    {
        return Some((pending.clone(), done.clone()));
    }
    if !column.allowed.is_empty() {
        return None;
    }
    let like = pending.as_ref().or(done.as_ref())?;
    let shouts = like.chars().all(|c| !c.is_lowercase());
    let in_case = |word: &str| {
        if shouts {
            word.to_uppercase()
        } else {
            word.into()
        }
    };
    doubts.push(format!(
        "of the values of {} only {like} is known: the other is guessed",
        column.name
    ));
    Some(match (&pending, &done) {
        (Some(pending), _) => (pending.clone(), in_case("sent")),
        _ => (in_case("pending"), like.clone()),
    })
}
