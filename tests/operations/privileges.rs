//! Least privilege: the documented GRANTs suffice for every statement, and each that is missing is named.

use outboxd::{
    event::{Failure, RowId},
    outbox::{Confirmed, PruneCursor},
    sink::{Reason, ReasonKind},
};

use crate::{
    common::{
        database::Database,
        relay::{Relay, until},
        unique,
    },
    lab::{claim, event_id, insert, outbox_of, outboxd, publish_all},
};
use std::time::Duration;

const GRANTS: [&str; 5] = [
    "usage on schema sales",
    "select on sales.outbox",
    "update (published_at) on sales.outbox",
    "delete on sales.outbox",
    "select, insert, update, delete on sales.outbox_failures, sales.outbox_instances",
];

/// A role that may log in, and nothing else; gone when removed.
pub struct Role {
    pub name: String,
    pub url: String,
}

impl Role {
    pub async fn new(database: &Database) -> Self {
        // A name that must be quoted.
        let name = unique("relay of \"sales\"");
        database
            .execute(&format!(
                "create role {} login password 'secret'",
                quoted(&name)
            ))
            .await;
        let mut url = url::Url::parse(&database.url).unwrap();
        url.set_username(&name).unwrap();
        url.set_password(Some("secret")).unwrap();
        Self {
            name,
            url: url.into(),
        }
    }

    pub async fn grant(&self, database: &Database, grant: &str) {
        database
            .execute(&format!("grant {grant} to {}", quoted(&self.name)))
            .await;
    }

