//! The chart, rendered and linted by Helm: the `helm` of this machine, or else Helm as a library.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use serde_json::{Value, json};

use crate::{
    Folder, documents, is_there,
    manifests::{assert_lets_out, assert_manifest, assert_scales_by_its_own_lag, lets_out},
    output, project, read, said,
};

const CHART: &str = "deploy/helm/outboxd";

/// What Helm made of each file of values, by the file's name: manifests, or its refusal.
pub fn render(values: &[PathBuf]) -> BTreeMap<String, Result<String, String>> {
    let folder = Folder::new();
    let (chart, out) = (folder.0.join("outboxd"), folder.0.join("out"));
    fs::create_dir(&out).unwrap();
    copy_chart(&chart);
    if is_there("helm") {
        by_command(&chart, &out, values);
    } else {
        by_library(&chart, &out, values);
    }
    let rendered = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    rendered
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            let is_refusal = file.extension().unwrap() == "error";
            let text = read(&file);
            (name, if is_refusal { Err(text) } else { Ok(text) })
        })
        .collect()
}

/// As a library Helm leaves hooks out of what it renders: in the copy they are none.
fn copy_chart(chart: &Path) {
    let copied = output(Command::new("cp").arg("-r").arg(project(CHART)).arg(chart));
    assert!(copied.status.success(), "{}", said(&copied));
    let migration = chart.join("templates/migration.yaml");
    let text = read(&migration);
    assert!(text.contains("helm.sh/hook: pre-install,pre-upgrade"));
    fs::write(&migration, text.replace("helm.sh/hook", "was.helm.sh/hook")).unwrap();
}

fn by_command(chart: &Path, out: &Path, values: &[PathBuf]) {
    let strict = ["lint", "--strict"];
    let lint = output(Command::new("helm").args(strict).arg(chart));
    assert!(lint.status.success(), "{}", said(&lint));
    for file in values {
        let mut command = Command::new("helm");
        command.args([
            "template",
            "orders",
            "--namespace",
            "shop",
            "--kube-version",
            "1.33.0",
        ]);
        let done = output(command.arg(chart).arg("--values").arg(file));
        let name = file.file_stem().unwrap();
        let (ending, text) = if done.status.success() {
            ("yaml", done.stdout)
        } else {
            ("error", done.stderr)
        };
        fs::write(out.join(name).with_extension(ending), text).unwrap();
    }
}

fn by_library(chart: &Path, out: &Path, values: &[PathBuf]) {
    let jars = jars().join("*");
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(jars);
    command.arg(project("tests/deploy/helm/Charts.java"));
    let done = output(command.arg(chart).arg(out).args(values));
    assert!(done.status.success(), "{}", said(&done));
}

/// Fetched once for each version of the list, which is put beside them at the end.
fn jars() -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let list = project("tests/deploy/helm/pom.xml");
    let jars = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    let fetched = jars.join("pom.xml");
    if fs::read(&fetched).ok() != fs::read(&list).ok() {
        drop(fs::remove_dir_all(&jars)); // of another version, or none
        let mut command = Command::new("mvn");
        command.args(["-q", "-B", "dependency:copy-dependencies", "-f"]);
        command.arg(&list);
        let into = format!("-DoutputDirectory={}", jars.display());
        let done = output(command.arg(into));
        assert!(done.status.success(), "{}", said(&done));
        fs::copy(&list, &fetched).unwrap();
    }
    jars
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Option<&'a Value> {
    documents.iter().find(|document| document["kind"] == kind)
}

#[test]
fn what_the_chart_renders_is_what_kubernetes_takes() {
    let examples = ["kafka", "rabbitmq", "everything"];
    let files = examples.map(|name| project(&format!("{CHART}/ci/{name}.yaml")));
    let rendered = render(&files);
    let documents_of = |name: &str| documents(rendered[name].as_ref().unwrap());
    for name in examples {
        for document in documents_of(name) {
            assert_manifest(name, &document);
        }
    }

    let usual = documents_of("kafka");
    let deployment = of_kind(&usual, "Deployment").unwrap();
    assert_eq!(deployment["spec"]["replicas"], json!(2));
    let kinds = ["Job", "PodDisruptionBudget", "NetworkPolicy"];
    assert!(kinds.iter().all(|kind| of_kind(&usual, kind).is_some()));
    let optional = ["PodMonitor", "HorizontalPodAutoscaler"];
    assert!(optional.iter().all(|kind| of_kind(&usual, kind).is_none()));
    assert_lets_out("kafka", of_kind(&usual, "NetworkPolicy").unwrap());
    assert_eq!(documents_of("rabbitmq").len(), 1);

    let full = documents_of("everything");
    let deployment = of_kind(&full, "Deployment").unwrap();
    assert!(deployment["spec"]["replicas"].is_null(), "the autoscaler's");
    assert!(optional.iter().all(|kind| of_kind(&full, kind).is_some()));
    assert_monitored(&full);
    let [monitor, autoscaler] = optional.map(|kind| of_kind(&full, kind).unwrap());
    assert_scales_by_its_own_lag("everything", autoscaler, monitor);
    let policy = of_kind(&full, "NetworkPolicy").unwrap();
    assert!(lets_out(policy, 1053, "UDP") && !lets_out(policy, 5353, "UDP"));
    let job = of_kind(&full, "Job").unwrap();
    let secret =
        &job["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"][0]["secret"];
    assert_eq!(
        secret["items"][0]["key"], "owner",
        "the tables' owner migrates"
    );
    let migrate = job["spec"]["template"]["spec"]["containers"][0].to_string();
    for role in ["sales_relay", "audit relay"] {
        assert!(migrate.contains(role), "and grants: {migrate}");
    }
}

/// The monitor, the budget and the policy select the relay's pods.
fn assert_monitored(documents: &[Value]) {
    let deployment = of_kind(documents, "Deployment").unwrap();
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for (kind, selector) in [
        ("PodMonitor", "/spec/selector"),
        ("PodDisruptionBudget", "/spec/selector"),
        ("NetworkPolicy", "/spec/podSelector"),
    ] {
        let selector = of_kind(documents, kind).unwrap().pointer(selector).unwrap();
        for (name, value) in selector["matchLabels"].as_object().unwrap() {
            assert_eq!(&labels[name], value, "{kind} misses the pods");
        }
    }
    let port = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"];
    let endpoint = &of_kind(documents, "PodMonitor").unwrap()["spec"]["podMetricsEndpoints"][0];
    assert_eq!(&endpoint["port"], port);
}
