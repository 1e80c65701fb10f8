//! Manifests against the types of Kubernetes' API: what does not come back as it went in has an unknown
//! or misspelt field, a wrong type, or lacks a required one.

use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, batch::v1::Job,
    networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    documents, project, read,
    settings::{assert_containers_taken, environment},
};

/// What is wrong with a document of this type, if anything is.
fn fault<T: DeserializeOwned + Serialize>(document: &Value) -> Option<String> {
    match serde_json::from_value::<T>(document.clone()) {
        Ok(typed) => {
            let back = serde_json::to_value(&typed).unwrap();
            (&back != document).then(|| format!("it came back as {back:#}, from {document:#}"))
        }
        Err(error) => Some(format!("{error}: {document:#}")),
    }
}

fn assert_is<T: DeserializeOwned + Serialize>(place: &str, document: &Value) {
    assert_eq!(fault::<T>(document), None, "{place}");
}

/// Checks a document by its kind, and its pods, if it makes any. Gives the kind.
pub fn assert_manifest<'a>(place: &str, document: &'a Value) -> &'a str {
    let kind = document["kind"].as_str().unwrap();
    match kind {
        "Deployment" => assert_is::<Deployment>(place, document),
        "Job" => assert_is::<Job>(place, document),
        "PodDisruptionBudget" => assert_is::<PodDisruptionBudget>(place, document),
        "NetworkPolicy" => assert_is::<NetworkPolicy>(place, document),
        "HorizontalPodAutoscaler" => assert_is::<HorizontalPodAutoscaler>(place, document),
        "PodMonitor" => assert_pod_monitor(place, document),
        kind => panic!("{place}: {kind} has no check yet"),
    }
    let pod = &document["spec"]["template"]["spec"];
    if pod.is_object() {
        assert_restricted(place, pod);
        assert_containers_taken(place, pod);
        assert_mounted(place, pod);
    }
    if kind == "Deployment" {
        let labels = &document["spec"]["template"]["metadata"]["labels"];
        for (name, value) in document["spec"]["selector"]["matchLabels"]
            .as_object()
            .unwrap()
        {
            assert_eq!(
                &labels[name], value,
                "{place}: its selector misses its pods"
            );
        }
    }
    kind
}

/// Of another API group, whose types no crate here has.
fn assert_pod_monitor(place: &str, document: &Value) {
    assert_eq!(
        document["apiVersion"], "monitoring.coreos.com/v1",
        "{place}"
    );
    let spec = &document["spec"];
    let endpoint = &spec["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], "http", "{place}");
    assert_eq!(endpoint["path"], "/metrics", "{place}");
    assert!(spec["selector"]["matchLabels"].is_object(), "{place}");
    let names: Vec<_> = spec.as_object().unwrap().keys().collect();
    assert_eq!(names, ["podMetricsEndpoints", "selector"], "{place}");
}

/// The restricted pod security standard, and what goes beyond it.
fn assert_restricted(place: &str, pod: &Value) {
    assert_eq!(pod["automountServiceAccountToken"], json!(false), "{place}");
    assert_eq!(pod["enableServiceLinks"], json!(false), "{place}");
    assert_eq!(
        pod["securityContext"]["runAsNonRoot"],
        json!(true),
        "{place}"
    );
    let profile = &pod["securityContext"]["seccompProfile"]["type"];
    assert_eq!(profile, "RuntimeDefault", "{place}");
    for container in containers(pod) {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], json!(false), "{place}");
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{place}");
        let resources = &container["resources"];
        assert!(resources["requests"]["memory"].is_string(), "{place}");
        assert!(resources["limits"]["memory"].is_string(), "{place}");
        if container["image"].as_str().unwrap().contains("outboxd") {
            assert_eq!(context["readOnlyRootFilesystem"], json!(true), "{place}");
            assert_relay(place, pod, container);
        }
    }
}

/// Probes and the grace period of a container that runs the relay.
fn assert_relay(place: &str, pod: &Value, container: &Value) {
    if container["args"][0] != "run" {
        return;
    }
    assert_eq!(
        container["livenessProbe"]["httpGet"]["path"], "/livez",
        "{place}"
    );
    let is_sidecar = container["restartPolicy"] == "Always";
    let readiness = &container["readinessProbe"];
    assert_eq!(
        readiness.is_null(),
        is_sidecar,
        "{place}: a sidecar has no readiness"
    );
    let environment = environment(container);
    let shutdown = environment
        .iter()
        .find(|(name, _)| name == "OUTBOXD_SHUTDOWN_TIMEOUT");
    let shutdown = shutdown.map_or("40s", |(_, value)| value);
    let shutdown: i64 = shutdown.trim_end_matches('s').parse().unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(
        grace >= shutdown + 10,
        "{place}: {grace} s for {shutdown} s"
    );
}

