//! Tables as people write them, and what is made of them.

use super::*;
use crate::mapping::{Done, HeaderColumns, Setting};

/// A column is `name type`, and then `!` if it is never NULL, `#` if it is unique, `+` if it is drawn,
/// `=x` for its default and `(a|b)` for all that it may be.
fn sight(table: &str, columns: &[&str]) -> Sight {
    let column = |text: &&str| {
        let mut words = text.split(' ');
        let mut column = ColumnSight {
            name: words.next().unwrap_or_default().into(),
            sql_type: words.next().unwrap_or_default().replace('_', " "),
            ..ColumnSight::default()
        };
        for word in words {
            match word.as_bytes()[0] {
                b'!' => column.is_not_null = true,
                b'#' => column.is_unique = true,
                b'+' => column.is_drawn = true,
                b'=' => column.default = Some(word[1..].into()),
                _ => {
                    let values = word.trim_matches(['(', ')']).split('|');
                    column.allowed = values.map(Into::into).collect();
                }
            }
        }
        column
    };
    Sight {
        schema: "public".into(),
        table: table.into(),
        columns: columns.iter().map(column).collect(),
    }
}

fn proposal(table: &str, columns: &[&str]) -> Option<Proposal> {
    propose(&sight(table, columns), false).into_iter().next()
}

fn mapping(table: &str, columns: &[&str]) -> Mapping {
    let proposal = proposal(table, columns).expect("it looks like an outbox");
    let parsed = proposal.mapping();
    parsed.unwrap_or_else(|problems| panic!("{problems:?}\n{}", proposal.text))
}

fn condition(mapping: &Mapping) -> String {
    let condition = mapping.pending.as_ref().expect("a condition");
    condition.to_sql(ToString::to_string)
}

const DEBEZIUM: [&str; 5] = [
    "id uuid ! #",
    "aggregatetype character_varying !",
    "aggregateid character_varying !",
    "type character_varying !",
    "payload jsonb",
];

const HOME_MADE: [&str; 6] = [
    "id bigint ! # +",
    "status text !",
    "body text",
    "topic text !",
    "created_at timestamp_with_time_zone !",
    "order_id bigint",
];

#[test]
fn debeziums_table_is_known_by_any_name() {
    for (table, certainty) in [
        ("outboxevent", Certainty::Certain),
        ("sales_outbox", Certainty::Certain),
        ("events", Certainty::Likely),
    ] {
        let proposal = proposal(table, &DEBEZIUM).expect("known");
        assert!(
            matches!(proposal.source, Source::Preset(preset) if preset.name == "debezium"),
            "{table}: {proposal:?}"
        );
        assert_eq!(proposal.certainty, certainty, "{table}");
        let mapping = proposal.mapping().expect("a mapping");
        assert_eq!(mapping.table, Some(format!("public.{table}")));
    }
}

#[test]
fn of_presets_that_fit_the_one_that_knows_most_columns_is_the_first() {
    let columns = [&DEBEZIUM[..], &["timestamp timestamp_with_time_zone !"]].concat();
    let found = propose(&sight("outboxevent", &columns), false);
    let names = found.iter().map(|proposal| match proposal.source {
        Source::Preset(preset) | Source::Changed(preset) => preset.name,
        _ => "none",
    });
    assert_eq!(names.collect::<Vec<_>>(), ["debezium-quarkus", "debezium"]);
}

#[test]
fn a_number_that_rows_were_given_orders_a_presets_table() {
    let columns = [&DEBEZIUM[..], &["seq bigint ! # +"]].concat();
    let proposal = proposal("outboxevent", &columns).expect("known");
    assert!(
        matches!(proposal.source, Source::Changed(_)),
        "{proposal:?}"
    );
    let mapping = proposal.mapping().expect("a mapping");
    assert_eq!(mapping.order.as_deref(), Some("seq"));
}

#[test]
fn a_preset_whose_states_are_others_does_not_fit() {
    let columns = |status| {
        let columns = [
            "id uuid ! #",
            "event_type text !",
            "payload jsonb !",
            "idempotency_token text",
            status,
        ];
        [&columns[..], &["created_at timestamp_with_time_zone !"]].concat()
    };
    let source = |status| {
        proposal("outbox_events", &columns(status))
            .expect("an outbox")
            .source
    };
    assert!(matches!(
        source("status text ! (Pending|Sent)"),
        Source::Preset(_)
    ));
    assert!(matches!(source("status text ! (NEW|DONE)"), Source::Guess));
    assert!(matches!(source("status integer ! =0"), Source::Guess));
}

