//! Java for Debezium Server.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::Failure;

/// What Debezium 3 is compiled for.
const OLDEST: u32 = 21;
const INSTALLED: &str = "/usr/lib/jvm";

/// That of `JAVA_HOME`, that on the `PATH`, or one that is installed: the first which is new enough.
pub fn find() -> Result<PathBuf, Failure> {
    let mut candidates = Vec::new();
    if let Some(home) = env::var_os("JAVA_HOME") {
        candidates.push(Path::new(&home).join("bin/java"));
    }
    candidates.push("java".into());
    let installed = fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = installed.map(|home| home.path().join("bin/java")).collect();
    installed.sort();
    candidates.extend(installed);
    let mut too_old = Vec::new();
    for java in candidates {
        match version(&java) {
            Some(version) if version >= OLDEST => return Ok(java),
            Some(version) => too_old.push(format!("{} is {version}", java.display())),
            None => {}
        }
    }
    Err(format!(
        "Debezium Server needs Java {OLDEST} or later ({}). Install one (Debian 13: `apt-get install \
         openjdk-21-jre-headless`; Debian 12 has only 17: Eclipse Temurin, say) and, unless it is in \
         {INSTALLED}, set JAVA_HOME. Or leave Debezium out: CELLS='outboxd poller'.",
        too_old.join(", ")
    )
    .into())
}

/// The 21 of `openjdk version "21.0.2" 2024-01-16`.
fn version(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").output().ok()?;
    let text = String::from_utf8(output.stderr).ok()?;
    let version = text.split('"').nth(1)?;
    version.split(['.', '-', '+']).next()?.parse().ok()
}
