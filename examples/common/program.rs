//! A program in a process of its own.

use std::{
    fs::File,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::Failure;

/// Above the relay's `--shutdown-timeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);

/// A running program; killed (SIGKILL) when dropped.
pub struct Program {
    name: &'static str,
    child: Child,
}

impl Program {
    /// Starts it; what it says goes to the log.
    pub fn start(name: &'static str, command: &mut Command, log: &File) -> Result<Self, Failure> {
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()?;
        Ok(Self { name, child })
    }

    /// An error, if it does not.
    pub fn still_runs(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the {} ended by itself: {status}", self.name).into()),
        }
    }

    /// SIGTERM; gives how it ended.
    pub async fn stop(mut self) -> Result<ExitStatus, Failure> {
        let name = self.name;
        let pid = self.child.id().to_string();
        // The shell's own kill: a small Debian has no other.
        let told = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &pid])
            .status()?;
        if !told.success() {
            return Err(format!("the {name} has gone before it was told to stop").into());
        }
        let began = Instant::now();
        while began.elapsed() < STOP_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(format!("the {name} still runs {STOP_TIMEOUT:?} after SIGTERM").into())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
