//! What stands in `deploy/monitoring`, read without a server.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    common::unique,
    prometheus::{FILES, promtool},
};

/// Where alerts lead until somebody says otherwise.
const RUNBOOK: &str = "https://github.com/OWNER/REPOSITORY/blob/main/deploy/monitoring/runbook.md";

pub fn read(name: &str) -> String {
    fs::read_to_string(Path::new(FILES).join(name)).unwrap()
}

/// Every expression of the alerts: what stands after `expr:`, on that line or in the block below it.
pub fn alert_expressions() -> Vec<String> {
    let rules = read("alerts.yaml");
    let expressions = rules.split("\n        expr: ").skip(1);
    expressions
        .map(|rest| match rest.strip_prefix("|\n") {
            Some(block) => {
                let lines = block
                    .lines()
                    .take_while(|line| line.starts_with("          "));
                lines.map(str::trim).collect::<Vec<_>>().join(" ")
            }
            None => rest.lines().next().unwrap().to_owned(),
        })
        .collect()
}

pub fn dashboard() -> Value {
    serde_json::from_str(&read("dashboard.json")).unwrap()
}

/// Every expression of the dashboard's panels.
pub fn dashboard_expressions() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let expressions = targets.flatten().map(|target| &target["expr"]);
    expressions
        .map(|expr| expr.as_str().unwrap().to_owned())
        .collect()
}

fn alerts() -> Vec<String> {
    let rules = read("alerts.yaml");
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

#[test]
fn rules_and_configuration_are_valid_and_the_rules_pass_their_tests() {
    promtool(&["check", "rules", "--lint-fatal", "alerts.yaml"], "");
    promtool(&["check", "config", "--lint-fatal", "prometheus.yaml"], "");
    promtool(&["test", "rules", "alerts_test.yaml"], "");
}

/// Debian's Prometheus is built without Kubernetes: what asks it for pods is left out.
#[test]
fn the_scrape_configuration_for_kubernetes_without_the_operator_is_valid() {
    let manifest = Path::new(FILES).join("../kubernetes/pod-monitor.yaml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let lines = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("#   "));
    let discovery = ["kubernetes_sd_configs:", "- role: pod", "selectors: [{"];
    let checked = lines.filter(|line| !discovery.iter().any(|part| line.contains(part)));
    let jobs: Vec<_> = checked.map(|line| format!("  {line}\n")).collect();
    let name = format!("{}.yaml", unique("outboxd-scrape"));
    let file = std::env::temp_dir().join(name);
    fs::write(&file, format!("scrape_configs:\n{}", jobs.concat())).unwrap();
    let said = promtool(&["check", "config", file.to_str().unwrap()], "");
    fs::remove_file(&file).unwrap();
    assert!(jobs.len() >= 5, "{said}");
}

#[test]
fn every_alert_has_a_section_of_the_runbook_and_tests_that_it_fires_and_does_not() {
    let (rules, runbook, tests) = (
        read("alerts.yaml"),
        read("runbook.md"),
        read("alerts_test.yaml"),
    );
    let alerts = alerts();
    assert!(alerts.len() >= 10);
    for alert in &alerts {
        assert!(
            runbook.contains(&format!("\n## {alert}\n")),
            "{alert} in the runbook"
        );
        let anchor = format!("runbook_url: {RUNBOOK}#{}\n", alert.to_lowercase());
        assert!(rules.contains(&anchor), "{anchor}");
        assert!(
            tests.contains(&format!("alertname: {alert}\n        exp_alerts:")),
            "{alert} fires"
        );
        assert!(
            tests.contains(&format!("alertname: {alert} }}")),
            "{alert} does not"
        );
    }
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("## "));
    for section in sections {
        assert!(
            alerts.iter().any(|alert| alert == section),
            "no alert {section}"
        );
    }
}

#[test]
fn the_documented_command_leads_every_alert_to_a_runbook_elsewhere() {
    let rules = read("alerts.yaml");
    let command = rules.lines().find_map(|line| line.strip_prefix("#   "));
    let command = command.unwrap().replace("sed -i ", "sed ");
    let mut sed = Command::new("sh");
    let done = sed.args(["-c", &command]).current_dir(FILES).output();
    let changed = String::from_utf8(done.unwrap().stdout).unwrap();
    let mut links = changed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "));
    assert!(links.all(|link| link.starts_with("https://wiki.example/outboxd#")));
    assert_eq!(
        changed.matches("runbook_url: https").count(),
        alerts().len()
    );
}

#[test]
fn the_dashboards_panels_have_ids_of_their_own_and_do_not_overlap() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} overlaps", panel["title"]);
            }
        }
        let plain = panel["type"] == "row" || panel["datasource"]["uid"] == "${datasource}";
        assert!(plain, "{}", panel["title"]);
    }
}
