//! A rival's program under measurement.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use rdkafka::consumer::BaseConsumer;
use tokio::time::sleep;

use crate::{
    common::Failure,
    meter::{self, Figures, Meter},
    stage::Scene,
    topic,
};

/// Between looks at a topic: seldom, as a look costs the broker something.
const LOOK: Duration = Duration::from_millis(100);
/// Without one more message.
const PATIENCE: Duration = Duration::from_mins(1);

/// When it is done.
#[derive(Clone, Copy)]
pub enum Ends {
    ByItself,
    /// It never ends: it is killed.
    WhenAllArrived,
}

/// Runs it; gives when it began, and what it cost.
pub async fn run(
    scene: &Scene<'_>,
    mut command: Command,
    ends: Ends,
) -> Result<(SystemTime, Figures), Failure> {
    let meter = Meter::start(scene).await?;
    let began = SystemTime::now();
    let mut running = Running(command.stdin(Stdio::null()).spawn()?);
    let mut peak_mib = 0.0;
    let mut progress = match ends {
        Ends::ByItself => None,
        Ends::WhenAllArrived => Some(Progress::new(scene)?),
    };
    loop {
        peak_mib = meter::peak_mib(running.0.id()).unwrap_or(peak_mib);
        if let Some(status) = running.0.try_wait()? {
            if status.success() && progress.is_none() {
                break;
            }
            return Err(format!("it ended: {status}").into());
        }
        if let Some(progress) = &mut progress
            && progress.is_complete()?
        {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    // Only of a child that was waited for does the meter tell its CPU time from the broker's, Java both.
    drop(running);
    let figures = meter.stop().await?;
    Ok((
        began,
        Figures {
            peak_mib,
            ..figures
        },
    ))
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Of messages into the topic.
struct Progress<'a> {
    scene: &'a Scene<'a>,
    consumer: BaseConsumer,
    looked: Instant,
    arrived: i64,
    grew: Instant,
}

impl<'a> Progress<'a> {
    fn new(scene: &'a Scene<'a>) -> Result<Self, Failure> {
        let now = Instant::now();
        Ok(Self {
            scene,
            consumer: topic::consumer(scene)?,
            looked: now,
            arrived: 0,
            grew: now,
        })
    }

    fn is_complete(&mut self) -> Result<bool, Failure> {
        if self.looked.elapsed() < LOOK {
            return Ok(false);
        }
        let arrived = topic::count(&self.consumer, self.scene)?;
        self.looked = Instant::now();
        if arrived > self.arrived {
            self.arrived = arrived;
            self.grew = self.looked;
        } else if self.grew.elapsed() > PATIENCE {
            return Err(format!("no more than {arrived} messages within {PATIENCE:?}").into());
        }
        Ok(arrived >= i64::try_from(self.scene.stage.rows)?)
    }
}
