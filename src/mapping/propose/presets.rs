//! Which presets a table's columns are those of.

use std::collections::{BTreeMap, BTreeSet};

use super::{Certainty, ColumnSight, Proposal, Sight, Source, text, words};
use crate::mapping::{Condition, Done, Mapping, PRESETS, Preset, Setting, parse};

/// A column tells a preset if no more presets than these have it.
const TELLING: usize = 2;

pub(super) fn all() -> Vec<(Preset, Mapping)> {
    let presets = PRESETS.iter();
    presets
        .filter_map(|preset| Some((*preset, parse(preset.name, preset.text).ok()?)))
        .collect()
}

/// Presets whose columns are all there: the surest first, and of those the one that knows most columns.
pub(super) fn fitting(sight: &Sight) -> Vec<Proposal> {
    let presets = all();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, mapping) in &presets {
        for name in names(mapping) {
            *uses.entry(name).or_default() += 1;
        }
    }
    let mut fitting: Vec<_> = (presets.iter())
        .filter(|(_, mapping)| fits(sight, mapping))
        .filter_map(|(preset, mapping)| {
            let known = names(mapping);
            let telling = known.iter().filter(|name| uses[*name] <= TELLING).count();
            let proposal = proposal(sight, *preset, mapping, telling)?;
            Some((proposal.certainty, known.len(), proposal))
        })
        .collect();
    fitting.sort_by_key(|(certainty, known, _)| std::cmp::Reverse((*certainty, *known)));
    fitting
        .into_iter()
        .map(|(_, _, proposal)| proposal)
        .collect()
}

/// Without the order's column: it may have to be added.
fn names(mapping: &Mapping) -> BTreeSet<&str> {
    let columns = mapping.columns().into_iter();
    let columns = columns.filter(|(part, _)| *part != "order");
    columns.map(|(_, name)| name).collect()
}

fn fits(sight: &Sight, mapping: &Mapping) -> bool {
    let columns = mapping.columns().into_iter();
    let all_there = columns
        .filter(|(part, _)| *part != "order")
        .all(|(part, name)| sight.is_usable(part, name, false));
    let settings = match &mapping.done {
        Done::Set(settings) => settings.as_slice(),
        Done::Delete => &[],
    };
    let constants = mapping.pending.iter().flat_map(Condition::constants);
    let constants: Vec<_> = constants.collect();
    let can_be_set = |(name, setting): &(String, Setting)| {
        sight
            .column(name)
            .is_some_and(|column| takes(column, setting, &constants))
    };
    all_there && settings.iter().all(can_be_set)
}

/// Whether a column can be set so, and has such values at all.
fn takes(column: &ColumnSight, setting: &Setting, pending: &[&str]) -> bool {
    let Setting::Constant(constant) = setting else {
        return column.is_time();
    };
    let is_number = constant.parse::<i64>().is_ok();
    if column.is_integer() != is_number {
        return false;
    }
    if column.sql_type == "boolean" {
        return ["true", "false"].contains(&constant.as_str());
    }
    let known = |value: &str| value == constant || pending.contains(&value);
    column.values().next().is_none() || column.values().any(known)
}

fn proposal(sight: &Sight, preset: Preset, mapping: &Mapping, telling: usize) -> Option<Proposal> {
    let of_preset = mapping.table.as_deref();
    let table = of_preset.map(|table| table.rsplit('.').next().unwrap_or(table));
    let is_named = table.is_some_and(|table| table.eq_ignore_ascii_case(&sight.table));
    let is_named = is_named || telling >= 2 && words::is_outbox(&sight.table);
    let (certainty, why) = match telling {
        _ if is_named => (
            Certainty::Certain,
            "its name, and all of the preset's columns",
        ),
        2.. => (Certainty::Likely, "all of the preset's columns"),
        1 if table.is_none() => (Certainty::Likely, "all of the preset's columns"),
        _ => return None,
    };
    let of_table = format!("{}.{}", sight.schema, sight.table);
    let mut text = text::line("preset", preset.name) + &text::line("table", &of_table);
    let order = better_order(sight, mapping);
    if let Some(column) = order {
        text.push_str(&text::line("order", &column.name));
    }
    let source = match order {
        Some(_) => Source::Changed(preset),
        None => Source::Preset(preset),
    };
    Some(Proposal {
        source,
        certainty,
        why: why.into(),
        text,
        doubts: Vec::new(),
    })
}

/// A number that rows were given by somebody who wanted them in order, where the preset knows of none.
fn better_order<'a>(sight: &'a Sight, mapping: &Mapping) -> Option<&'a ColumnSight> {
    mapping.key.as_ref()?;
    let by = mapping.order.as_ref().unwrap_or(&mapping.id);
    let is_told = sight
        .column(by)
        .is_some_and(|column| column.is_integer() || mapping.order.is_some());
    let mut columns = sight.columns.iter();
    columns.find(|column| !is_told && column.is_numbered() && column.can_be_named())
}
