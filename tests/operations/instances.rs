//! What relays are called, and the rows of those that are no more.

use std::process::Command;

use crate::{
    common::{
        database::Database,
        relay::{Relay, until},
    },
    lab::outbox,
};

#[tokio::test]
async fn rows_of_relays_long_gone_are_deleted_whether_they_ended_in_order_or_not() {
    let database = Database::new().await;
    for (name, days, clean) in [
        ("ended", 8, true),
        ("ended-lately", 6, true),
        ("crashed", 31, false),
        ("crashed-lately", 29, false),
    ] {
        database
            .execute(&format!(
                "insert into outbox_instances (instance, version, ordering, started_at, seen_at, clean)
                 values ('{name}', '1', 'key', now(), now() - interval '{days} days', {clean})"
            ))
            .await;
    }
    let outbox = outbox(&database.url);
    let mut link = outbox.link().await.unwrap();
    outbox.register(&mut link, "new").await.unwrap();
    let left = "select string_agg(instance, ' ' order by instance) from outbox_instances";
    assert_eq!(database.text(left).await, "crashed-lately ended-lately new");
}

/// The binary on a machine of that name.
fn on_machine(name: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = "echo \"$0\" > /proc/sys/kernel/hostname && exec \"$@\"";
    command.args([
        "--uts",
        "sh",
        "-c",
        script,
        name,
        env!("CARGO_BIN_EXE_outboxd"),
    ]);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_a_name_of_its_own_is_warned_about() {
    let may_rename = Command::new("unshare").args(["--uts", "true"]).status();
    if !may_rename.is_ok_and(|status| status.success()) {
        eprintln!("not root: no machine can be renamed here");
        return;
    }
    let url = ["--database-url", "postgres://127.0.0.1:1/none"];
    let usual = [&url[..], &["--sink", "stdout"]].concat();
    let named = [&usual[..], &["--instance", "orders-1"]].concat();
    for (host, flags, warned) in [
        ("localhost", &usual, true),
        ("localhost.localdomain", &usual, true),
        ("localhost", &named, false),
        ("shop-1", &usual, false),
    ] {
        let relay = Relay::start(on_machine(host), &[], flags);
        let log = || async { relay.log().contains("serving the status page") };
        until("it starts", log).await;
        let log = relay.log();
        assert_eq!(log.contains("no name of its own"), warned, "{host}: {log}");
        let its = format!("instance={host}:{}", relay.port());
        assert!(log.contains(&its) || flags == &named, "{log}");
    }
}
