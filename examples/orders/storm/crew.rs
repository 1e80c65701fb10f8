//! All the programs: a relay, two services, two consumers; killed at random, and started again.

use std::{
    convert::Infallible,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fastrand::Rng;
use tokio::{net::TcpStream, time::sleep};

use super::scene::Scene;
use crate::common::{Failure, broker::Broker, program::Program, relay::Relay};

/// Between one death and the next, in milliseconds.
const BETWEEN_MS: std::ops::Range<u64> = 300..900;
/// From a death to the restart, in milliseconds.
const DEAD_FOR_MS: std::ops::Range<u64> = 0..500;
/// Short, so that the keys of killed services are taken over within the storm.
const LOCK_FOR: &str = "2s";
/// Far above what any client takes, and soon gone from a Redis that is not ours alone.
const KEEP_FOR: &str = "10m";
const START_TRIES: u32 = 200;

/// The programs to run.
pub struct Binaries {
    pub outboxd: PathBuf,
    pub orders: PathBuf,
}

/// What a program does.
#[derive(Clone, Copy)]
enum Role {
    Relay,
    /// By its number; the first one has Redis in front.
    Service(usize),
    /// By its number.
    Payments(usize),
}

const ROLES: [Role; 5] = [
    Role::Relay,
    Role::Service(0),
    Role::Service(1),
    Role::Payments(0),
    Role::Payments(1),
];

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Service(_) => "services",
            Self::Payments(_) => "payments",
        }
    }

    fn log(self, logs: &Path) -> std::io::Result<File> {
        let name = match self {
            Self::Relay => "relay.log".to_owned(),
            Self::Service(number) | Self::Payments(number) => {
                format!("{}-{number}.log", self.name())
            }
        };
        let path = logs.join(name);
        OpenOptions::new().create(true).append(true).open(path)
    }
}

/// A program that is there, or dead.
struct Member {
    role: Role,
    running: Option<Running>,
    kills: u32,
}

enum Running {
    Relay(Relay),
    Program(Program),
}

/// How often which programs were killed.
#[derive(Default)]
pub struct Kills {
    pub relay: u32,
    pub services: u32,
    pub payments: u32,
}

impl Kills {
    fn of(&mut self, role: Role) -> &mut u32 {
        match role {
            Role::Relay => &mut self.relay,
            Role::Service(_) => &mut self.services,
            Role::Payments(_) => &mut self.payments,
        }
    }
}

/// All programs of a leg.
pub struct Crew<'a> {
    scene: &'a Scene,
    binaries: &'a Binaries,
    members: Vec<Member>,
}

impl<'a> Crew<'a> {
    /// Starts all, and waits for the services.
    pub async fn start(scene: &'a Scene, binaries: &'a Binaries) -> Result<Self, Failure> {
        fs::create_dir_all(&scene.logs)?;
        let members = ROLES.map(|role| Member {
            role,
            running: None,
            kills: 0,
        });
        let mut crew = Self {
            scene,
            binaries,
            members: members.into(),
        };
        crew.revive().await?;
        for address in scene.services {
            let mut tries = 0;
            while TcpStream::connect(address).await.is_err() {
                tries += 1;
                crew.still_runs()?;
                if tries > START_TRIES {
                    return Err(format!("no service at {address}").into());
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(crew)
    }

    /// Starts whatever is dead.
    pub async fn revive(&mut self) -> Result<(), Failure> {
        for member in &mut self.members {
            if member.running.is_none() {
                let log = member.role.log(&self.scene.logs)?;
                member.running = Some(start(member.role, self.scene, self.binaries, &log).await?);
            }
        }
        Ok(())
    }

    /// SIGKILL to one after another, for ever; the restart comes a little later. Gives what prevents it.
    pub async fn kill_at_random(&mut self, seed: u64) -> Failure {
        let Err(failure) = self.killing(Rng::with_seed(seed)).await;
        failure
    }

    async fn killing(&mut self, mut rng: Rng) -> Result<Infallible, Failure> {
        loop {
            sleep(Duration::from_millis(rng.u64(BETWEEN_MS))).await;
            self.still_runs()?;
            let victim = rng.usize(..self.members.len());
            let victim = &mut self.members[victim];
            victim.running = None; // Killed when dropped.
            victim.kills += 1;
            sleep(Duration::from_millis(rng.u64(DEAD_FOR_MS))).await;
            self.revive().await?;
        }
    }

    /// An error, if one ended by itself.
    pub fn still_runs(&mut self) -> Result<(), Failure> {
        for member in &mut self.members {
            match &mut member.running {
                Some(Running::Relay(relay)) => relay.still_runs()?,
                Some(Running::Program(program)) => program.still_runs()?,
                None => {}
            }
        }
        Ok(())
    }

    /// SIGTERM to all: each must end well.
    pub async fn stop(self) -> Result<Kills, Failure> {
        let mut kills = Kills::default();
        for member in self.members {
            *kills.of(member.role) += member.kills;
            let exit = match member.running {
                Some(Running::Relay(relay)) => relay.stop().await?,
                Some(Running::Program(program)) => program.stop().await?,
                None => continue,
            };
            if !exit.success() {
                let name = member.role.name();
                return Err(format!("{name}: ended with {exit} after SIGTERM").into());
            }
        }
        Ok(kills)
    }
}

async fn start(
    role: Role,
    scene: &Scene,
    binaries: &Binaries,
    log: &File,
) -> Result<Running, Failure> {
    let program = match role {
        Role::Relay => {
            let [flag, address] = scene.broker.flag();
            let mut settings = vec!["--database-url", &scene.database_url, flag, address];
            if let Broker::Rabbitmq(_) = scene.broker {
                settings.extend(["--rabbitmq-exchange", &scene.destination]);
            }
            let relay = Relay::start(&binaries.outboxd, &settings, log).await?;
            return Ok(Running::Relay(relay));
        }
        Role::Service(number) => {
            Program::start("service", &mut service(number, scene, binaries), log)
        }
        Role::Payments(number) => {
            Program::start("payments", &mut payments(number, scene, binaries), log)
        }
    };
    Ok(Running::Program(program?))
}

/// Without what the caller's environment would set.
fn orders(subcommand: &str, scene: &Scene, binaries: &Binaries) -> Command {
    let mut command = Command::new(&binaries.orders);
    command.arg(subcommand).env_clear();
    command.env("DATABASE_URL", &scene.database_url);
    command.args(["--topic", &scene.destination]);
    command
}

fn service(number: usize, scene: &Scene, binaries: &Binaries) -> Command {
    let mut command = orders("service", scene, binaries);
    let address = scene.services[number].to_string();
    command.args(["--lock-for", LOCK_FOR, "--keep-for", KEEP_FOR]);
    command.args(["--listen", &address]);
    if let (0, Some(url)) = (number, &scene.redis_url) {
        command.env("REDIS_URL", url);
    }
    command
}

fn payments(number: usize, scene: &Scene, binaries: &Binaries) -> Command {
    let mut command = orders("payments", scene, binaries);
    // A Kafka group of its own, since the server has others.
    command.args(["--consumer", &scene.destination]);
    command.arg("--instance").arg(number.to_string());
    match &scene.broker {
        Broker::Kafka(brokers) => command.env("KAFKA_BROKERS", brokers),
        Broker::Rabbitmq(url) => command.env("RABBITMQ_URL", url),
    };
    command
}
