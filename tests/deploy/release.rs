//! The release: everything it uses has a version, and its parts agree about Rust's.

use std::process::Command;

use crate::{documents, output, project, read, said};

const WORKFLOW: &str = ".github/workflows/release.yaml";

#[test]
fn versions_are_pinned_and_agree() {
    let workflow = read(project(WORKFLOW));
    assert!(documents(&workflow)[0]["jobs"].is_object());
    for line in workflow.lines() {
        if let Some((_, action)) = line.split_once("uses: ") {
            // A tag may be moved to other code, a commit cannot; the version is for people.
            let (_, pin) = action.split_once('@').unwrap_or_else(|| panic!("{line}"));
            let (commit, version) = pin.split_once(" # v").unwrap_or_else(|| panic!("{line}"));
            assert!(
                commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()),
                "{line}"
            );
            assert_eq!(version.matches('.').count(), 2, "{line}");
        }
        if let Some((_, runner)) = line.split_once("runs-on: ") {
            assert!(!runner.contains("latest"), "{line}");
        }
    }

    let dockerfile = read(project("deploy/docker/Dockerfile"));
    let image = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("FROM rust:"));
    let (rust, _) = image.unwrap().split_once('-').unwrap();
    assert_eq!(rust.matches('.').count(), 2);
    let container = format!("container: rust:{rust}-bookworm");
    assert!(
        workflow.contains(&container),
        "the release is tested with {rust}"
    );
    let manifest = read(project("Cargo.toml"));
    let minimum = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "));
    let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    assert!(minor(minimum.unwrap().trim_matches('"')) <= minor(rust));
}

#[test]
fn the_alerts_of_a_release_lead_to_its_own_runbook() {
    let workflow = read(project(WORKFLOW));
    let command = workflow
        .lines()
        .find(|line| line.trim().starts_with("sed ") && line.contains("alerts.yaml"));
    let (command, _) = command.unwrap().split_once(" > ").unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(project(""));
    let done = output(shell.envs([("GITHUB_REPOSITORY", "acme/outboxd"), ("VERSION", "v1.2.3")]));
    let rules = said(&done);
    let links = rules.matches("runbook_url: ").count();
    let right = "runbook_url: https://github.com/acme/outboxd/blob/v1.2.3/deploy/monitoring/runbook.md#outboxd";
    assert!(links >= 10);
    assert_eq!(rules.matches(right).count(), links, "{rules}");
}

#[test]
fn chart_and_crate_have_one_version() {
    let chart = read(project("deploy/helm/outboxd/Chart.yaml"));
    let chart = &documents(&chart)[0];
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    for manifest in ["deployment", "sidecar"] {
        let text = read(project(&format!("deploy/kubernetes/{manifest}.yaml")));
        let image = concat!("image: outboxd:", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(image), "{manifest}");
    }
}
