//! `TABLE.md` holds what it says; and the one fault that has no other place.

use std::path::Path;

use crate::common::relay::outboxd;

const TABLE: &str = include_str!("TABLE.md");

/// The lines of the table: number, and what is said about its tests.
fn lines() -> Vec<(usize, &'static str)> {
    let columns = TABLE
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let numbered =
        columns.filter_map(|columns| Some((columns.get(1)?.parse().ok()?, *columns.get(4)?)));
    numbered.collect()
}

/// The tests in a text: what stands in backquotes and is a path.
fn tests_in(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|words| words.contains("::")).collect()
}

/// Whether the file that a test is named by has a function of its name, that is run as a test.
fn exists(test: &str) -> bool {
    let (module, name) = test.rsplit_once("::").unwrap();
    let file = module.replace("::", "/") + ".rs";
    let file = if file.starts_with("src/") {
        file
    } else {
        format!("tests/{file}")
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(source) = std::fs::read_to_string(root.join(file)) else {
        return false;
    };
    let is_it = |line: &str| {
        let function = line.split_once("fn ").map(|(_, rest)| rest);
        function
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with(['(', '<']))
    };
    let lines: Vec<&str> = source.lines().collect();
    let Some(at) = lines.iter().position(|line| is_it(line)) else {
        return false;
    };
    // By an attribute of its own, or in a macro's list of those to be run on each broker.
    let attributed = at > 0
        && ["#[test]", "#[tokio::test"]
            .iter()
            .any(|attribute| lines[at - 1].trim().starts_with(attribute));
    let listed = lines.iter().any(|line| {
        let line = line.trim().trim_start_matches("on_each_broker!(");
        line.trim_end_matches([',', ')', ';']) == name
    });
    attributed || listed
}

#[test]
fn every_fault_has_its_line_and_every_test_named_there_exists() {
    let lines = lines();
    let numbers: Vec<usize> = lines.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=46).collect::<Vec<_>>());
    for (number, text) in lines {
        let tests = tests_in(text);
        assert!(
            !tests.is_empty() || text.starts_with("Not here: "),
            "{number}"
        );
        for test in tests {
            assert!(exists(test), "{number}: there is no test {test}");
        }
    }
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert!(exists("faults::table::a_test_that_is_not_there_is_missed"));
    assert!(!exists("faults::table::a_test_that_is_not_there"));
    assert!(!exists("faults::table::exists"));
    assert!(!exists("nowhere::table::exists"));
}

#[test]
fn a_port_in_use_ends_the_start_and_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let database = ["--database-url", "postgres://nobody@127.0.0.1:1/none"];
    let listen = ["--sink", "stdout", "--listen", &address];
    let (code, _, said) = outboxd(&[&["run"], &database[..], &listen].concat());
    assert_eq!(code, 78, "{said}");
    assert!(said.contains(&address), "{said}");
}
