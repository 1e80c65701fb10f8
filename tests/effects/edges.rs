//! One suite for every HTTP edge: the example's service, the same with Redis in front, and one in Python.

use std::{
    collections::{HashMap, HashSet},
    net::TcpListener as StdListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    common::{PrivateServices, database::Database, env, relay::until, unique},
    lab::database,
};

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Service,
    ServiceWithRedis,
    Python,
}

/// A running edge; killed when dropped.
struct Edge {
    child: Child,
    port: u16,
}

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    /// What every retry must hear alike.
    fn response(&self) -> (u16, Option<&String>, &str) {
        (self.status, self.headers.get("location"), &self.body)
    }
}

/// The example of this build.
pub fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().join("../examples/orders");
    assert!(path.exists(), "cargo build --example orders comes first");
    path
}

impl Edge {
    async fn start(program: Program, database: &Database, redis: &str, lock: &str) -> Self {
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr();
        let port = port.unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let url = &database.url;
        let mut command = if program == Program::Python {
            let mut command = Command::new("/usr/bin/python3");
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/effects/edge.py");
            command.args([script, url, &port.to_string(), lock]);
            command
        } else {
            let mut command = Command::new(example());
            command.args(["service", "--database-url", url, "--listen", &listen]);
            command.args(["--lock-for", lock]);
            if program == Program::ServiceWithRedis {
                command.args(["--redis-url", redis]);
            }
            command
        };
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let edge = Self { child, port };
        until("the edge answers", || async {
            let answer = request(port, "GET", "/healthz", &[], "").await;
            answer.is_some_and(|answer| answer.status == 200)
        })
        .await;
        edge
    }

    async fn order(&self, key: &str, cents: u32) -> Option<Answer> {
        order(self.port, "ann", key, cents).await
    }

