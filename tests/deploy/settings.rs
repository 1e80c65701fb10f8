//! Every flag and variable in a manifest is one that the binary has.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    common::relay::{Relay, outboxd, until},
    output, project, read, said,
};

/// Flags (with dashes) and variables in a command's help.
pub fn known(command: &str) -> BTreeSet<String> {
    let (code, help, _) = outboxd(&[command, "--help"]);
    assert_eq!(code, 0, "{command} --help");
    let names = help
        .lines()
        .filter_map(|line| match line.trim().strip_prefix("[env: ") {
            Some(variable) => variable.split(['=', ']']).next(),
            // Their descriptions are indented further.
            None if line.starts_with("      --") || line.starts_with("  -") => {
                line.split([',', ' ']).find(|word| word.starts_with("--"))
            }
            None => None,
        });
    names.map(str::to_owned).collect()
}

/// That a command line of ours and its environment have only what it knows, and that it takes the values.
/// Files named are not there, which it must say, and nothing else.
pub fn assert_taken(place: &str, arguments: &[String], environment: &[(String, String)]) {
    let known = known(&arguments[0]);
    for argument in &arguments[1..] {
        let (flag, _) = argument
            .split_once('=')
            .unwrap_or_else(|| panic!("{place}: {argument}: written as --flag=value"));
        assert!(known.contains(flag), "{place}: there is no {flag}");
    }
    let ours = environment
        .iter()
        .filter(|(name, _)| name.starts_with("OUTBOXD_"));
    let ours: Vec<_> = ours.cloned().collect();
    for (name, _) in &ours {
        assert!(known.contains(name), "{place}: there is no {name}");
    }
    if ours.iter().any(|(name, _)| name.ends_with("_FILE")) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_lacks_only_files(place, &arguments, &ours);
        if arguments[0] == "run" {
            for command in [&["check"][..], &["status"], &["peek"], &["dead", "list"]] {
                assert_lacks_only_files(place, command, &ours);
            }
        }
    }
}

fn assert_lacks_only_files(place: &str, arguments: &[&str], environment: &[(String, String)]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command.args(arguments).envs(environment.iter().cloned());
    let done = output(&mut command);
    let said = said(&done);
    assert_eq!(
        done.status.code(),
        Some(78),
        "{place}: {arguments:?}: {said}"
    );
    for problem in said.lines() {
        let only_missing = problem.contains("/etc/outboxd/") && problem.contains("No such file");
        assert!(only_missing, "{place}: {arguments:?}: {problem}");
    }
}

/// The containers of a pod that are the relay's, as `assert_taken` wants them.
pub fn assert_containers_taken(place: &str, pod: &Value) {
    let lists = ["initContainers", "containers"].map(|name| pod[name].as_array());
    for container in lists.into_iter().flatten().flatten() {
        if !container["image"].as_str().unwrap().contains("outboxd") {
            continue;
        }
        let environment = environment(container);
        let arguments = texts(&container["args"]);
        assert_eq!(arguments.len(), 1, "{place}: a flag is not seen by others");
        assert_taken(place, &arguments, &environment);
    }
}

/// A container's variables.
pub fn environment(container: &Value) -> Vec<(String, String)> {
    let entries = container["env"].as_array().into_iter().flatten();
    let entries = entries.map(|entry| (text(&entry["name"]), text(&entry["value"])));
    entries.collect()
}

pub fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

pub fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(text).collect()
}

#[test]
fn the_chart_takes_every_setting_and_no_other() {
    let schema = read(project("deploy/helm/outboxd/values.schema.json"));
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let settings = schema["properties"]["settings"]["properties"].as_object();
    let settings: BTreeSet<_> = settings
        .unwrap()
        .keys()
        .map(|name| format!("--{name}"))
        .collect();
    // Set by the chart itself: files, values of other names, the pod's address and name.
    let elsewhere = [
        "--help",
        "--version",
        "--kafka-option",
        "--mapping",
        "--publish-timeout",
        "--shutdown-timeout",
        "--listen",
        "--instance",
    ];
    let of_files = |flag: &String| flag.ends_with("-url") || flag.ends_with("-file");
    let flags = known("run")
        .into_iter()
        .filter(|name| name.starts_with("--"));
    let expected: BTreeSet<_> = flags
        .filter(|flag| !elsewhere.contains(&flag.as_str()) && !of_files(flag))
        .collect();
    assert_eq!(settings, expected);
}

#[test]
fn every_variable_in_the_image_is_known() {
    let dockerfile = read(project("deploy/docker/Dockerfile"));
    let known = known("run");
    let words = dockerfile.split_whitespace();
    let names = words.filter_map(|word| word.split_once('=').map(|(name, _)| name));
    let ours: Vec<_> = names.filter(|name| name.starts_with("OUTBOXD_")).collect();
    assert_eq!(ours, ["OUTBOXD_LISTEN"]);
    assert!(known.contains(ours[0]));
}

/// Whether `/livez` is answered well at that address.
async fn is_alive(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return false;
    };
    let request = "GET /livez HTTP/1.0\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.ends_with("alive\n")
}

#[tokio::test]
async fn the_images_address_is_reached_by_ipv4_and_ipv6() {
    let dockerfile = read(project("deploy/docker/Dockerfile"));
    let mut words = dockerfile.split_whitespace();
    let listen = words.find_map(|word| word.strip_prefix("OUTBOXD_LISTEN="));
    let (host, _) = listen.unwrap().rsplit_once(':').unwrap();
    // It serves whether its servers are there or not.
    let nowhere = ["--database-url", "postgres://127.0.0.1:1/none"];
    let relay = Relay::run_on(host, &[&nowhere[..], &["--sink", "stdout"]].concat());
    for host in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        if std::net::TcpListener::bind((host, 0)).is_err() {
            eprintln!("no {host} here: not asked by it");
            continue;
        }
        until(&format!("it answers by {host}"), || {
            is_alive((host, relay.port()).into())
        })
        .await;
    }
}

#[test]
fn every_command_in_the_readme_is_known() {
    let readme = read(project("deploy/README.md"));
    for line in readme.lines() {
        for (at, _) in line.match_indices("outboxd ") {
            let mut words = line[at..].split([' ', '`', ')']).skip(1);
            let Some(command) = words.next().filter(|word| COMMANDS.contains(word)) else {
                continue;
            };
            let known = known(command);
            for flag in words.filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap();
                assert!(known.contains(flag), "{line}: {command} has no {flag}");
            }
        }
    }
}

const COMMANDS: [&str; 7] = [
    "run", "drain", "migrate", "check", "peek", "status", "prune",
];
