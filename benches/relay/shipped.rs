//! The shipped binary, with its defaults.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    common::Failure,
    meter::{self, Figures, Meter},
    stage::Scene,
};

/// Built along with the benchmark.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_outboxd"))
}

/// `outboxd drain`, from its start to its end.
pub async fn drain(scene: &Scene<'_>) -> Result<Figures, Failure> {
    let stage = scene.stage;
    let meter = Meter::start(scene).await?;
    let mut relay = Command::new(binary())
        .args(["drain", "--database-url", &scene.database_url])
        .args([stage.kind.flag(), stage.broker])
        .args(["--on-published", stage.mode.name()])
        .args(["--listen", "127.0.0.1:0", "--log-level", "warn"])
        .stdin(Stdio::null())
        .spawn()?;
    let mut peak_mib = 0.0;
    let status = loop {
        if let Some(status) = relay.try_wait()? {
            break status;
        }
        peak_mib = meter::peak_mib(relay.id()).unwrap_or(peak_mib);
        sleep(Duration::from_millis(10)).await;
    };
    if !status.success() {
        return Err(format!("outboxd drain: {status}").into());
    }
    Ok(Figures {
        peak_mib,
        ..meter.stop().await?
    })
}
