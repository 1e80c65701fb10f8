//! Reading a mapping from TOML: all that is wrong with it, each with its line.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Condition, Done, HeaderColumns, Mapping, Preset, Setting};
use crate::template::Template;

/// What a file (and the preset that it begins with) says so far: each part, with where it is written.
#[derive(Default)]
struct Draft {
    places: BTreeMap<&'static str, String>,
    table: Option<String>,
    id: Option<String>,
    order: Option<String>,
    event_id: Option<Template>,
    key: Option<Template>,
    destination: Vec<Template>,
    event_type: Option<Template>,
    payload: Option<String>,
    content_type: Option<Template>,
    time: Option<String>,
    headers: Option<HeaderColumns>,
    further_headers: Vec<(String, Template)>,
    pending: Option<Condition>,
    done: Option<Done>,
}

/// All that a mapping may say.
const PARTS: [&str; 16] = [
    "preset",
    "table",
    "id",
    "order",
    "event_id",
    "key",
    "destination",
    "type",
    "payload",
    "content_type",
    "time",
    "headers_json",
    "headers_arrays",
    "headers",
    "pending",
    "done",
];

type Entry<'a> = Spanned<DeValue<'a>>;

/// Reads a mapping; `origin` is the file's name, for messages.
///
/// # Errors
/// All that is wrong with it, each with its line.
pub fn parse(origin: &str, text: &str) -> Result<Mapping, Vec<String>> {
    let mut draft = Draft::default();
    let mut reader = Reader {
        origin,
        text,
        problems: Vec::new(),
    };
    draft.places.insert("", origin.to_owned());
    reader.read(&mut draft);
    let mapping = reader.finish(draft);
    match mapping {
        Some(mapping) if reader.problems.is_empty() => Ok(mapping),
        _ => Err(reader.problems),
    }
}

