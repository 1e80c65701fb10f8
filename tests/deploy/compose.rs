//! The Compose file: what it mounts is there, what it runs is known, its writer's SQL works.

use std::process::Command;

use serde_json::Value;

use crate::{
    common::{database::Database, relay::outboxd},
    documents, output, project, read, said,
    settings::{assert_taken, text, texts},
};

fn compose() -> Value {
    let text = read(project("deploy/compose.yaml"));
    documents(&text).remove(0)
}

fn services() -> Vec<(String, Value)> {
    let compose = compose();
    let services = compose["services"].as_object().unwrap().iter();
    services
        .map(|(name, service)| (name.clone(), service.clone()))
        .collect()
}

#[test]
fn compose_takes_it() {
    let mut version = Command::new("docker");
    if !version
        .args(["compose", "version"])
        .output()
        .is_ok_and(|done| done.status.success())
    {
        eprintln!("no docker compose here: `docker compose config` is left out");
        return;
    }
    let mut command = Command::new("docker");
    command
        .args(["compose", "--file"])
        .arg(project("deploy/compose.yaml"));
    let done = output(command.args(["config", "--quiet"]));
    assert!(done.status.success(), "{}", said(&done));
}

#[test]
fn relays_are_given_what_they_know() {
    let ours = services().into_iter();
    let ours: Vec<_> = ours
        .filter(|(_, service)| service["image"] == "outboxd:compose")
        .collect();
    assert_eq!(ours.len(), 4);
    for (name, service) in ours {
        let environment = service["environment"].as_object().unwrap().iter();
        let environment: Vec<_> = environment
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        assert_taken(&name, &texts(&service["command"]), &environment);
    }
}

#[test]
fn versions_are_pinned_files_exist_and_configs_are_yaml() {
    let compose = compose();
    for (name, service) in services() {
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap();
        let pinned = tag.matches('.').count() >= 1 || tag == "compose";
        assert!(pinned, "{name}: {image}");
        for mount in service["volumes"].as_array().into_iter().flatten() {
            let (source, _) = mount.as_str().unwrap().split_once(':').unwrap();
            if let Some(file) = source.strip_prefix("./") {
                let file = project("deploy").join(file);
                let monitoring = project("deploy/monitoring").is_dir();
                assert!(file.is_file() || !monitoring, "{name}: {}", file.display());
            }
        }
        for config in service["configs"].as_array().into_iter().flatten() {
            let source = config["source"].as_str().unwrap();
            let content = compose["configs"][source]["content"].as_str().unwrap();
            if source != "rabbitmq" {
                assert!(documents(content)[0].is_object(), "{source}");
            }
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}");
        }
    }
}

#[tokio::test]
async fn the_writers_sql_fills_both_tables() {
    let database = Database::new().await;
    let arguments = [
        "migrate",
        "--table=payments_outbox",
        "--database-url",
        &database.url,
    ];
    let (code, _, errors) = outboxd(&arguments);
    assert_eq!(code, 0, "{errors}");
    let services = services();
    let (_, writer) = services.iter().find(|(name, _)| name == "writer").unwrap();
    let script = text(&writer["command"][0]);
    let (_, sql) = script.split_once("<<'SQL'\n").unwrap();
    let (sql, _) = sql.split_once("\nSQL\n").unwrap();
    for _ in 0..20 {
        database.execute(sql).await;
    }
    assert!(database.pending().await > 0);
    let payments = "select count(*) from payments_outbox";
    assert!(database.number(payments).await > 0);
}
