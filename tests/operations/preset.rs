//! `outboxd preset`: the mappings that come with the binary.

use crate::lab::outboxd;

#[test]
fn presets_are_listed_and_shown_as_they_are() {
    let text = outboxd("", &["preset", "list"]).exits(0).stdout;
    assert!(
        text.contains("debezium") && text.contains("Debezium's outbox event router"),
        "{text}"
    );
    let listed = outboxd("", &["preset", "list", "--json"]).exits(0).json();
    let listed = listed.as_array().unwrap();
    assert!(listed.len() > 20, "{listed:?}");
    for preset in listed {
        let name = preset["name"].as_str().unwrap();
        assert!(text.contains(name), "{name}");
        let file = format!("{}/presets/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let shown = outboxd("", &["preset", "show", name]).exits(0).stdout;
        assert_eq!(shown, std::fs::read_to_string(file).unwrap(), "{name}");
        assert!(
            shown.contains(preset["summary"].as_str().unwrap()),
            "{name}"
        );
    }
}

#[test]
fn an_unknown_preset_is_78_and_names_those_there_are() {
    let refused = outboxd("", &["preset", "show", "debezum"]).exits(78);
    assert!(
        refused.stderr.contains("\"debezum\"") && refused.stderr.contains("goharvest"),
        "{}",
        refused.stderr
    );
}
