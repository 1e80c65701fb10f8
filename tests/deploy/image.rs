//! The image's root filesystem as the Dockerfile's script makes it, entered by `chroot` as its user:
//! nothing else is there, not even /dev and /proc.

use std::{fs, path::Path, process::Command, time::Instant};

use crate::{
    Folder,
    common::{
        broker::{Broker, Kind},
        database::Database,
        env,
        relay::{Relay, until},
    },
    documents, output, project, read, said,
    settings::environment,
};

/// Makes the root, and what a container engine adds: names. `None` where that cannot be done.
fn image() -> Option<Folder> {
    let id = output(Command::new("id").arg("-u"));
    if said(&id).trim() != "0" {
        eprintln!("not root: the image's filesystem is not entered");
        return None;
    }
    let folder = Folder::new();
    let mut script = Command::new(project("deploy/docker/rootfs.sh"));
    let made = output(script.arg(env!("CARGO_BIN_EXE_outboxd")).arg(&folder.0));
    assert!(made.status.success(), "{}", said(&made));
    fs::write(folder.0.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    Some(folder)
}

/// The entry point, as the image's user and with nothing of this process's environment.
fn enter(root: &Path) -> Command {
    let dockerfile = read(project("deploy/docker/Dockerfile"));
    let of = |word: &str| {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(word));
        line.unwrap_or_else(|| panic!("{word} in the Dockerfile"))
            .to_owned()
    };
    let entry_point = of("ENTRYPOINT ");
    let mut command = Command::new("chroot");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap());
    command.arg(format!("--userspec={}", of("USER "))).arg(root);
    command.arg(entry_point.trim_matches(['[', ']', '"']));
    command
}

#[test]
fn it_holds_the_relay_and_nothing_to_break_in_with() {
    let Some(image) = image() else { return };
    let helped = output(enter(&image.0).arg("--help"));
    assert!(helped.status.success(), "{}", said(&helped));
    assert!(said(&helped).contains("outboxd run"));

    let find = ["-type", "f", "-perm", "/111", "-printf", "%P\n"];
    let executable = said(&output(Command::new("find").arg(&image.0).args(find)));
    for path in executable.lines() {
        let name = path.rsplit('/').next().unwrap();
        assert!(name == "outboxd" || name.contains(".so"), "{path}");
    }
    let find = ["-perm", "/6022", "!", "-type", "l", "-printf", "%P\n"];
    let open = said(&output(Command::new("find").arg(&image.0).args(find)));
    assert_eq!(open, "", "writable by others, or setuid");
    let packages = fs::read_dir(image.0.join("var/lib/dpkg/status.d")).unwrap();
    assert!(packages.count() >= 4, "scanners see what is in it");
}

#[test]
fn the_build_is_given_what_cargo_reads() {
    let folder = Folder::new();
    let ignored = read(project("deploy/docker/Dockerfile.dockerignore"));
    for path in ignored.lines().filter_map(|line| line.strip_prefix('!')) {
        let into = folder.0.join(path);
        fs::create_dir_all(into.parent().unwrap()).unwrap();
        let copied = output(Command::new("cp").arg("-r").arg(project(path)).arg(&into));
        assert!(copied.status.success(), "{}", said(&copied));
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "metadata",
        "--no-deps",
        "--offline",
        "--locked",
        "--format-version=1",
    ]);
    let read = output(cargo.current_dir(&folder.0));
    assert!(read.status.success(), "{}", said(&read));
    assert!(folder.0.join("deploy/docker/rootfs.sh").is_file());
}

/// `check` from within, over TLS with every server: exit code, and what it said.
fn check(root: &Path, database: &Database, environment: &[(&str, &str)]) -> Vec<(i32, String)> {
    let url = database.url.replace("127.0.0.1", "localhost") + "?sslmode=verify-full";
    let (kafka, rabbitmq) = (env("TEST_KAFKA_SSL_BROKERS"), env("TEST_RABBITMQ_TLS_URL"));
    let brokers = [
        [
            "--kafka-brokers",
            &kafka,
            "--kafka-option",
            "security.protocol=ssl",
        ],
        ["--rabbitmq-url", &rabbitmq, "--rabbitmq-order", "strict"],
    ];
    let checks = brokers.map(|broker| {
        let mut command = enter(root);
        command.args(["check", "--database-url", &url]).args(broker);
        let command = command.envs(environment.iter().copied());
        let done = output(command);
        (done.status.code().unwrap(), said(&done))
    });
    checks.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_trusts_the_images_certificates_on_every_connection() {
    let Some(image) = image() else { return };
    let database = Database::new().await;
    for (code, said) in check(&image.0, &database, &[]) {
        assert_eq!(code, 69, "the test's CA is nobody's: {said}");
    }

    // A private CA by its own file, as the chart's caBundle has it.
    let authority = read(env("TEST_CA_FILE"));
    fs::create_dir_all(image.0.join("etc/outboxd")).unwrap();
    fs::write(image.0.join("etc/outboxd/ca.pem"), &authority).unwrap();
    let by_file = [("SSL_CERT_FILE", "/etc/outboxd/ca.pem")];
    for (code, said) in check(&image.0, &database, &by_file) {
        assert_eq!(code, 0, "{said}");
    }

    // One that is among the image's.
    let bundle = image.0.join("etc/ssl/certs/ca-certificates.crt");
    fs::write(&bundle, read(&bundle) + &authority).unwrap();
    for (code, said) in check(&image.0, &database, &[]) {
        assert_eq!(code, 0, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn run_relays_and_stops_in_order() {
    let Some(image) = image() else { return };
    for kind in [Kind::Kafka, Kind::Rabbitmq] {
        let (database, broker) = (Database::new().await, Broker::shared(kind));
        let destination = broker.destination().await;
        let secrets = image.0.join("etc/outboxd");
        fs::create_dir_all(&secrets).unwrap();
        fs::write(secrets.join("database-url"), format!("{}\n", database.url)).unwrap();
        let flags = ["--database-url-file=/etc/outboxd/database-url"];
        let flags = [&flags[..], &broker.flags()].concat();
        let started = Instant::now();
        let relay = Relay::start(enter(&image.0), &[], &flags).ready().await;
        eprintln!("{kind:?}: ready after {:?}", started.elapsed());
        let host = read("/proc/sys/kernel/hostname");
        let name = format!("instance={}:{}", host.trim(), relay.port());
        assert!(relay.log().contains(&name), "without /proc to read it in");
        database.insert(&destination, 1000, 10).await;
        until("the events are published", || async {
            database.pending().await == 0
        })
        .await;
        assert_eq!(broker.read(&destination).await.len(), 1000);
        let ended = relay.stop().await;
        assert!(ended.success(), "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_a_pod_need_no_flags() {
    let Some(image) = image() else { return };
    let database = Database::new().await;
    let secrets = image.0.join("etc/outboxd");
    fs::create_dir_all(&secrets).unwrap();
    fs::write(secrets.join("database-url"), &database.url).unwrap();
    let manifest = documents(&read(project("deploy/kubernetes/deployment.yaml")));
    let pod = &manifest[1]["spec"]["template"]["spec"];
    let variables = environment(&pod["containers"][0]);
    for command in [&["check"][..], &["status"], &["peek"], &["dead", "list"]] {
        let mut entered = enter(&image.0);
        entered.args(command).envs(variables.iter().cloned());
        // The manifest's has a name that is to be changed.
        entered.env("OUTBOXD_KAFKA_BROKERS", env("TEST_KAFKA_BROKERS"));
        let done = output(&mut entered);
        assert!(done.status.success(), "{command:?}: {}", said(&done));
    }
}
