//! A Prometheus of one's own, in a hurry: a minute of the rules is a quarter of a second here.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::common::{free_port, relay::until, unique};

/// Milliseconds for a minute of the rules.
const MINUTE_MS: u32 = 250;

pub const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/monitoring");

/// Prometheus; killed, and its files removed, when dropped.
pub struct Prometheus {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Prometheus {
    /// Starts one that scrapes that port as job `outboxd`, and waits until it answers.
    pub async fn scraping(port: u16) -> Self {
        let dir = std::env::temp_dir().join(unique("outboxd-prometheus"));
        fs::create_dir(&dir).unwrap();
        let rules = fs::read_to_string(Path::new(FILES).join("alerts.yaml")).unwrap();
        fs::write(dir.join("alerts.yaml"), hurried(&rules)).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 100ms, scrape_timeout: 100ms, evaluation_interval: 100ms }}\n\
             rule_files: [alerts.yaml]\n\
             scrape_configs: [{{ job_name: outboxd, static_configs: [{{ targets: ['127.0.0.1:{port}'] }}] }}]\n"
        );
        fs::write(dir.join("prometheus.yaml"), config).unwrap();
        let own = free_port();
        let log = fs::File::create(dir.join("log")).unwrap();
        let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let child = Command::new("prometheus")
            .arg(flag("config.file", &dir.join("prometheus.yaml")))
            .arg(flag("storage.tsdb.path", &dir.join("data")))
            // What is scraped is looked up every 5 s otherwise, the first time too.
            .arg("--scrape.discovery-reload-interval=100ms")
            .arg(format!("--web.listen-address=127.0.0.1:{own}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed by tests/services/services.sh");
        let prometheus = Self {
            child,
            port: own,
            dir,
        };
        until("Prometheus answers", || async {
            prometheus.ask("/-/ready").await.is_some()
        })
        .await;
        prometheus
    }

    /// The result of a query; panics when it is refused.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let path = format!("/api/v1/query?query={query}");
        let body = self.ask(&path).await.unwrap_or_default();
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        assert_eq!(answer["status"], "success", "{expression}: {body}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// The names of the alerts that fire.
    pub async fn firing(&self) -> BTreeSet<String> {
        let alerts = self.query("ALERTS{alertstate=\"firing\"}").await;
        let names = alerts.iter().map(|alert| &alert["metric"]["alertname"]);
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    /// The body of a good answer.
    async fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let good = head.split(' ').nth(1)? != "503";
        good.then(|| body.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log"));
            eprintln!("--- Prometheus's log:\n{}", log.unwrap_or_default());
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// The rules with every duration and every threshold that is one shortened alike.
fn hurried(rules: &str) -> String {
    let mut hurried = rules
        .replace("for: 24h", "for: 1440m")
        .replace("[1d]", "[1440m]");
    for minutes in [2, 5, 10, 15, 30, 1440] {
        let short = minutes * MINUTE_MS;
        hurried = hurried
            .replace(&format!("for: {minutes}m\n"), &format!("for: {short}ms\n"))
            .replace(&format!("[{minutes}m]"), &format!("[{short}ms]"));
    }
    for (minutes, seconds) in [(60, "> 3600"), (10, "> 600"), (1, "> 60")] {
        let short = f64::from(minutes * MINUTE_MS) / 1000.0;
        hurried = hurried.replace(&format!("{seconds}\n"), &format!("> {short}\n"));
    }
    hurried
}

/// Runs promtool; gives what it says, and panics when it finds fault.
pub fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(FILES)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed by tests/services/services.sh");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(done.status.success(), "promtool {arguments:?}: {said}");
    said
}
