//! Every flag of `run` with hostile values, through the real parser: never a panic, and what is
//! refused is refused by the flag's name, without a secret.

#![allow(clippy::unwrap_used, reason = "tests")]

use clap::{CommandFactory as _, Parser as _};
use outboxd::cli::{Cli, Command};
use proptest::prelude::*;

const HOSTILE: [&str; 24] = [
    "",
    " ",
    "\u{0}",
    "\r\n",
    "-1",
    "0",
    "99999999999999999999",
    "1e999",
    "NaN",
    "∞",
    "1s 1s 1s",
    "18446744073709551615years",
    "99999999999TiB",
    "-5MiB",
    "a.b.c",
    "\"; drop table outbox; --",
    "\"\"\".\"",
    "{",
    "{}}{{",
    "postgres://k4nary:k4nary@[::1/x",
    "amqp://k4nary:k4nary@h:99999/%zz",
    "host:0,,@:,",
    "/no/such/file",
    "🦀\u{202e}\u{301}",
];

fn flags() -> Vec<String> {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    let takes_value = run
        .get_arguments()
        .filter(|flag| flag.get_action().takes_values());
    takes_value
        .filter_map(|flag| flag.get_long().map(Into::into))
        .collect()
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(&HOSTILE[..]).prop_map(Into::into),
        1 => r#"[\PC\x00-\x1f'"\\{}]{0,80}"#,
        1 => r"(postgres|amqp|amqps|mysql)://\PC{0,20}:k4nary@\PC{0,20}",
        1 => Just("x".repeat(70_000)),
    ]
}

/// What is wrong with a command line, if anything.
fn problems_of(arguments: &[String]) -> Option<String> {
    let line = ["outboxd", "run"].map(String::from);
    match Cli::try_parse_from(line.iter().chain(arguments)) {
        Err(error) => Some(error.to_string()),
        Ok(Cli {
            command: Command::Run(args),
        }) => args
            .validate()
            .err()
            .map(|problems| problems.list().join("\n")),
        Ok(_) => unreachable!("it is `run`"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_value_is_taken_or_refused_by_its_flags_name(flag in prop::sample::select(flags()), value in any_value()) {
        let mut arguments = vec![format!("--{flag}={value}")];
        for (other, good) in [("database-url", "postgres://127.0.0.1/x"), ("sink", "stdout")] {
            if flag != other {
                arguments.push(format!("--{other}={good}"));
            }
        }
        if let Some(problems) = problems_of(&arguments) {
            prop_assert!(problems.contains("--"), "{flag}: {problems}");
            let about = flag.trim_end_matches("-file").split('-').next().unwrap();
            prop_assert!(problems.contains(about), "{flag}={value:?}: {problems}");
            if flag.contains("url") {
                prop_assert!(!problems.contains("k4nary"), "{problems}");
            }
        }
    }

    #[test]
    fn a_table_is_quoted_or_refused(name in r#"\PC{0,20}["'.;\x00 -]{0,4}\PC{0,50}"#) {
        if let Ok(names) = outboxd::outbox::Names::parse(&name) {
            let sql = names.outbox();
            // A quote inside is doubled, and so leaves nothing outside.
            let outside: String = sql.split('"').step_by(2).collect();
            prop_assert_eq!(outside, ".");
            prop_assert!(!sql.contains('\0'));
        }
    }
}
