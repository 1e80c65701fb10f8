//! What several test binaries need: the servers' addresses, unique names, brokers of one's own.

#![allow(
    dead_code,
    unused_macros,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "tests; and each binary uses a part of this"
)]

/// Runs tests on each broker, each under its own name.
macro_rules! on_each_broker {
    ($($test:ident),* $(,)?) => {
        mod kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                Box::pin(super::$test(crate::common::broker::Kind::Kafka)).await;
            })*
        }
        mod rabbitmq {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                Box::pin(super::$test(crate::common::broker::Kind::Rabbitmq)).await;
            })*
        }
    };
}

pub mod broker;
pub mod browser;
pub mod database;
pub mod kafka;
pub mod proxy;
pub mod rabbitmq;
pub mod relay;
pub mod sending;

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::runtime::{Handle, RuntimeFlavor};

/// A variable that `make test` sets.
pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run the tests through `make test`, which starts the servers")
    })
}

/// A name no other test, process or run uses.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (pid, count) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    format!("{prefix}-{:x}-{pid:x}-{count}", time.as_micros())
}

/// A port that nobody listens on, and that no connection takes meanwhile: below the kernel's own range for
/// outgoing ones, below the servers' (20,000 and up), and not given twice by this process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number =
            std::process::id().wrapping_mul(7) % 10_000 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + number % 10_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Runs what blocks, and lets a test's other tasks go on meanwhile where its runtime can: a proxy that
/// stands still may be what it waits for.
pub fn blocking<T>(run: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(run),
        _ => run(),
    }
}

/// The `host:port` in a URL.
pub fn address_in(url: &str) -> &str {
    let (_, rest) = url.split_once('@').unwrap();
    rest.split_once('/').unwrap().0
}

/// The same URL with another `host:port`.
pub fn with_address(url: &str, address: &str) -> String {
    url.replacen(address_in(url), address, 1)
}

/// A set of servers of one's own, to be stopped and started; gone when dropped.
pub struct PrivateServices {
    dir: PathBuf,
}

impl PrivateServices {
    /// Starts such servers.
    pub fn up(servers: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(unique("outboxd-services"));
        let services = Self { dir };
        services.run(&[&["up"], servers].concat());
        services
    }

    /// Runs `services.sh` on this set.
    pub fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env("TEST_SERVICES"));
        command.args(arguments).env("SERVICES_DIR", &self.dir);
        let output = blocking(|| command.output()).unwrap();
        assert!(
            output.status.success(),
            "services.sh {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// A variable of this set's environment.
    pub fn env(&self, name: &str) -> String {
        let lines = self.run(&["env"]);
        let prefix = format!("export {name}='");
        let line = lines.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap().trim_end_matches('\'').to_owned()
    }
}

impl Drop for PrivateServices {
    fn drop(&mut self) {
        let mut command = Command::new(env("TEST_SERVICES"));
        command.arg("destroy").env("SERVICES_DIR", &self.dir);
        let destroyed = blocking(|| command.status());
        drop(destroyed); // a failing test must not fail twice
    }
}