    /// Asks until there is a final answer.
    async fn order_at_last(&self, key: &str, cents: u32) -> Answer {
        order_at_last(self.port, key, cents).await
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let (status, headers) = head.split_once("\r\n")?;
    let headers = headers.lines().filter_map(|line| line.split_once(": "));
    Some(Answer {
        status: status.split(' ').nth(1)?.parse().ok()?,
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    })
}

async fn order(port: u16, user: &str, key: &str, cents: u32) -> Option<Answer> {
    let headers = [("X-User", user), ("Idempotency-Key", key)];
    let body = format!(r#"{{"item":"book","cents":{cents}}}"#);
    request(port, "POST", "/orders", &headers, &body).await
}

async fn order_at_last(port: u16, key: &str, cents: u32) -> Answer {
    loop {
        match order(port, "ann", key, cents).await {
            Some(answer) if ![409, 503].contains(&answer.status) => return answer,
            _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

/// As the example's service makes it.
const ORDERS: &str = "create table orders (id bigint generated always as identity primary key,
    customer text not null, item text not null, cents bigint not null)";

/// The shop's tables.
async fn shop() -> Arc<Database> {
    let database = database().await;
    database.execute(ORDERS).await;
    Arc::new(database)
}

/// Orders, and events of them.
async fn orders(database: &Database) -> (i64, i64) {
    (
        database.number("select count(*) from orders").await,
        database.number("select count(*) from outbox").await,
    )
}

async fn a_request_without_a_key_is_refused(program: Program) {
    let database = shop().await;
    let edge = Edge::start(program, &database, &env("TEST_REDIS_URL"), "30s").await;
    let body = r#"{"item":"book","cents":5}"#;
    let refused = request(edge.port, "POST", "/orders", &[("X-User", "ann")], body).await;
    assert_eq!(refused.unwrap().status, 400);
    assert_eq!(orders(&database).await, (0, 0));
}

async fn a_retry_hears_the_same_response(program: Program) {
    let database = shop().await;
    let edge = Edge::start(program, &database, &env("TEST_REDIS_URL"), "30s").await;
    let key = unique("key");
    let first = edge.order(&key, 5).await.unwrap();
    assert_eq!(first.status, 201, "{first:?}");
    assert!(first.headers.contains_key("location"));
    assert!(!first.headers.contains_key("idempotency-replayed"));
    for _ in 0..3 {
        let again = edge.order(&key, 5).await.unwrap();
        assert_eq!(again.response(), first.response());
        assert_eq!(again.headers["idempotency-replayed"], "true");
    }
    assert_eq!(orders(&database).await, (1, 1));
}

async fn a_key_belongs_to_its_user_and_its_request(program: Program) {
    let database = shop().await;
    let edge = Edge::start(program, &database, &env("TEST_REDIS_URL"), "30s").await;
    let key = unique("key");
    assert_eq!(edge.order(&key, 5).await.unwrap().status, 201);
    assert_eq!(edge.order(&key, 6).await.unwrap().status, 422);
    let other = order(edge.port, "bob", &key, 6).await.unwrap();
    assert_eq!(other.status, 201);
    assert_eq!(orders(&database).await, (2, 2));
}

async fn of_200_at_once_one_is_started(program: Program) {
    let database = shop().await;
    let edge = Edge::start(program, &database, &env("TEST_REDIS_URL"), "30s").await;
    let (port, key) = (edge.port, unique("key"));
    let mut all = JoinSet::new();
    for _ in 0..200 {
        let key = key.clone();
        all.spawn(async move { order(port, "ann", &key, 5).await.unwrap() });
    }
    let mut first = 0;
    let mut responses = HashSet::new();
    for answer in all.join_all().await {
        if answer.status == 201 {
            first += usize::from(!answer.headers.contains_key("idempotency-replayed"));
            responses.insert((answer.headers["location"].clone(), answer.body));
        } else {
            assert_eq!(answer.status, 409, "{answer:?}");
        }
    }
    assert_eq!((first, responses.len()), (1, 1));
    assert_eq!(orders(&database).await, (1, 1));
}

async fn a_failed_effect_may_be_retried_at_once(program: Program) {
    let database = shop().await;
    let edge = Edge::start(program, &database, &env("TEST_REDIS_URL"), "1h").await;
    let key = unique("key");
    database.execute("alter table outbox rename to away").await;
    assert_eq!(edge.order(&key, 5).await.unwrap().status, 503);
    database.execute("alter table away rename to outbox").await;
    assert_eq!(edge.order(&key, 5).await.unwrap().status, 201);
    assert_eq!(orders(&database).await, (1, 1));
}

async fn a_holder_killed_in_mid_request_is_taken_over_once(program: Program) {
    let database = shop().await;
    let redis = env("TEST_REDIS_URL");
    let mut killed = Edge::start(program, &database, &redis, "3s").await;
    let edge = Edge::start(program, &database, &redis, "3s").await;
    let (port, key) = (killed.port, unique("key"));
    let mut held = database.connect().await;
    let lock = "begin; lock table outbox in exclusive mode";
    sqlx::raw_sql(lock).execute(&mut held).await.unwrap();
    let lost = tokio::spawn({
        let key = key.clone();
        async move { order(port, "ann", &key, 5).await }
    });
    until("the holder is in the middle of its effect", || async {
        let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
        database.number(waits).await == 1
    })
    .await;
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert_eq!(lost.await.unwrap(), None);
    assert_eq!(edge.order(&key, 5).await.unwrap().status, 409);
    sqlx::raw_sql("rollback").execute(&mut held).await.unwrap();
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let (port, key) = (edge.port, key.clone());
        all.spawn(async move { order_at_last(port, &key, 5).await });
    }
    let answers = all.join_all().await;
    for answer in &answers {
        assert_eq!(answer.response(), answers[0].response());
        assert_eq!(answer.status, 201);
    }
    assert_eq!(orders(&database).await, (1, 1));
}

macro_rules! suite {
    ($($name:ident: $program:ident,)*) => { $(
        mod $name {
            use super::*;
            suite!(@cases $program:
                a_request_without_a_key_is_refused
                a_retry_hears_the_same_response
                a_key_belongs_to_its_user_and_its_request
                of_200_at_once_one_is_started
                a_failed_effect_may_be_retried_at_once
                a_holder_killed_in_mid_request_is_taken_over_once
            );
        }
    )* };
    (@cases $program:ident: $($case:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            super::$case(Program::$program).await;
        }
    )* };
}

suite! {
    service: Service,
    service_with_redis: ServiceWithRedis,
    python: Python,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_going_down_in_the_middle_one_is_started_and_the_rest_goes_on() {
    let services = PrivateServices::up(&["redis"]);
    let redis = services.env("TEST_REDIS_URL");
    let database = shop().await;
    let edge = Edge::start(Program::ServiceWithRedis, &database, &redis, "30s").await;
    let port = edge.port;
    let mut all = JoinSet::new();
    for number in 0..400 {
        let key = format!("key-{}", number / 200);
        all.spawn(async move { order_at_last(port, &key, 5).await });
        if number == 100 || number == 300 {
            services.run(&[["kill", "start"][number / 200], "redis"]);
        }
    }
    let mut responses = HashSet::new();
    for answer in all.join_all().await {
        assert_eq!(answer.status, 201, "{answer:?}");
        responses.insert(answer.body);
    }
    assert_eq!(responses.len(), 2);
    assert_eq!(orders(&database).await, (2, 2));
    let again = edge.order_at_last("key-0", 5).await;
    assert!(responses.contains(&again.body), "Redis has forgotten it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_away_from_the_start_the_service_serves() {
    let nowhere = "redis://127.0.0.1:1";
    let database = shop().await;
    let edge = Edge::start(Program::ServiceWithRedis, &database, nowhere, "30s").await;
    let first = edge.order("key", 5).await.unwrap();
    assert_eq!(first.status, 201);
    let again = edge.order("key", 5).await.unwrap();
    assert_eq!(again.response(), first.response());
    assert_eq!(orders(&database).await, (1, 1));
}
