//! One suite for every HTTP edge: the example's service, the same with Redis in front, and one in Python.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sqlx::Executor as _;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    common::{
        PrivateServices,
        database::Database,
        env, free_port,
        relay::{PATIENCE, until},
        unique,
    },
    http::{Answer, request},
    lab::{Program, database, in_mid_effect},
};

/// Which edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Service,
    ServiceWithRedis,
    Python,
}

/// A running edge.
struct Edge {
    program: Program,
    port: u16,
}

impl Edge {
    async fn start(kind: Kind, database: &Database, redis: &str, lock_for: &str) -> Self {
        let port = free_port();
        let url = &database.url;
        let mut program = if kind == Kind::Python {
            Program::python("edge.py", &[url, &port.to_string(), lock_for])
        } else {
            let listen = format!("127.0.0.1:{port}");
            let service = ["service", "--database-url", url, "--listen", &listen];
            let with_redis: &[&str] = match kind {
                Kind::ServiceWithRedis => &["--redis-url", redis],
                _ => &[],
            };
            Program::example(&[&service[..], &["--lock-for", lock_for], with_redis].concat())
        };
        until("the edge answers", || async {
            let answer = request(port, "GET", "/healthz", &[], "").await;
            answer.is_some_and(|answer| answer.status == 200)
        })
        .await;
        // Or somebody else answers at its port.
        program.runs();
        Self { program, port }
    }

    async fn order(&self, key: &str, cents: u32) -> Option<Answer> {
        order(self.port, "ann", key, cents).await
    }

    /// Asks until there is a final answer.
    async fn order_at_last(&self, key: &str, cents: u32) -> Answer {
        order_at_last(self.port, key, cents).await
    }
}

async fn order(port: u16, user: &str, key: &str, cents: u32) -> Option<Answer> {
    let headers = [("X-User", user), ("Idempotency-Key", key)];
    let body = format!(r#"{{"item":"book","cents":{cents}}}"#);
    request(port, "POST", "/orders", &headers, &body).await
}

async fn order_at_last(port: u16, key: &str, cents: u32) -> Answer {
    let asking = async {
        loop {
            match order(port, "ann", key, cents).await {
                Some(answer) if ![409, 503].contains(&answer.status) => return answer,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("a final answer")
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

async fn a_request_without_a_key_is_refused(kind: Kind) {
    let database = shop().await;
    let edge = Edge::start(kind, &database, &env("TEST_REDIS_URL"), "30s").await;
    let body = r#"{"item":"book","cents":5}"#;
    let refused = request(edge.port, "POST", "/orders", &[("X-User", "ann")], body).await;
    assert_eq!(refused.unwrap().status, 400);
    assert_eq!(orders(&database).await, (0, 0));
}

async fn a_retry_hears_the_same_response(kind: Kind) {
    let database = shop().await;
    let edge = Edge::start(kind, &database, &env("TEST_REDIS_URL"), "30s").await;
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

async fn a_key_belongs_to_its_user_and_its_request(kind: Kind) {
    let database = shop().await;
    let edge = Edge::start(kind, &database, &env("TEST_REDIS_URL"), "30s").await;
    let key = unique("key");
    assert_eq!(edge.order(&key, 5).await.unwrap().status, 201);
    assert_eq!(edge.order(&key, 6).await.unwrap().status, 422);
    let other = order(edge.port, "bob", &key, 6).await.unwrap();
    assert_eq!(other.status, 201);
    assert_eq!(orders(&database).await, (2, 2));
}

async fn of_200_at_once_one_is_started(kind: Kind) {
    let database = shop().await;
    let edge = Edge::start(kind, &database, &env("TEST_REDIS_URL"), "30s").await;
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

async fn a_failed_effect_may_be_retried_at_once(kind: Kind) {
    let database = shop().await;
    let edge = Edge::start(kind, &database, &env("TEST_REDIS_URL"), "1h").await;
    let key = unique("key");
    database.execute("alter table outbox rename to away").await;
    assert_eq!(edge.order(&key, 5).await.unwrap().status, 503);
    database.execute("alter table away rename to outbox").await;
    assert_eq!(edge.order(&key, 5).await.unwrap().status, 201);
    assert_eq!(orders(&database).await, (1, 1));
}

async fn a_holder_killed_in_mid_request_is_taken_over_once(kind: Kind) {
    let database = shop().await;
    let redis = env("TEST_REDIS_URL");
    let mut killed = Edge::start(kind, &database, &redis, "1h").await;
    let edge = Edge::start(kind, &database, &redis, "1h").await;
    let (port, key) = (killed.port, unique("key"));
    let mut held = database.connect().await;
    let lock = "begin; lock table outbox in exclusive mode";
    held.execute(lock).await.unwrap();
    let lost = tokio::spawn({
        let key = key.clone();
        async move { order(port, "ann", &key, 5).await }
    });
    in_mid_effect(&database).await;
    killed.program.kill();
    assert_eq!(lost.await.unwrap(), None);
    assert_eq!(edge.order(&key, 5).await.unwrap().status, 409);
    held.execute("rollback").await.unwrap();
    // An hour later.
    let later = "update idempotency_keys set locked_until = clock_timestamp()";
    database.execute(later).await;
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

suite! {
    [
        a_request_without_a_key_is_refused
        a_retry_hears_the_same_response
        a_key_belongs_to_its_user_and_its_request
        of_200_at_once_one_is_started
        a_failed_effect_may_be_retried_at_once
        a_holder_killed_in_mid_request_is_taken_over_once
    ]
    service: Kind::Service,
    service_with_redis: Kind::ServiceWithRedis,
    python: Kind::Python,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_going_down_in_the_middle_one_is_started_and_the_rest_goes_on() {
    let services = PrivateServices::up(&["redis"]);
    let redis = services.env("TEST_REDIS_URL");
    let database = shop().await;
    let edge = Edge::start(Kind::ServiceWithRedis, &database, &redis, "30s").await;
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
    let edge = Edge::start(Kind::ServiceWithRedis, &database, nowhere, "30s").await;
    let first = edge.order("key", 5).await.unwrap();
    assert_eq!(first.status, 201);
    let again = edge.order("key", 5).await.unwrap();
    assert_eq!(again.response(), first.response());
    assert_eq!(orders(&database).await, (1, 1));
}
