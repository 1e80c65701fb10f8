//! The status page, as a real browser shows it, of real relays on real servers.
//!
//! Pictures are left in `target/tmp/status-page-*.png`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};
use futures_util::future::join_all;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use common::{
    broker::{Broker, Kind},
    browser::{look, picture},
    database::Database,
    proxy::Fault,
    relay::{Relay, until},
};

const DESKTOP: (u32, u32) = (1280, 1500);
const PHONE: (u32, u32) = (390, 1900);

fn page(relay: &Relay) -> String {
    format!("http://127.0.0.1:{}/", relay.port())
}

async fn status(relay: &Relay) -> Value {
    let (_, body) = relay.get("/status.json").await.unwrap();
    serde_json::from_str(&body).unwrap()
}

/// Waits until the status is as wanted.
async fn until_status(relay: &Relay, what: &str, is_so: impl Fn(&Value) -> bool) {
    until(what, || async { is_so(&status(relay).await) }).await;
}

/// Waits until the page says so.
async fn until_page(relay: &Relay, text: &str) {
    until(text, || async { look(&page(relay)).text.contains(text) }).await;
}

fn pictures(relay: &Relay, of: &str) {
    let path = |what: &str| {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("status-page-{of}-{what}.png"))
    };
    picture(&page(relay), &path("desktop"), DESKTOP, false);
    picture(&page(relay), &path("phone"), PHONE, true);
}

