//! Faults of the database that leave the server as it is: locks, timeouts, limits, privileges.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{
    common::{
        broker::{Broker, Kind},
        database::Database,
        env,
        relay::until,
        unique,
    },
    scene::Scene,
};

pub const TERMINATE: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
     where datname = current_database() and application_name like 'outboxd/%'";

async fn scene() -> Scene {
    let (broker, database) = (Broker::shared(Kind::Rabbitmq), Database::new().await);
    let url = database.url.clone();
    Scene::new(database, &url, broker, &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_locked_for_longer_than_the_lock_timeout_is_waited_for() {
    let mut scene = scene().await;
    scene.load().await;
    let mut stranger = scene.database.connect().await;
    let lock = "begin; lock table outbox in access exclusive mode";
    sqlx::raw_sql(lock).execute(&mut stranger).await.unwrap();
    scene.misses("database_up").await;
    stranger.close().await.unwrap();
    scene.write(200).await;
    scene.recovers("a lock").await;
    assert!(scene.relay.log().contains("lock timeout"));
    assert_eq!(scene.ends().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_set_to_take_no_writes_is_left_alone() {
    let mut scene = scene().await;
    scene.load().await;
    let name = scene.database.name.clone();
    let set = |to: &str| format!("begin read write; alter database {name} {to}; commit");
    let on = set("set default_transaction_read_only = on");
    scene.database.execute(&on).await;
    scene.database.execute(TERMINATE).await;
    scene.misses("database_up").await;
    until("it is said why", || async {
        scene
            .relay
            .log()
            .contains("default_transaction_read_only is on")
    })
    .await;
    let off = set("reset default_transaction_read_only");
    scene.database.execute(&off).await;
    scene.recovers("a time without writes").await;
    assert_eq!(scene.ends().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_own_shorter_timeouts_do_not_disturb_it() {
    let (broker, database) = (Broker::shared(Kind::Rabbitmq), Database::new().await);
    for setting in [
        "idle_in_transaction_session_timeout = '1ms'",
        "statement_timeout = '500ms'",
        "lock_timeout = '1ms'",
        "default_transaction_isolation = 'serializable'",
    ] {
        let name = &database.name;
        let sql = format!("alter database {name} set {setting}");
        database.execute(&sql).await;
    }
    let url = database.url.clone();
    let mut scene = Scene::new(database, &url, broker, &[]).await;
    scene.load().await;
    scene.recovers("nothing").await;
    assert!(
        !scene.relay.log().contains("ERROR"),
        "{}",
        scene.relay.log()
    );
    assert_eq!(scene.ends().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_after_publishing_publishes_nothing_again() {
    let mut scene = scene().await;
    scene.load().await;
    fail_marking(&scene, "perform pg_sleep(3);").await;
    scene.write(200).await;
    scene.misses("database_up").await;
    mend_marking(&scene).await;
    scene.recovers("a slow statement").await;
    assert!(scene.relay.log().contains("statement timeout"));
    assert_eq!(scene.ends().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_or_serialization_failure_while_marking_is_tried_again() {
    let mut scene = scene().await;
    let database = &scene.database;
    database.execute("create sequence tries").await;
    for (turn, code) in ["40P01", "40001"].into_iter().enumerate() {
        let raise = format!(
            "if nextval('tries') % 20 < 3 then raise exception 'turn {turn}' using errcode = '{code}'; end if;"
        );
        fail_marking(&scene, &raise).await;
        scene.load().await;
        scene.recovers(code).await;
        assert!(scene.relay.log().contains(&format!("turn {turn}")));
        mend_marking(&scene).await;
    }
    assert_eq!(scene.ends().await, 0);
}

/// Has something happen in each statement that marks events.
async fn fail_marking(scene: &Scene, body: &str) {
    let sql = format!(
        "create function trouble() returns trigger language plpgsql as $$ begin {body} return null; end $$; \
         create trigger trouble before update on outbox for each statement execute function trouble()"
    );
    scene.database.execute(&sql).await;
}

async fn mend_marking(scene: &Scene) {
    let sql = "drop trigger trouble on outbox; drop function trouble()";
    scene.database.execute(sql).await;
}

/// A relay under a role of its own, which may do what it needs and nothing else.
async fn scene_of_a_role() -> (Scene, String) {
    let (broker, database) = (Broker::shared(Kind::Rabbitmq), Database::new().await);
    let role = unique("relay").replace('-', "_");
    let sql = format!(
        "create role {role} login password 'secret'; \
         grant select, update (published_at), delete on outbox to {role}; \
         grant select, insert, update, delete on outbox_failures, outbox_instances to {role}"
    );
    database.execute(&sql).await;
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("secret")).unwrap();
    (Scene::new(database, url.as_str(), broker, &[]).await, role)
}

async fn remove(scene: Scene, role: String) {
    // The database goes with the scene, and what the role might do in it.
    assert_eq!(scene.ends().await, 0);
    let server = PgConnection::connect(&env("TEST_POSTGRES_URL")).await;
    let sql = AssertSqlSafe(format!("drop role {role}"));
    let dropped = sqlx::raw_sql(sql).execute(&mut server.unwrap()).await;
    dropped.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_refused_for_their_number_are_waited_for() {
    let (mut scene, role) = scene_of_a_role().await;
    scene.load().await;
    let limit = format!("alter role {role} connection limit 0; {TERMINATE}");
    scene.database.execute(&limit).await;
    scene.misses("database_up").await;
    until("it is told why", || async {
        scene.relay.log().contains("too many connections for role")
    })
    .await;
    let unlimited = format!("alter role {role} connection limit -1");
    scene.database.execute(&unlimited).await;
    scene.write(200).await;
    scene.recovers("too many connections").await;
    remove(scene, role).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_privilege_that_is_revoked_is_named_and_waited_for() {
    let (mut scene, role) = scene_of_a_role().await;
    for (what, remedy) in [
        ("update (published_at) on outbox", "grant"),
        ("select on outbox", "grant"),
        ("select on outbox_failures", "grant"),
    ] {
        scene.load().await;
        let revoke = format!("revoke {what} from {role}");
        scene.database.execute(&revoke).await;
        scene.write(200).await;
        scene.misses("database_up").await;
        let log = scene.relay.log().to_lowercase();
        assert!(
            log.contains("permission denied") && log.contains(remedy),
            "{log}"
        );
        let grant = format!("grant {what} to {role}");
        scene.database.execute(&grant).await;
        scene.recovers(what).await;
    }
    remove(scene, role).await;
}
