//! The shipped binary, with its defaults.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    arrivals::Counter,
    common::Failure,
    meter::{self, Figures, Meter},
    stage::Scene,
};

/// How often to look whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often to ask the broker how much has arrived.
const COUNT_EVERY: Duration = Duration::from_millis(50);
/// Above the relay's `--shutdown-timeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);

/// Built along with the benchmark.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_outboxd"))
}

/// A running relay; killed when dropped.
pub struct Relay {
    child: Child,
    pub peak_mib: f64,
}

impl Relay {
    /// `outboxd run` or `outboxd drain`, with more arguments.
    pub fn start(scene: &Scene<'_>, command: &str, more: &[&str]) -> Result<Self, Failure> {
        let stage = scene.stage;
        let child = Command::new(binary())
            .args([command, "--database-url", &scene.database_url])
            .args([stage.kind.flag(), stage.broker, "--topic", &scene.name])
            .args(["--on-published", stage.mode.name()])
            .args(["--listen", "127.0.0.1:0", "--log-level", "warn"])
            .args(more)
            .stdin(Stdio::null())
            .spawn()?;
        let peak_mib = 0.0;
        Ok(Self { child, peak_mib })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, as it should.
    pub fn has_ended(&mut self) -> Result<bool, Failure> {
        match self.child.try_wait()? {
            None => {
                self.peak_mib = meter::peak_mib(self.pid()).unwrap_or(self.peak_mib);
                Ok(false)
            }
            Some(status) if status.success() => Ok(true),
            Some(status) => Err(format!("outboxd: {status}").into()),
        }
    }

    /// SIGTERM; waits until it has ended.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        let pid = self.pid().to_string();
        // The shell's own kill: a small Debian has no other.
        let kill = ["-c", "kill -TERM \"$0\"", &pid];
        Command::new("sh").args(kill).status()?;
        let began = Instant::now();
        while !self.has_ended()? {
            if began.elapsed() > STOP_TIMEOUT {
                return Err("outboxd does not stop".into());
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `outboxd drain`, from its start to its end.
pub async fn drain(scene: &Scene<'_>) -> Result<Figures, Failure> {
    drain_with(scene, 1, &[]).await
}

/// So many of them at once, from their start to the end of the last.
pub async fn drain_with(
    scene: &Scene<'_>,
    replicas: usize,
    more: &[&str],
) -> Result<Figures, Failure> {
    let meter = Meter::start(scene).await?;
    let start = |_| Relay::start(scene, "drain", more);
    let mut relays: Vec<Relay> = (0..replicas).map(start).collect::<Result<_, _>>()?;
    let mut peak_mib = 0.0_f64;
    while !relays.is_empty() {
        sleep(LOOK_EVERY).await;
        let mut running = Vec::new();
        for mut relay in relays {
            let ended = relay.has_ended()?;
            peak_mib = peak_mib.max(relay.peak_mib);
            if !ended {
                running.push(relay);
            }
        }
        relays = running;
    }
    Ok(Figures {
        peak_mib,
        ..meter.stop().await?
    })
}

/// `outboxd run`, from its start until the broker has all that can be published.
pub async fn run(scene: &Scene<'_>) -> Result<Figures, Failure> {
    let counter = Counter::open(scene).await?;
    let mut meter = Meter::start(scene).await?;
    let mut relay = Relay::start(scene, "run", &[])?;
    while counter.count().await? < scene.stage.rows {
        if relay.has_ended()? {
            return Err("outboxd run has ended by itself".into());
        }
        sleep(COUNT_EVERY).await;
    }
    meter.done();
    relay.stop().await?;
    Ok(Figures {
        peak_mib: relay.peak_mib,
        ..meter.stop().await?
    })
}