/// Each mount has its volume.
fn assert_mounted(place: &str, pod: &Value) {
    let volumes = pod["volumes"].as_array().unwrap();
    for container in containers(pod) {
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let found = volumes.iter().any(|volume| volume["name"] == mount["name"]);
            assert!(found, "{place}: {mount}");
        }
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers"].map(|name| pod[name].as_array());
    lists.into_iter().flatten().flatten()
}

fn kinds(path: &str) -> Vec<String> {
    let documents = documents(&read(project(path)));
    let kinds = documents
        .iter()
        .map(|document| assert_manifest(path, document).to_owned());
    kinds.collect()
}

#[test]
fn plain_manifests_are_what_kubernetes_takes() {
    let deployment = kinds("deploy/kubernetes/deployment.yaml");
    assert_eq!(
        deployment,
        ["Job", "Deployment", "PodDisruptionBudget", "NetworkPolicy"]
    );
    assert_eq!(kinds("deploy/kubernetes/sidecar.yaml"), ["Deployment"]);
    assert_eq!(
        kinds("deploy/kubernetes/autoscaling.yaml"),
        ["HorizontalPodAutoscaler"]
    );
    assert_eq!(kinds("deploy/kubernetes/pod-monitor.yaml"), ["PodMonitor"]);
}

/// That an autoscaler looks at the lag of the job that a monitor makes, and a label may have that value.
pub fn assert_scales_by_its_own_lag(place: &str, autoscaler: &Value, monitor: &Value) {
    let metric = &autoscaler["spec"]["metrics"][0]["external"]["metric"];
    let labels = &metric["selector"]["matchLabels"];
    let relabeling = &monitor["spec"]["podMetricsEndpoints"][0]["relabelings"][0];
    assert_eq!(relabeling["targetLabel"], "job", "{place}");
    assert_eq!(labels["job"], relabeling["replacement"], "{place}");
    assert!(!labels["job"].as_str().unwrap().contains('/'), "{place}");
}

fn documents_in(folder: &str, file: &str) -> Vec<Value> {
    documents(&read(project(&format!("{folder}/{file}.yaml"))))
}

#[test]
fn plain_monitor_and_autoscaler_are_of_the_plain_deployment() {
    let of = |file| documents_in("deploy/kubernetes", file);
    let (deployment, monitor) = (of("deployment"), of("pod-monitor"));
    let template = &deployment[1]["spec"]["template"];
    let selected = monitor[0]["spec"]["selector"]["matchLabels"].as_object();
    for (name, value) in selected.unwrap() {
        assert_eq!(&template["metadata"]["labels"][name], value);
    }
    let port = &template["spec"]["containers"][0]["ports"][0]["name"];
    assert_eq!(&monitor[0]["spec"]["podMetricsEndpoints"][0]["port"], port);
    assert_scales_by_its_own_lag("plain", &of("autoscaling")[0], &monitor[0]);
}

/// Whether a policy lets its pods out to that port.
pub fn lets_out(policy: &Value, port: i64, protocol: &str) -> bool {
    let rules = policy["spec"]["egress"].as_array().unwrap().iter();
    let mut ports = rules.flat_map(|rule| rule["ports"].as_array().unwrap());
    ports.any(|entry| {
        let first = entry["port"].as_i64().unwrap();
        let last = entry["endPort"].as_i64().unwrap_or(first);
        entry["protocol"] == protocol && (first..=last).contains(&port)
    })
}

/// What the relay must reach: databases, brokers, DNS.
pub fn assert_lets_out(place: &str, policy: &Value) {
    for port in [5432, 6432, 5671, 5672].into_iter().chain(9092..=9098) {
        assert!(lets_out(policy, port, "TCP"), "{place}: {port}");
    }
    for (port, protocol) in [(53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP")] {
        assert!(lets_out(policy, port, protocol), "{place}: {port}");
    }
    assert!(!lets_out(policy, 443, "TCP"), "{place}: nothing else");
}

#[test]
fn the_plain_policy_lets_relays_reach_what_they_need_and_nothing_else() {
    let path = "deploy/kubernetes/deployment.yaml";
    let documents = documents(&read(project(path)));
    assert_lets_out(path, &documents[3]);
}

#[test]
fn a_wrong_field_is_found() {
    let text = read(project("deploy/kubernetes/deployment.yaml"));
    let budget = &documents(&text)[2];
    let mut misspelt = budget.clone();
    misspelt["spec"]["maxUnavailabel"] = json!(1);
    let mut mistyped = budget.clone();
    mistyped["spec"]["selector"]["matchLabels"] = json!(["a list"]);
    let deployment = &documents(&text)[1];
    let mut lacking = deployment.clone();
    lacking["spec"].as_object_mut().unwrap().remove("selector");
    assert_eq!(fault::<PodDisruptionBudget>(budget), None);
    assert!(fault::<PodDisruptionBudget>(&misspelt).is_some());
    assert!(fault::<PodDisruptionBudget>(&mistyped).is_some());
    assert!(fault::<Deployment>(&lacking).is_some());
}
