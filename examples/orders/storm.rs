use std::process::ExitCode;
/// Storm
#[derive(clap::Args)]
pub struct StormArgs {}
impl StormArgs {
    pub async fn run(self) -> ExitCode {
        ExitCode::SUCCESS
    }
}
