//! The binary: parses the command line and runs the command.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use outboxd::cli::{Cli, exit};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() {
                exit::USAGE
            } else {
                exit::OK
            };
            if error.print().is_err() {
                return ExitCode::from(exit::FAILURE);
            }
            return ExitCode::from(code);
        }
    };
    match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let code = runtime.block_on(cli.run());
            // A thread may be stuck in a pipe or a resolver: that must not keep the process.
            runtime.shutdown_timeout(Duration::from_secs(1));
            code
        }
        Err(error) => {
            eprintln!("outboxd: the runtime does not start: {error}");
            ExitCode::from(exit::SOFTWARE)
        }
    }
}