#[test]
fn outboxds_own_table_is_known_and_needs_no_mapping() {
    let own = sight(
        "anything",
        &[
            "id bigint ! # +",
            "event_id uuid !",
            "aggregate_type text !",
            "aggregate_id text",
            "event_type text !",
            "topic text",
            "payload jsonb",
            "headers jsonb !",
            "created_at timestamp_with_time_zone !",
            "published_at timestamp_with_time_zone",
        ],
    );
    let found = propose(&own, false);
    assert!(matches!(found[0].source, Source::Own), "{found:?}");
    assert!(found[0].mapping().expect("its own").is_own());
}

#[test]
fn a_home_made_table_is_guessed_from_its_columns() {
    let columns = [
        &HOME_MADE[..],
        &[
            "aggregate_id text !",
            "event_name text",
            "metadata jsonb",
            "message_id uuid ! #",
        ],
    ]
    .concat();
    let mut sight = sight("my_outbox", &columns);
    sight.columns[1].seen = vec!["NEW".into()];
    let found = propose(&sight, false).remove(0);
    assert_eq!(found.certainty, Certainty::Likely);
    let mapping = found.mapping().expect("a mapping");
    assert_eq!(
        (mapping.id.as_str(), mapping.payload.as_str()),
        ("id", "body")
    );
    assert_eq!(mapping.order, None, "ids are drawn");
    assert_eq!(mapping.key, Some(Template::column("aggregate_id")));
    assert_eq!(mapping.destination, [Template::column("topic")]);
    assert_eq!(mapping.event_type, Some(Template::column("event_name")));
    assert_eq!(mapping.event_id, Some(Template::column("message_id")));
    assert_eq!(
        mapping.headers,
        Some(HeaderColumns::Json("metadata".into()))
    );
    assert_eq!(mapping.time.as_deref(), Some("created_at"));
    assert_eq!(condition(&mapping), "status = 'NEW'");
    assert_eq!(
        mapping.done,
        Done::Set(vec![("status".into(), Setting::Constant("SENT".into()))])
    );
    assert!(
        found
            .doubts
            .iter()
            .any(|doubt| doubt.contains("is guessed")),
        "{found:?}"
    );
    for doubt in &found.doubts {
        assert!(
            found.text.contains(&format!("# doubt: {doubt}\n")),
            "{}",
            found.text
        );
    }
}

#[test]
fn states_are_told_by_timestamps_flags_statuses_or_nothing() {
    for (columns, pending, set) in [
        (
            &["sent_at timestamp_with_time_zone"][..],
            "sent_at is null",
            "sent_at",
        ),
        (
            &["publishedAt timestamp_without_time_zone"],
            "publishedAt is null",
            "publishedAt",
        ),
        (&["processed boolean !"], "not processed", "processed"),
        (&["is_sent boolean"], "is_sent is not true", "is_sent"),
        (&["published smallint !"], "published = 0", "published"),
        (
            &["status text (todo|pending|sent)"],
            "status = 'pending'",
            "status",
        ),
        (
            &["status text =fresh (fresh|done)"],
            "status = 'fresh'",
            "status",
        ),
        (&["state integer =0"], "state = 0", "state"),
        // Nothing is known of the status.
        (
            &["status text", "dispatched_at timestamp_with_time_zone"],
            "dispatched_at is null",
            "dispatched_at",
        ),
        (&["status text (a|b)", "done boolean !"], "not done", "done"),
    ] {
        let all = [&["id bigint ! # +", "payload jsonb", "topic text"], columns].concat();
        let mapping = mapping("outbox", &all);
        assert_eq!(condition(&mapping), pending, "{columns:?}");
        assert_eq!(
            mapping.set_columns().collect::<Vec<_>>(),
            [set],
            "{columns:?}"
        );
    }
    let stateless = mapping(
        "outbox",
        &["id bigint ! # +", "payload jsonb", "topic text"],
    );
    assert_eq!((stateless.pending, stateless.done), (None, Done::Delete));
}

#[test]
fn a_status_and_its_time_are_set_together_and_other_states_are_told() {
    let columns = [
        "id bigint ! # +",
        "data jsonb",
        "topic text",
        "state text ! =NEW (NEW|PROCESSING|SENT|FAILED)",
        "sent_at timestamp_with_time_zone",
    ];
    let found = proposal("outbox", &columns).expect("an outbox");
    let mapping = found.mapping().expect("a mapping");
    assert_eq!(condition(&mapping), "state = 'NEW'");
    assert_eq!(
        mapping.set_columns().collect::<Vec<_>>(),
        ["sent_at", "state"]
    );
    let doubt = "rows whose state is PROCESSING, FAILED are left alone; free what a dead relay left PROCESSING";
    assert!(found.doubts.contains(&doubt.into()), "{:?}", found.doubts);
}