/// A steady load, until aborted.
async fn feed(url: &str, queue: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    loop {
        let sql = format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload) \
             select '{queue}', 'order-' || n, 'Tested', to_jsonb(n) from generate_series(1, 400) n"
        );
        let inserting = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection);
        inserting.await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn load_outage_and_recovery_are_told() {
    let (mut broker, database) = (Broker::shared(Kind::Rabbitmq), Database::new().await);
    let queue = broker.destination().await;
    let proxy = broker.behind_proxy().await;
    let flags = [
        &["--database-url", &database.url, "--batch-size", "400"][..],
        &broker.flags(),
    ]
    .concat();
    let relays = [
        Relay::run(&flags).ready().await,
        Relay::run(&flags).ready().await,
    ];
    let relay = &relays[0];
    look(&page(relay))
        .says("All is published")
        .says("RabbitMQ reachable");

    proxy.set(Fault::Slow);
    let feeding = tokio::spawn({
        let (url, queue) = (database.url.clone(), queue.clone());
        async move { feed(&url, &queue).await }
    });
    until_status(
        relay,
        "it publishes, and somebody works on lanes",
        |status| {
            status["published_total"].as_u64() > Some(0)
                && status["pending_events"].as_i64() > Some(0)
                && status["history"]
                    .as_array()
                    .is_some_and(|points| points.len() > 3)
                && status["scene"]["lanes"]
                    .as_array()
                    .is_some_and(|lanes| !lanes.is_empty())
        },
    )
    .await;
    look(&page(relay))
        .says("Publishing")
        .says("events on the way")
        .says("this one")
        .is_silent_about("cannot be used");
    pictures(relay, "load");

    proxy.set(Fault::Cut);
    until_status(relay, "the sink is down, and the lag grows", |status| {
        status["sink"]["trouble"].is_string() && status["lag_seconds"].as_f64() > Some(1.5)
    })
    .await;
    let seen = look(&page(relay));
    seen.says("RabbitMQ cannot be used")
        .says("none is lost")
        .is_silent_about("All is published");
    pictures(relay, "outage");

    feeding.abort();
    proxy.heal();
    until_status(relay, "all is published", |status| {
        status["pending_events"] == 0
            && status["lag_seconds"] == 0.0
            && status["sink"]["trouble"].is_null()
    })
    .await;
    until_page(relay, "All is published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_shown_as_text_whatever_is_in_them() {
    let (broker, database) = (Broker::shared(Kind::Kafka), Database::new().await);
    let topic = broker.destination().await;
    let evil = "<img src=x onerror=document.body.innerHTML=/taken/>";
    database
        .execute(&format!(
            "insert into outbox (aggregate_type, aggregate_id, event_type, payload, topic, headers) values \
             ('{topic}', '<b>order</b>', 'Tested', '\"secret\"', null, '[]'), ('{topic}', '<b>order</b>', 'Tested', '1', null, '{{}}'), \
             ('{topic}', 'order-2', 'Tested', '\"secret\"', '{evil}', '{{}}'), \
             ('{topic}', 'order-3', 'Tested', '1', '{topic}-missing', '{{}}')"
        ))
        .await;
    let flags = [
        &["--database-url", &database.url, "--on-dead", "hold"][..],
        &broker.flags(),
    ]
    .concat();
    let relay = Relay::run(&flags).ready().await;
    until_status(&relay, "both are dead, the third paused", |status| {
        status["dead_letters"] == 2
            && status["held_keys"] == 2
            && status["paused"]
                .as_array()
                .is_some_and(|paused| paused.len() == 1)
            && status["scene"]["failures"]
                .as_array()
                .is_some_and(|failures| failures.len() == 2)
    })
    .await;
    let seen = look(&page(&relay));
    seen.says(&format!("\"{evil}\" is not a topic name"))
        .says("headers are an array")
        .says("<b>order</b>");
    seen.says("2 held keys")
        .says("2 dead letters")
        .says("1 destination paused")
        .says(&format!("{topic}-missing"));
    seen.is_silent_about("/taken/ ").is_silent_about("secret");
    assert!(
        !seen.markup.contains("<img src=\"x\"") && !seen.markup.contains("<b>order"),
        "{}",
        seen.markup
    );
    pictures(&relay, "failures");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_told_at_once() {
    let (broker, database) = (Broker::shared(Kind::Kafka), Database::new().await);
    let (proxy, url) = database.through_proxy().await;
    let relay = Relay::run(&[&["--database-url", &url][..], &broker.flags()].concat())
        .ready()
        .await;
    until_status(&relay, "it has looked around", |status| {
        status["scene"].is_object()
    })
    .await;
    proxy.set(Fault::Cut);
    until_status(&relay, "the database is down", |status| {
        status["database"]["trouble"].is_string()
    })
    .await;
    look(&page(&relay))
        .says("The database cannot be used")
        .says("none is lost")
        .says("Kafka reachable");
    proxy.heal();
    until_status(&relay, "it is back", |status| {
        status["database"]["up"] == true
    })
    .await;
    until_page(&relay, "All is published").await;
}

/// A page that is open when its relay goes says so, and keeps what it knew.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_gone_is_told() {
    let (broker, database) = (Broker::shared(Kind::Kafka), Database::new().await);
    let relay = Relay::run(&[&["--database-url", &database.url][..], &broker.flags()].concat())
        .ready()
        .await;
    let mut routes = Router::new();
    let answered = Arc::new(AtomicBool::new(false));
    for (path, kind) in [
        ("/", "text/html"),
        ("/status.css", "text/css"),
        ("/status.js", "text/javascript"),
        ("/status.svg", "image/svg+xml"),
        ("/status.json", "application/json"),
    ] {
        let (_, body) = relay.get(path).await.unwrap();
        let answered = Arc::clone(&answered);
        let answer = async move || {
            if path == "/status.json" && answered.swap(true, SeqCst) {
                return StatusCode::BAD_GATEWAY.into_response();
            }
            ([("content-type", kind)], body).into_response()
        };
        routes = routes.route(path, get(answer));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
    look(&format!("http://{address}/"))
        .says("This relay does not answer")
        .says("PostgreSQL · public.outbox");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_viewers_cost_the_database_one_look_a_second() {
    let (broker, database) = (Broker::shared(Kind::Kafka), Database::new().await);
    let relay = Relay::run(&[&["--database-url", &database.url][..], &broker.flags()].concat())
        .ready()
        .await;
    let looks = || {
        database.number("select seq_scan + coalesce(idx_scan, 0) from pg_stat_user_tables where relname = 'outbox_instances'")
    };
    let (before, started) = (looks().await, Instant::now());
    for _ in 0..50 {
        join_all((0..20).map(|_| status(&relay))).await;
    }
    until("it has looked", || async {
        status(&relay).await;
        looks().await > before + 1
    })
    .await;
    // One for each begun second, and a sign of life every ten.
    let most = started.elapsed().as_secs_f64() * 1.1 + 3.0;
    let after = looks().await - before;
    assert!(after as f64 <= most, "{after} looks, {most} at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_changes_nothing_and_allows_no_script_but_its_own() {
    let (broker, database) = (Broker::shared(Kind::Kafka), Database::new().await);
    let relay = Relay::run(&[&["--database-url", &database.url][..], &broker.flags()].concat())
        .ready()
        .await;
    for path in ["/", "/status.json", "/status.js", "/status.css"] {
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(
                relay.request(method, path).await.unwrap().0,
                405,
                "{method} {path}"
            );
        }
    }
    let mut stream = TcpStream::connect(("127.0.0.1", relay.port()))
        .await
        .unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut html = String::new();
    stream.read_to_string(&mut html).await.unwrap();
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'",
        "x-content-type-options: nosniff",
    ] {
        assert!(html.contains(header), "{header}: {html}");
    }
    for inline in ["style=", "onload=", "onerror=", "<style", "://"] {
        assert!(!html.contains(inline), "{inline}");
    }
    assert!(
        !relay
            .get("/status.js")
            .await
            .unwrap()
            .1
            .contains("innerHTML")
    );
}
