//! Environment variables that look like ours and are not.

use std::collections::HashSet;

use clap::CommandFactory;

use super::Cli;

/// Warns about `OUTBOXD_…` variables that no setting reads: a typing error, most likely. Not fatal:
/// Kubernetes injects `OUTBOXD_PORT` and the like for a Service called `outboxd`.
pub fn warn_about_unknown() {
    let mut known = HashSet::new();
    collect(&Cli::command(), &mut known);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("OUTBOXD_") && !known.contains(name.as_ref()) {
            tracing::warn!(variable = %name, "environment variable {name} is not a setting: a typing error?");
        }
    }
}

fn collect(command: &clap::Command, known: &mut HashSet<String>) {
    for argument in command.get_arguments() {
        known.extend(
            argument
                .get_env()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    for subcommand in command.get_subcommands() {
        collect(subcommand, known);
    }
}