#[test]
fn without_a_drawn_id_another_column_tells_the_order() {
    let base = [
        "payload jsonb",
        "aggregate_id text",
        "sent boolean !",
        "created_at timestamp_with_time_zone !",
    ];
    for (more, order, doubts) in [
        (&["id bigint ! # +"][..], None, 0),
        (&["id uuid ! #", "seq bigint ! # +"], Some("seq"), 0),
        (&["id uuid ! #"], Some("created_at"), 1),
        (&["id bigint ! #"], None, 1),
    ] {
        let found = proposal("outbox", &[more, &base].concat()).expect("an outbox");
        let mapping = found.mapping().expect("a mapping");
        assert_eq!(mapping.order.as_deref(), order, "{more:?}");
        let about = ["came first", "draws"];
        let found = found.doubts.iter();
        let found = found.filter(|doubt| about.iter().any(|word| doubt.contains(word)));
        assert_eq!(found.count(), doubts, "{more:?}");
    }
}

#[test]
fn what_only_looks_like_an_outbox_is_not_proposed() {
    for (table, columns) in [
        (
            "users",
            &[
                "id bigint ! # +",
                "email text",
                "status text =active",
                "created_at timestamp_with_time_zone",
            ][..],
        ),
        (
            "orders",
            &[
                "id bigint ! # +",
                "type text",
                "data jsonb",
                "status text (NEW|DONE)",
                "completed_at timestamp_with_time_zone",
            ],
        ),
        (
            "messages",
            &[
                "id bigint ! # +",
                "body text",
                "sender_id bigint",
                "created_at timestamp_with_time_zone",
            ],
        ),
        (
            "inbox_messages",
            &[
                "id uuid ! #",
                "type text",
                "payload jsonb",
                "processed_at timestamp_with_time_zone",
            ],
        ),
        (
            "audit_events",
            &[
                "id bigint ! # +",
                "event_type text",
                "payload jsonb",
                "created_at timestamp_with_time_zone",
            ],
        ),
        ("outbox_cursor", &["id bigint ! #", "position bigint"]),
    ] {
        let found = proposal(table, columns);
        assert!(found.is_none(), "{table}: {found:?}");
    }
    let audit = ["id bigint ! # +", "event_type text", "payload jsonb"];
    let insisted = propose(&sight("audit_events", &audit), true);
    assert_eq!(insisted[0].certainty, Certainty::Maybe);
    assert!(propose(&sight("numbers", &["n integer ! #"]), true).is_empty());
}

#[test]
fn whatever_names_and_values_are_called_the_proposal_says_just_that() {
    let hostile = "Sent\"At'; drop table t; -- \\ \t\u{1}";
    let mut sight = sight(
        "outbox",
        &["id bigint ! # +", "x jsonb", "topic text", "status text"],
    );
    sight.table = format!("my \"outbox\" {hostile}");
    sight.columns[1].name = "Pay\"load".into();
    sight.columns[2].name = "to'pic\n".into();
    sight.columns[3].name = "STA\"TUS\n".into();
    sight.columns[3].default = Some(hostile.into());
    let found = propose(&sight, false).remove(0);
    let mapping = found
        .mapping()
        .unwrap_or_else(|problems| panic!("{problems:?}\n{}", found.text));
    assert_eq!(mapping.table, Some(format!("public.{}", sight.table)));
    assert_eq!(mapping.payload, "Pay\"load");
    assert_eq!(mapping.destination, [Template::column("to'pic\n")]);
    let pending = mapping.pending.expect("a condition");
    assert_eq!(pending.columns().collect::<Vec<_>>(), ["STA\"TUS\n"]);
    assert_eq!(pending.constants().collect::<Vec<_>>(), [hostile]);
    assert_eq!(
        mapping.done,
        Done::Set(vec![(
            "STA\"TUS\n".into(),
            Setting::Constant("sent".into())
        )])
    );
}

#[test]
fn names_that_no_mapping_can_have_are_passed_over() {
    let mut odd = sight(
        "outbox",
        &["id bigint ! # +", "payload jsonb", "topic text"],
    );
    odd.columns[2].name = "topic{}".into();
    let mapping = propose(&odd, false).remove(0).mapping();
    assert!(mapping.expect("a mapping").destination.is_empty());
}

#[test]
fn a_status_is_asked_for_where_nothing_says_what_it_may_be() {
    let question = |status| {
        let sight = sight("outbox", &["id bigint ! #", status]);
        open_question(&sight).map(str::to_owned)
    };
    assert_eq!(question("Status text").as_deref(), Some("Status"));
    assert_eq!(question("status text (a|b)"), None);
    assert_eq!(question("colour text"), None);
}
