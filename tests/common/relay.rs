//! The shipped binary as a child process.

use std::{
    collections::HashMap,
    fs::File,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{free_port, unique};

/// How long a condition may take to come true on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for a condition; says which one never came.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A relay; killed when dropped.
pub struct Relay {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Relay {
    /// Starts `outboxd run` with these flags.
    pub fn run(flags: &[&str]) -> Self {
        Self::run_in(&[], flags)
    }

    /// The same with further environment variables.
    pub fn run_in(environment: &[(&str, &str)], flags: &[&str]) -> Self {
        let binary = Command::new(env!("CARGO_BIN_EXE_outboxd"));
        Self::start(binary, environment, flags)
    }

    /// The same with a command that leads to the binary.
    pub fn start(command: Command, environment: &[(&str, &str)], flags: &[&str]) -> Self {
        Self::start_on("127.0.0.1", command, environment, flags)
    }

    /// Starts `outboxd run` with these flags, listening on that address.
    pub fn run_on(host: &str, flags: &[&str]) -> Self {
        let binary = Command::new(env!("CARGO_BIN_EXE_outboxd"));
        Self::start_on(host, binary, &[], flags)
    }

    fn start_on(
        host: &str,
        mut command: Command,
        environment: &[(&str, &str)],
        flags: &[&str],
    ) -> Self {
        let port = free_port();
        let log = std::env::temp_dir().join(unique("outboxd-log"));
        let errors = File::create(&log).unwrap();
        let child = command
            .arg("run")
            .env("OUTBOXD_LOG_FORMAT", "text")
            .envs(environment.iter().copied())
            .args(flags)
            .args(["--listen", &format!("{host}:{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap();
        Self { child, port, log }
    }

    /// The port it listens on, which its instance's name ends with.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until it can publish.
    pub async fn ready(self) -> Self {
        until(
            &format!("the relay is ready; log:\n{}", self.log()),
            || async {
                self.get("/readyz")
                    .await
                    .is_some_and(|(status, _)| status == 200)
            },
        )
        .await;
        self
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// A page's status and body; `None` when nobody answers.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        self.request("GET", path).await
    }

    pub async fn request(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Its metrics, by name and labels as they stand in the exposition.
    pub async fn metrics(&self) -> HashMap<String, f64> {
        let (_, text) = self.get("/metrics").await.expect("metrics");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    pub async fn metric(&self, name: &str) -> f64 {
        *self
            .metrics()
            .await
            .get(name)
            .unwrap_or_else(|| panic!("no metric {name}"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success(), "kill {signal}");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "it does not end; log:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGTERM, and its end.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.ended().await
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- a relay's log:\n{}", self.log());
        }
        drop(std::fs::remove_file(&self.log));
    }
}

/// Runs a command of the binary to its end: exit code, stdout, stderr.
pub fn outboxd(arguments: &[&str]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_outboxd"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        done.status.code().unwrap_or(-1),
        text(done.stdout),
        text(done.stderr),
    )
}
