//! The shipped binary, as an operator would run it.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::Failure;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Above `--shutdown-timeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// A command of outboxd, without what the caller's environment would set.
fn outboxd(binary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OUTBOXD_") {
            command.env_remove(name);
        }
    }
    command
}

/// `outboxd migrate`.
pub fn migrate(binary: &Path, database_url: &str) -> Result<(), Failure> {
    let arguments = ["migrate", "--database-url", database_url];
    let output = outboxd(binary, &arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!("outboxd migrate: {}: {}", output.status, message.trim()).into())
}

/// A running relay; killed when dropped.
pub struct Relay {
    child: Child,
    address: SocketAddr,
}

impl Relay {
    /// `outboxd run`, until it is ready.
    pub async fn start(binary: &Path, settings: &[&str], log: File) -> Result<Self, Failure> {
        // Free now; should someone else take it in the next millisecond, the relay says so and ends.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let listen = address.to_string();
        let common = ["--listen", &listen, "--log-format", "json"];
        let arguments = [&["run"], settings, &common].concat();
        let child = outboxd(binary, &arguments)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut relay = Self { child, address };
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
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the relay ended by itself: {status}").into()),
        }
    }

    /// `GET /metrics`.
    pub async fn metrics(&self) -> Result<Metrics, Failure> {
        match self.get("/metrics").await? {
            (200, text) => Ok(Metrics(text)),
            (status, text) => Err(format!("/metrics answers {status}: {}", text.trim()).into()),
        }
    }

    /// Status and body. The relay closes the connection after its answer.
    async fn get(&self, path: &str) -> Result<(u16, String), Failure> {
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
    pub async fn stop(mut self) -> Result<ExitStatus, Failure> {
        let pid = self.child.id().to_string();
        // The shell's own kill: a small Debian has no other.
        let told = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &pid])
            .status()?;
        if !told.success() {
            return Err("the relay has gone before it was told to stop".into());
        }
        let began = Instant::now();
        while began.elapsed() < STOP_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(format!("the relay still runs {STOP_TIMEOUT:?} after SIGTERM").into())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `/metrics` says.
pub struct Metrics(String);

impl Metrics {
    /// The lines of a metric, as they are.
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter(move |line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        })
    }

    /// The sum over the lines of a counter or of a gauge that counts; `None` if it is not there.
    pub fn count(&self, name: &str) -> Option<usize> {
        let values = self
            .lines(name)
            .map(|line| line.rsplit(' ').next()?.parse().ok());
        values.reduce(|sum: Option<usize>, value| Some(sum? + value?))?
    }
}