struct Reader<'a> {
    origin: &'a str,
    text: &'a str,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn place(&self, at: usize) -> String {
        let line = self.text[..at.min(self.text.len())].matches('\n').count() + 1;
        format!("{}:{line}", self.origin)
    }

    fn wrong(&mut self, entry: &Entry<'_>, part: &str, what: &str) {
        let place = self.place(entry.span().start);
        self.problems.push(format!("{place}: {part}: {what}"));
    }

    fn read(&mut self, draft: &mut Draft) {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let place = self.place(error.span().map_or(0, |span| span.start));
            self.problems.push(format!("{place}: {}", error.message()));
        }
        let table = table.into_inner();
        if let Some(name) = table.get("preset") {
            self.begin_with_preset(name, draft);
        }
        for (name, entry) in &table {
            self.part(name.get_ref(), entry, draft);
        }
    }

    fn begin_with_preset(&mut self, entry: &Entry<'_>, draft: &mut Draft) {
        let preset = self.text(entry, "preset").map(|name| Preset::named(&name));
        match preset {
            Some(Ok(preset)) => {
                let origin = format!("preset {}", preset.name);
                let mut reader = Reader {
                    origin: &origin,
                    text: preset.text,
                    problems: Vec::new(),
                };
                reader.read(draft);
                self.problems.append(&mut reader.problems);
            }
            Some(Err(error)) => self.wrong(entry, "preset", &error),
            None => {}
        }
    }

    fn part(&mut self, name: &str, entry: &Entry<'_>, draft: &mut Draft) {
        let place = self.place(entry.span().start);
        let Some(&part) = PARTS.iter().find(|part| **part == name) else {
            self.problems.push(format!(
                "{place}: there is no `{name}` in a mapping: see `outboxd preset show debezium` for one"
            ));
            return;
        };
        match part {
            "table" => draft.table = self.text(entry, part),
            "id" => draft.id = self.column(entry, part),
            "order" => draft.order = self.column(entry, part),
            "event_id" => draft.event_id = self.value(entry, part),
            "key" => draft.key = self.value(entry, part),
            "destination" => draft.destination = self.destination(entry),
            "type" => draft.event_type = self.value(entry, part),
            "payload" => draft.payload = self.column(entry, part),
            "content_type" => draft.content_type = self.value(entry, part),
            "time" => draft.time = self.column(entry, part),
            "headers_json" => {
                draft.headers = self.column(entry, part).map(HeaderColumns::Json);
            }
            "headers_arrays" => draft.headers = self.arrays(entry),
            "headers" => draft.further_headers = self.headers(entry),
            "pending" => draft.pending = self.pending(entry),
            "done" => draft.done = self.done(entry),
            // What it begins with was read before.
            _ => return,
        }
        draft.places.insert(part, place);
    }

    fn text(&mut self, entry: &Entry<'_>, part: &str) -> Option<String> {
        let text = entry.get_ref().as_str();
        if text.is_none() {
            let found = entry.get_ref().type_str();
            self.wrong(
                entry,
                part,
                &format!("it is of type {found}; write a text in quotes"),
            );
        }
        text.map(Into::into)
    }

    fn column(&mut self, entry: &Entry<'_>, part: &str) -> Option<String> {
        let name = self.text(entry, part)?;
        if name.is_empty() || name.contains(['\0', '{', '}']) {
            self.wrong(entry, part, &format!("{name:?} is no column's name"));
            return None;
        }
        Some(name)
    }

    fn value(&mut self, entry: &Entry<'_>, part: &str) -> Option<Template> {
        if let Some(table) = entry.get_ref().as_table() {
            let constant = table
                .get("constant")
                .and_then(|value| value.get_ref().as_str());
            return match constant {
                Some(text) if table.len() == 1 && !text.is_empty() && !text.contains('\0') => {
                    Some(Template::constant(text))
                }
                _ => {
                    self.wrong(entry, part, "write a constant as { constant = \"text\" }");
                    None
                }
            };
        }
        let text = self.text(entry, part)?;
        if !text.contains(['{', '}']) {
            return self.column(entry, part).map(|name| Template::column(&name));
        }
        let template = Template::parse(&text);
        template
            .map_err(|error| self.wrong(entry, part, &format!("{text:?}: {error}")))
            .ok()
    }

    fn destination(&mut self, entry: &Entry<'_>) -> Vec<Template> {
        let Some(list) = entry.get_ref().as_array() else {
            return self.value(entry, "destination").into_iter().collect();
        };
        if list.is_empty() {
            self.wrong(entry, "destination", "the list is empty");
        }
        let values = list.iter();
        values
            .filter_map(|entry| self.value(entry, "destination"))
            .collect()
    }

    fn arrays(&mut self, entry: &Entry<'_>) -> Option<HeaderColumns> {
        let list = entry.get_ref().as_array().map(|list| &list[..]);
        if let Some([names, values]) = list {
            let names = self.column(names, "headers_arrays");
            let values = self.column(values, "headers_arrays");
            return Some(HeaderColumns::Arrays(names?, values?));
        }
        self.wrong(
            entry,
            "headers_arrays",
            "write it like [\"names\", \"values\"]: two columns",
        );
        None
    }

    fn headers(&mut self, entry: &Entry<'_>) -> Vec<(String, Template)> {
        let Some(table) = entry.get_ref().as_table() else {
            self.wrong(
                entry,
                "headers",
                "write it like [headers] and below tenant = \"tenant_id\"",
            );
            return Vec::new();
        };
        let headers = table.iter().filter_map(|(name, entry)| {
            let name = name.get_ref();
            let part = format!("headers.{name}");
            if let Err(reason) = crate::event::check_header(name, "") {
                self.wrong(entry, &part, &reason.detail);
            } else if crate::event::RESERVED_HEADERS.contains(&name.as_ref()) {
                self.wrong(
                    entry,
                    &part,
                    "outboxd sets it itself: see event_id and type",
                );
            }
            Some((name.to_string(), self.value(entry, &part)?))
        });
        headers.collect()
    }

    fn pending(&mut self, entry: &Entry<'_>) -> Option<Condition> {
        let text = self.text(entry, "pending")?;
        let condition = Condition::parse(&text);
        condition
            .map_err(|error| self.wrong(entry, "pending", &format!("{text:?}: {error}")))
            .ok()
    }

    fn done(&mut self, entry: &Entry<'_>) -> Option<Done> {
        let advice = "write \"delete\", or columns to set like { sent_at = \"now()\", status = 2 }";
        match entry.get_ref() {
            DeValue::String(word) if word == "delete" => Some(Done::Delete),
            DeValue::Table(table) if !table.is_empty() => {
                let settings = table.iter().filter_map(|(name, entry)| {
                    let part = format!("done.{}", name.get_ref());
                    if name.get_ref().contains('\0') {
                        self.wrong(entry, &part, "it is no column's name");
                    }
                    Some((name.get_ref().to_string(), self.setting(entry, &part)?))
                });
                Some(Done::Set(settings.collect()))
            }
            _ => {
                self.wrong(entry, "done", advice);
                None
            }
        }
    }

    fn setting(&mut self, entry: &Entry<'_>, part: &str) -> Option<Setting> {
        let constant = match entry.get_ref() {
            DeValue::String(text) if text == "now()" => return Some(Setting::Now),
            DeValue::String(text) if !text.contains('\0') => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().into(),
            DeValue::Float(number) => number.as_str().into(),
            DeValue::Boolean(yes) => yes.to_string(),
            _ => {
                self.wrong(
                    entry,
                    part,
                    "write a text, a number, true, false or \"now()\"",
                );
                return None;
            }
        };
        Some(Setting::Constant(constant))
    }

    /// What is there, if nothing is missing.
    fn finish(&mut self, draft: Draft) -> Option<Mapping> {
        for (part, is_there, what) in [
            ("id", draft.id.is_some(), "the column that tells rows apart"),
            (
                "payload",
                draft.payload.is_some(),
                "the column with the body",
            ),
            (
                "done",
                draft.done.is_some(),
                "what becomes of a published row",
            ),
        ] {
            if !is_there && !draft.places.contains_key(part) {
                self.problems
                    .push(format!("{}: `{part}` is missing: {what}", self.origin));
            }
        }
        let both = ["headers_json", "headers_arrays"].map(|part| draft.places.get(part));
        if let [Some(place), Some(_)] = both {
            self.problems.push(format!(
                "{place}: headers_json and headers_arrays cannot both be"
            ));
        }
        if let (None, Some(Done::Set(_))) = (&draft.pending, &draft.done)
            && let (None, Some(place)) = (draft.places.get("pending"), draft.places.get("done"))
        {
            self.problems.push(format!(
                "{place}: done: without `pending` every row is to be published, again and again: say which, or \"delete\""
            ));
        }
        Some(Mapping {
            table: draft.table,
            id: draft.id?,
            order: draft.order,
            event_id: draft.event_id,
            key: draft.key,
            destination: draft.destination,
            event_type: draft.event_type,
            payload: draft.payload?,
            content_type: draft.content_type,
            time: draft.time,
            headers: draft.headers,
            further_headers: draft.further_headers,
            pending: draft.pending,
            done: draft.done?,
            places: draft.places,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
id = "id"
payload = "body"
pending = "state = 0"
done = { state = 1 }
"#;

    fn problems(text: &str) -> Vec<String> {
        parse("outbox.toml", text).expect_err(text)
    }

    #[test]
    fn everything_wrong_is_said_at_once_each_with_its_line() {
        let text =
            "id = 5\nkey = \"{a\"\n\npending = \"now() > a\"\nodd = 1\n[headers]\nid = \"x\"\n";
        let found = problems(text);
        for part in [
            "outbox.toml:1: id: it is of type",
            "outbox.toml:2: key: \"{a\": `{a` is never closed",
            "outbox.toml:4: pending:",
            "outbox.toml:5: there is no `odd`",
            "outbox.toml:7: headers.id: outboxd sets it",
            "outbox.toml: `payload` is missing",
            "outbox.toml: `done` is missing",
        ] {
            assert!(
                found.iter().any(|problem| problem.starts_with(part)),
                "{part}: {found:#?}"
            );
        }
        assert_eq!(found.len(), 7, "{found:#?}");
    }

    #[test]
    fn what_is_not_toml_is_told_with_its_line() {
        let found = problems("id = \"id\"\npayload = \"body\ndone = \"delete\"\n");
        assert!(found[0].starts_with("outbox.toml:2: "), "{found:?}");
    }

    #[test]
    fn a_done_row_must_not_be_pending_for_ever() {
        let found = problems("id = \"id\"\npayload = \"body\"\ndone = { a = 1 }\n");
        assert!(found[0].contains("without `pending`"), "{found:?}");
    }

    #[test]
    fn a_file_replaces_parts_of_its_preset() {
        let text = "preset = \"debezium\"\ndestination = [\"{topic}\", \"all\"]\norder = \"seq\"\n";
        let mapping = parse("my.toml", text).expect("valid");
        let preset = Preset::named("debezium").expect("there");
        let whole = parse("p", preset.text).expect("valid");
        assert_eq!(mapping.id, whole.id);
        assert_eq!(mapping.order.as_deref(), Some("seq"));
        assert_eq!(mapping.place("order"), "my.toml:3: order: ");
        assert!(mapping.place("id").starts_with("preset debezium:"));
    }

    #[test]
    fn values_are_columns_templates_or_constants() {
        let text = format!(
            "{WHOLE}key = \"Agg\"\ntype = \"v-{{kind}}\"\ncontent_type = {{ constant = \"text/x\" }}\n"
        );
        let mapping = parse("my.toml", &text).expect("valid");
        let sql = |value: &Option<Template>| {
            value
                .as_ref()
                .map(|value| value.to_sql(|name| format!("<{name}>")))
        };
        assert_eq!(sql(&mapping.key).as_deref(), Some("(<Agg>::text)"));
        assert_eq!(
            sql(&mapping.event_type).as_deref(),
            Some("('v-'::text || <kind>::text)")
        );
        assert_eq!(
            sql(&mapping.content_type).as_deref(),
            Some("('text/x'::text)")
        );
    }
}
