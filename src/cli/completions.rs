//! `outboxd completions`: a completion script for the shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failed, output};

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_help = "Examples:
  outboxd completions bash > /etc/bash_completion.d/outboxd
  outboxd completions zsh > \"${fpath[1]}/_outboxd\"
  outboxd completions fish > ~/.config/fish/completions/outboxd.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failed> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "outboxd", &mut script);
        output::text(&String::from_utf8_lossy(&script))
    }
}
