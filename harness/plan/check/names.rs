//! The head of a scenario and its workloads.

use std::collections::BTreeMap;

use super::{Checks, repeated};
use crate::scenario::{Located, ManifestFile, ServerWorkload, Sleep, Workload};
use crate::source::known;
use crate::workload_kind::SERVERS;

pub(super) fn check(checks: &mut Checks<'_>) {
    let scenario = checks.scenario();
    for (value, what) in [(&scenario.name, "name"), (&scenario.purpose, "purpose")] {
        if value.trim().is_empty() {
            checks.wrong(value, format!("the {what} is empty"), "describe what is tested, and what would make it fail");
        }
    }
    checks.mistakes.problems.extend(checks.loaded.mesh_options(&Default::default()).1);
    for label in &scenario.labels {
        if !is_word(label) {
            checks.wrong(label, format!("`{}` is not a label", label.value), EXPECTED_WORD);
        }
    }
    for (first, again) in repeated(scenario.labels.iter().map(|label| (label.as_str(), label))) {
        checks.conflict(first, again, format!("label `{}` is listed twice", again.value), "remove one");
    }
    for (name, why) in &scenario.blind {
        if !checks.faults.contains(&name.as_str()) {
            let what = format!("`blind` names the unknown fault `{name}`");
            checks.wrong(why, what, known(name, "faults", checks.faults.iter().copied()));
        }
        if why.trim().is_empty() {
            let what = format!("`{name}` has no reason why the scenario cannot detect it");
            checks.wrong(why, what, "describe in one sentence what keeps working");
        }
    }
    if scenario.workloads.is_empty() {
        let help = "a scenario needs at least one client: `- sleep: { cluster: cluster1 }`";
        checks.wrong(&scenario.workloads, "no workloads", help);
    }
    for workload in &*scenario.workloads {
        match &workload.value {
            Workload::Sleep(sleep) => check_sleep(checks, sleep),
            Workload::Server(_, server) => check_server(checks, server),
            Workload::Manifest(manifest) => check_manifest(checks, manifest),
        }
    }
    let sleeps = checks.sleeps().map(|s| ((s.name.as_str(), s.cluster.as_str()), &s.cluster));
    for (first, again) in repeated(sleeps) {
        let what = format!("two `sleep` workloads in {} have the same name", again.value);
        checks.conflict(
            first,
            again,
            what,
            "set a different `name` for one of them: calls are made `from: NAME@CLUSTER`",
        );
    }
    for kind in SERVERS {
        let servers = scenario.servers().filter(|(of, _)| of.name == kind.name);
        let servers =
            servers.map(|(_, s)| ((s.version.as_str(), s.cluster.as_str(), s.namespace.as_str()), &s.version));
        for (first, again) in repeated(servers) {
            let what = format!("`{}` {} is listed twice for one cluster", kind.name, again.value);
            checks.conflict(first, again, what, "use `replicas` for more pods of one version");
        }
    }
}

fn check_sleep(checks: &mut Checks<'_>, sleep: &Sleep) {
    checks.cluster(&sleep.cluster);
    word(checks, &sleep.name, "name");
    check_metadata(checks, &sleep.labels, true);
    check_metadata(checks, &sleep.annotations, false);
    if let Some(namespace) = &sleep.namespace {
        word(checks, namespace, "namespace");
    }
}

fn check_server(checks: &mut Checks<'_>, server: &ServerWorkload) {
    checks.cluster(&server.cluster);
    word(checks, &server.version, "version");
    check_metadata(checks, &server.labels, true);
    check_metadata(checks, &server.annotations, false);
    word(checks, &server.namespace, "namespace");
    checks.mistakes.versions.insert(server.version.value.clone());
}

/// Labels or annotations beside those that meshproof sets.
fn check_metadata(checks: &mut Checks<'_>, metadata: &BTreeMap<String, Located<String>>, labels: bool) {
    for (key, value) in metadata {
        let owned = key.starts_with("meshproof.dev/") || labels && ["app", "version"].contains(&key.as_str());
        if owned {
            checks.wrong(value, format!("meshproof sets `{key}` itself"), "use another key");
        } else if labels && key == "sidecar.istio.io/inject" {
            checks.wrong(value, format!("`{key}` is set by `sidecar`"), "write `sidecar: true` or `sidecar: false`");
        } else if labels && !is_label_value(value) {
            let what = format!("`{}` is not the value of a label", value.value);
            checks.wrong(value, what, "expected at most 63 letters, digits, dashes, dots and underscores");
        }
    }
}

fn is_label_value(value: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63 && value.chars().all(inside) && ends(value.chars().next()) && ends(value.chars().next_back())
}

/// A manifest gives the versions that its pods are labelled with.
fn check_manifest(checks: &mut Checks<'_>, manifest: &ManifestFile) {
    checks.cluster(&manifest.cluster);
    if let Some(namespace) = &manifest.namespace {
        word(checks, namespace, "namespace");
    }
    for object in checks.manifests(manifest.manifests()) {
        let data = &object.object.data;
        let labels = data.pointer("/spec/template/metadata/labels/version").and_then(|version| version.as_str());
        let own = object.object.metadata.labels.as_ref().and_then(|labels| labels.get("version")).map(String::as_str);
        checks.mistakes.versions.extend(labels.or(own.filter(|_| object.kind() == "Pod")).map(str::to_owned));
    }
}

const EXPECTED_WORD: &str = "expected lower-case letters, digits and dashes, as in Kubernetes names";

fn word(checks: &mut Checks<'_>, value: &Located<String>, what: &str) {
    if !is_word(value) {
        checks.wrong(value, format!("`{}` is not a {what}", value.value), EXPECTED_WORD);
    }
}

/// Names become parts of Kubernetes names (RFC 1123 labels); 40 characters leave room for what is added.
fn is_word(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=40).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}
