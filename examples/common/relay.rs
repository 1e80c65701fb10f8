//! The shipped binary, as an operator would run it.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{Failure, program::Program};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the binary is: as said, or beside the folder into which Cargo puts examples.
pub fn binary(said: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = match said {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("../outboxd"),
    };
    let found = path.canonicalize();
    found.map_err(|error| format!("{}: {error}; build it first", path.display()).into())
}

/// A command of outboxd, without what the caller's environment would set.
fn outboxd(binary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OUTBOXD_") {
            command.env_remove(name);
        }
    }
    command
}

/// `outboxd migrate`, with more arguments.
pub fn migrate(binary: &Path, database_url: &str, more: &[&str]) -> Result<(), Failure> {
    let arguments = [&["migrate", "--database-url", database_url], more].concat();
    let output = outboxd(binary, &arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!("outboxd migrate: {}: {}", output.status, message.trim()).into())
}

/// To find a free port.
const TRIES: u32 = 200;

/// A free port out of the reach of outgoing connections: one of those could take it before it is used, or
/// while its program is dead.
pub fn free_address() -> Result<SocketAddr, Failure> {
    for _ in 0..TRIES {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(10_000..20_000)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port".into())
}

/// A running relay; killed when dropped.
pub struct Relay {
    program: Program,
    address: SocketAddr,
}

impl Relay {
    /// `outboxd run`, until it is ready.
    pub async fn start(binary: &Path, settings: &[&str], log: &File) -> Result<Self, Failure> {
        let address = free_address()?;
        let listen = address.to_string();
        let common = ["--listen", &listen, "--log-format", "json"];
        let arguments = [&["run"], settings, &common].concat();
        let program = Program::start("relay", &mut outboxd(binary, &arguments), log)?;
        let mut relay = Self { program, address };
        relay.ready().await?;
        Ok(relay)
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            self.still_runs()?;
            let answer = self.get("/readyz").await;
            match answer {
                Ok((200, _)) => return Ok(()),
                Ok((_, reason)) if began.elapsed() > START_TIMEOUT => {
                    return Err(format!("the relay is not ready: {}", reason.trim()).into());
                }
                Err(error) if began.elapsed() > START_TIMEOUT => return Err(error),
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// An error, if it does not.
    pub fn still_runs(&mut self) -> Result<(), Failure> {
        self.program.still_runs()
    }

    /// Status and body of a `GET`. The relay closes the connection after its answer.
    pub async fn get(&self, path: &str) -> Result<(u16, String), Failure> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut response = String::new();
            stream.read_to_string(&mut response).await?;
            Ok::<_, std::io::Error>(response)
        };
        let response = timeout(HTTP_TIMEOUT, exchange).await??;
        let (head, body) = response.split_once("\r\n\r\n").ok_or("half an answer")?;
        let status = head.split(' ').nth(1).ok_or("an answer without a status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// SIGTERM; gives how it ended.
    pub async fn stop(self) -> Result<ExitStatus, Failure> {
        self.program.stop().await
    }
}
