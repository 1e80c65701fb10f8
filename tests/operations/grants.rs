//! `outboxd migrate --grant-to`: what it grants is what `check` asks for, and enough to relay with.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{
    common::{
        database::Database,
        relay::{Relay, until},
    },
    lab::{Ran, outboxd},
    privileges::{Role, sales},
};

const TABLE: [&str; 2] = ["--table", "sales.outbox"];

/// Migrates with the tables for effects, and grants.
fn migrate(url: &str, more: &[&str]) -> Ran {
    let usual = ["migrate", "--with", "effects"];
    outboxd(url, &[&usual, &TABLE[..], more].concat())
}

async fn empty() -> Database {
    let database = Database::empty().await;
    let path = format!("alter database {} set search_path = sales", database.name);
    database.execute(&path).await;
    database
}

/// All is well: not even a warning about a privilege.
fn assert_well(role: &Role) {
    for more in [&[][..], &["--on-published", "delete"]] {
        let checked = outboxd(&role.url, &[&["check"], &TABLE[..], more].concat()).exits(0);
        assert!(
            checked.stdout.contains("may do all that the relay does"),
            "{}",
            checked.stdout
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_step_makes_the_tables_and_lets_fresh_roles_relay() {
    let database = empty().await;
    let roles = [Role::new(&database).await, Role::new(&database).await];
    let names = format!("{},{}", roles[0].name, roles[1].name);
    let migrated = migrate(&database.url, &["--grant-to", &names]).exits(0);
    assert!(
        migrated.stderr.contains("granted to relay of"),
        "{}",
        migrated.stderr
    );
    migrate(&database.url, &["--grant-to", &names]).exits(0);
    roles.iter().for_each(assert_well);

    let expired = "insert into inbox (consumer, message_id, expires_at) values ('c', 'm', now() - interval '1 day')";
    for (role, on_published) in roles.iter().zip(["mark", "delete"]) {
        database.execute(expired).await;
        let flags = ["--database-url", &role.url, "--sink", "stdout"];
        let more = ["--on-published", on_published, "--retention", "1ms"];
        let relay = Relay::run(&[&flags[..], &TABLE, &more].concat());
        let relay = relay.ready().await;
        database.insert("orders", 100, 10).await;
        until("all is published, pruned and cleaned", || async {
            let left = "select (select count(*) from outbox) + (select count(*) from inbox)";
            database.number(left).await == 0
        })
        .await;
        let metrics = relay.metrics().await;
        let errors = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("outboxd_database_errors_total"));
        assert!(errors.into_iter().all(|(_, count)| *count < 0.5));
        assert!(relay.stop().await.success());
    }
    for role in roles {
        role.remove(&database).await;
    }
}

#[tokio::test]
async fn printed_grants_do_the_same() {
    let database = empty().await;
    let role = Role::new(&database).await;
    let printed = migrate("not looked at", &["--print", "--grant-to", &role.name]).exits(0);
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(printed.stdout))
        .execute(&mut connection)
        .await
        .unwrap();
    assert_well(&role);
    role.remove(&database).await;

    let without = outboxd("not looked at", &["migrate", "--print", "--grant-to", "r"]).exits(0);
    assert!(without.stdout.contains("grant"), "{}", without.stdout);
    assert!(!without.stdout.contains("inbox"), "there is none then");
}

#[tokio::test]
async fn a_role_that_is_not_there_is_named_and_nothing_is_made() {
    let database = Database::empty().await;
    let refused = migrate(&database.url, &["--grant-to", "no\"body"]).exits(78);
    assert!(
        refused.stderr.contains(r#"create role "no""body" login"#),
        "{}",
        refused.stderr
    );
    let made = "select count(*) from pg_namespace where nspname = 'sales'";
    assert_eq!(database.number(made).await, 0);
}

#[tokio::test]
async fn a_migrator_that_has_nothing_to_grant_says_whose_it_is() {
    let database = sales().await;
    let (migrator, relay) = (Role::new(&database).await, Role::new(&database).await);
    for all in ["all on schema sales", "all on all tables in schema sales"] {
        migrator.grant(&database, all).await;
    }
    let arguments = [&["migrate", "--grant-to", &relay.name], &TABLE[..]].concat();
    let refused = outboxd(&migrator.url, &arguments).exits(77);
    assert!(
        refused.stderr.contains(r#"as the owner of schema "sales""#),
        "{}",
        refused.stderr
    );
    relay.remove(&database).await;
    migrator.remove(&database).await;
}
