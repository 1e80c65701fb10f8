//! The storm over one broker, with a database and a topic or queue of its own.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::time::sleep;
use url::Url;

use super::{
    clients::Clients,
    crew::{Binaries, Crew},
    depth::{self, Depth},
    figures::{self, Figures},
    progress,
    scene::Scene,
    verdict::Verdict,
};
use crate::common::{Failure, broker::Broker, database, relay};

/// How long to wait when nothing moves any more.
const PATIENCE: Duration = Duration::from_mins(1);
/// So long nothing must move before all is taken to be over.
const QUIET: Duration = Duration::from_secs(2);

/// Names and addresses; nothing exists before [`Leg::run`].
pub struct Leg {
    scene: Scene,
    server: Url,
    database: String,
    intents: u32,
    seed: u64,
}

/// What became of it.
pub struct Outcome {
    pub title: &'static str,
    pub figures: Figures,
    pub verdict: Verdict,
}

impl Outcome {
    /// Which numbers are wrong.
    pub fn wrong(&self) -> Vec<String> {
        let wrong = self.verdict.wrong().into_iter();
        wrong
            .map(|wrong| format!("{}: {wrong}", self.title))
            .collect()
    }
}

impl Leg {
    /// A leg with names of its own.
    pub fn new(
        broker: Broker,
        server: Url,
        redis_url: Option<String>,
        suffix: &str,
        intents: u32,
        seed: u64,
    ) -> Result<Self, Failure> {
        let name = format!("orders-{suffix}-{}", broker.sink());
        let database = name.replace('-', "_");
        let logs = std::env::temp_dir().join(&name);
        let database_url = database::url(&server, &database);
        Ok(Self {
            scene: Scene::new(broker, database_url, redis_url, name, logs)?,
            server,
            database,
            intents,
            seed,
        })
    }

    pub fn title(&self) -> &'static str {
        self.scene.broker.title()
    }

    /// The storm, the lull, and the count.
    pub async fn run(&self, binaries: &Binaries) -> Result<Outcome, Failure> {
        let (scene, began) = (&self.scene, Instant::now());
        database::create(&self.server, &self.database).await?;
        relay::migrate(
            &binaries.outboxd,
            &scene.database_url,
            &["--with", "effects"],
        )?;
        depth::create(&scene.broker, &scene.destination).await?;
        let mut crew = Crew::start(scene, binaries).await?;

        let clients = Clients::new(scene.services, self.intents, self.seed, &scene.destination);
        let shown = progress::show(self.title(), clients.counts(), self.intents);
        let answers = tokio::select! {
            answers = clients.run() => answers?,
            killed = crew.kill_at_random(self.seed) => return Err(killed),
        };
        drop(shown);
        crew.revive().await?;

        let pool = PgPool::connect(&scene.database_url).await?;
        self.await_quiet(&pool, &mut crew).await?;
        let kills = crew.stop().await?;
        let depth = depth::measure(&scene.broker, &scene.destination).await?;
        let verdict = Verdict::new(
            clients.intents(),
            &answers,
            &figures::books(&pool).await?,
            depth.left,
        );
        let figures = Figures {
            counts: clients.counts(),
            messages: depth.ever,
            skipped: figures::skipped(&scene.logs)?,
            kills,
            took: began.elapsed(),
        };
        pool.close().await;
        Ok(Outcome {
            title: self.title(),
            figures,
            verdict,
        })
    }

    /// Until the outbox and the broker are empty, or nothing moves any more.
    async fn await_quiet(&self, pool: &PgPool, crew: &mut Crew<'_>) -> Result<(), Failure> {
        let (mut before, mut since) = (None, Instant::now());
        loop {
            crew.still_runs()?;
            let pending = figures::pending(pool).await?;
            let payments = figures::payments(pool).await?;
            let Depth { left, .. } =
                depth::measure(&self.scene.broker, &self.scene.destination).await?;
            let now = Some((pending, payments, left));
            if now != before {
                (before, since) = (now, Instant::now());
            }
            let over = pending == 0 && left == 0;
            if since.elapsed() > if over { QUIET } else { PATIENCE } {
                return Ok(());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Removes database, topic and queues.
    pub async fn clean_up(&self) -> Result<(), Failure> {
        let dropped = database::remove(&self.server, &self.database).await;
        let deleted = depth::delete(&self.scene.broker, &self.scene.destination).await;
        dropped.and(deleted)
    }

    /// Removes the programs' logs, or says where they are.
    pub fn close_logs(&self, all_well: bool) {
        let logs: &PathBuf = &self.scene.logs;
        if !logs.exists() {
            return;
        }
        if !all_well {
            eprintln!("The logs of all programs: {}", logs.display());
        } else if let Err(error) = fs::remove_dir_all(logs) {
            eprintln!("{}: {error}", logs.display());
        }
    }
}