    pub async fn remove(self, database: &Database) {
        let name = quoted(&self.name);
        database
            .execute(&format!("drop owned by {name}; drop role {name}"))
            .await;
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub async fn sales() -> Database {
    let database = Database::empty().await;
    outboxd(&database.url, &["migrate", "--table", "sales.outbox"]).exits(0);
    database
        .execute(&format!(
            "alter database {} set search_path = sales",
            database.name
        ))
        .await;
    database
}

#[tokio::test]
async fn the_documented_grants_suffice_for_everything() {
    let database = sales().await;
    let role = Role::new(&database).await;
    for grant in GRANTS {
        role.grant(&database, grant).await;
    }
    outboxd(&role.url, &["check", "--table", "sales.outbox"]).exits(0);
    for deletes in [false, true] {
        let outbox = outbox_of(&role.url, "sales.outbox", deletes);
        let mut link = outbox.link().await.unwrap();
        outbox.verify(&mut link).await.unwrap();
        outbox.register(&mut link, "relay").await.unwrap();
        database.insert("orders", 20, 5).await;
        let claim = claim(&outbox, &mut link).await;
        let failure = Failure {
            index: 0,
            attempts: 1,
            retry_in: None,
            holds: false,
            reason: Reason::new(ReasonKind::Refused, "no"),
        };
        let event = &claim.events[0];
        let confirmed = Confirmed {
            id: event.id.clone(),
            event_id: event.message.id.clone(),
        };
        outbox
            .settle(&mut link, &claim.events, &[], &[], &[failure])
            .await
            .unwrap();
        outbox
            .settle_confirmed(&mut link, &[confirmed])
            .await
            .unwrap();
        assert!(publish_all(&outbox, &mut link).await > 0);
        outbox.sample(&mut link).await.unwrap();
        outbox.is_anything_left(&mut link).await.unwrap();
        outbox
            .heartbeat(&mut link, "relay", [("a", "b")].into_iter())
            .await
            .unwrap();
        outbox
            .note_trial(&mut link, "relay", Some(&RowId::Number(1)))
            .await
            .unwrap();
        outbox.sign_off(&mut link, "relay").await.unwrap();
        outbox
            .prune_step(
                &mut link,
                &mut PruneCursor::default(),
                Duration::from_millis(1),
            )
            .await
            .unwrap();
    }
    for command in [
        &["status"][..],
        &["peek"],
        &["dead", "list"],
        &["dead", "retry", "--all"],
        &["dead", "discard", "--all", "--state", "retrying"],
        &["prune"],
    ] {
        outboxd(&role.url, &[command, &["--table", "sales.outbox"]].concat()).exits(0);
    }
    role.remove(&database).await;
}

#[tokio::test]
async fn each_missing_grant_is_named_and_the_printed_one_mends_it() {
    let database = sales().await;
    for missing in GRANTS {
        let role = Role::new(&database).await;
        for grant in GRANTS.iter().filter(|grant| **grant != missing) {
            role.grant(&database, grant).await;
        }
        let report = outboxd(&role.url, &["check", "--json", "--table", "sales.outbox"])
            .exits(77)
            .json();
        let errors = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["severity"] == "error");
        let remedies: Vec<String> = errors
            .map(|finding| finding["remedy"].as_str().unwrap().to_owned())
            .collect();
        assert!(!remedies.is_empty(), "{missing}: {report:#}");
        for remedy in &remedies {
            let grant = remedy
                .split("; or")
                .next()
                .unwrap()
                .split(", then")
                .next()
                .unwrap();
            assert!(
                grant.starts_with("grant ") && grant.ends_with(&quoted(&role.name)),
                "{grant}"
            );
            database.execute(grant).await;
        }
        outboxd(&role.url, &["check", "--table", "sales.outbox"]).exits(0);
        role.remove(&database).await;
    }
}

#[tokio::test]
async fn without_delete_pruning_names_both_remedies_and_retention_0_needs_none() {
    let database = sales().await;
    let role = Role::new(&database).await;
    for grant in GRANTS.iter().filter(|grant| !grant.starts_with("delete")) {
        role.grant(&database, grant).await;
    }
    let refused = outboxd(&role.url, &["check", "--table", "sales.outbox"])
        .exits(77)
        .stdout;
    assert!(
        refused.contains("grant delete on") && refused.contains("--retention 0"),
        "{refused}"
    );
    outboxd(
        &role.url,
        &["check", "--table", "sales.outbox", "--retention", "0"],
    )
    .exits(0);
    let refused = outboxd(
        &role.url,
        &[
            "check",
            "--table",
            "sales.outbox",
            "--retention",
            "0",
            "--on-published",
            "delete",
        ],
    )
    .exits(77)
    .stdout;
    assert!(refused.contains("delete published rows"), "{refused}");
    let outbox = outbox_of(&role.url, "sales.outbox", false);
    database.insert("orders", 5, 5).await;
    assert_eq!(
        publish_all(&outbox, &mut outbox.link().await.unwrap()).await,
        5
    );
    let refused = outboxd(
        &role.url,
        &["prune", "--table", "sales.outbox", "--retention", "1ms"],
    )
    .exits(77);
    assert!(
        refused.stderr.contains("permission denied"),
        "{}",
        refused.stderr
    );
    role.remove(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_may_not_prune_counts_it_and_publishes_all_the_same() {
    let database = sales().await;
    let role = Role::new(&database).await;
    for grant in GRANTS.iter().filter(|grant| !grant.starts_with("delete")) {
        role.grant(&database, grant).await;
    }
    let flags = ["--database-url", &role.url, "--table", "sales.outbox"];
    let relay = Relay::run(&[&flags[..], &["--sink", "stdout"]].concat());
    let relay = relay.ready().await;
    let refusals = "outboxd_database_errors_total{operation=\"prune\"}";
    until("it is counted", || async {
        relay.metric(refusals).await > 0.5
    })
    .await;
    assert!(relay.log().contains("grant DELETE on the outbox"));
    database.insert("orders", 10, 1).await;
    until("events are published", || async {
        database.pending().await == 0
    })
    .await;
    assert!(relay.metric("outboxd_database_up").await > 0.5);
    relay.stop().await;
    role.remove(&database).await;
}

#[tokio::test]
async fn row_security_that_hides_events_is_refused() {
    let database = sales().await;
    let role = Role::new(&database).await;
    for grant in GRANTS {
        role.grant(&database, grant).await;
    }
    database
        .execute("alter table sales.outbox enable row level security")
        .await;
    let refused = outboxd(&role.url, &["check", "--table", "sales.outbox"])
        .exits(78)
        .stdout;
    assert!(refused.contains("row security"), "{refused}");
    outboxd(&database.url, &["check", "--table", "sales.outbox"]).exits(0);
    role.remove(&database).await;
}

#[tokio::test]
async fn a_refused_password_is_77() {
    let database = sales().await;
    let role = Role::new(&database).await;
    let wrong = role.url.replace("secret", "other");
    outboxd(&wrong, &["check", "--table", "sales.outbox"]).exits(77);
    role.remove(&database).await;
}

#[tokio::test]
async fn a_role_of_its_own_may_redrive() {
    let database = Database::new().await;
    let id = insert(&database, "a").await;
    crate::lab::fail(&database, id, "dead", true).await;
    let role = Role::new(&database).await;
    role.grant(&database, "select on outbox").await;
    role.grant(&database, "select on outbox_instances").await;
    role.grant(&database, "select, update, delete on outbox_failures")
        .await;
    outboxd(
        &role.url,
        &["dead", "retry", &event_id(&database, id).await],
    )
    .exits(0);
    role.remove(&database).await;
}
