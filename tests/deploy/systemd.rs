//! The systemd unit: read by systemd itself, its hardening measured, its settings known.

use std::{fs, process::Command};

use crate::{Folder, is_there, output, project, read, said, settings::known};

const UNIT: &str = "deploy/systemd/outboxd.service";

#[test]
fn systemd_takes_the_unit_and_finds_it_hardened() {
    if !is_there("systemd-analyze") {
        eprintln!("no systemd-analyze here (Debian: systemd): the unit is not checked");
        return;
    }
    let folder = Folder::new();
    let unit = folder.0.join("outboxd.service");
    let installed = "/usr/local/bin/outboxd";
    let text = read(project(UNIT));
    assert!(text.contains(installed));
    fs::write(
        &unit,
        text.replace(installed, env!("CARGO_BIN_EXE_outboxd")),
    )
    .unwrap();

    let verified = output(Command::new("systemd-analyze").arg("verify").arg(&unit));
    assert!(verified.status.success(), "{}", said(&verified));
    // Unknown directives are only warned about.
    assert_eq!(said(&verified), "");

    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=15"]);
    let secured = output(security.arg(&unit));
    assert!(secured.status.success(), "{}", said(&secured));
}

#[test]
fn settings_in_unit_and_example_are_known() {
    let known = known("run");
    let mut seen = 0;
    for path in [UNIT, "deploy/systemd/outboxd.env"] {
        for line in read(project(path)).lines() {
            let line = line
                .trim_start_matches('#')
                .trim_start_matches("Environment=");
            if let Some((name, _)) = line.split_once('=')
                && name.starts_with("OUTBOXD_")
            {
                assert!(known.contains(name), "{path}: {name}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 9, "{seen}");
}
