//! The nodes of a kind config and their labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Patches;
use super::fields::NodeConfig;
use crate::source::{Located, Problem, Source};
use crate::topology::{NodeRole, NodeSpec};

/// The nodes, control planes first, with their labels.
pub(super) fn nodes(
    file: &Arc<Source>,
    nodes: &[Located<NodeConfig>],
    patches: &[Patches],
    problems: &mut Vec<Problem>,
) -> Vec<NodeSpec> {
    let default = [Located::nowhere(NodeConfig::default())];
    let nodes = if nodes.is_empty() { &default } else { nodes }; // as kind does
    let role = |node: &NodeConfig| match node.role.as_ref().map(|role| role.as_str()) {
        Some("worker") => NodeRole::Worker,
        _ => NodeRole::ControlPlane,
    };
    let first = nodes.iter().position(|node| role(node) == NodeRole::ControlPlane);
    let mut specs: Vec<NodeSpec> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let mut labels = BTreeMap::new();
        for (key, value) in &node.labels {
            let text = value.as_ref().map_or("", |value| value.as_str());
            check(file, key, text, value.as_ref().unwrap_or(key), problems);
            labels.insert(key.value.clone(), text.to_owned());
        }
        // kubeadm reads one document on the node that it sets up first, another one on the others
        let document = if first == Some(index) { "InitConfiguration" } else { "JoinConfiguration" };
        let applied = patches.iter().filter(|p| p.node.is_none_or(|node| node == index)).flat_map(Patches::all);
        for setting in applied.filter(|s| s.is(document, NODE_LABELS)) {
            // kind puts `labels` into the same argument, which the patch replaces
            labels.clear();
            for pair in setting.text().split(',').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                check(file, &setting.at.with(key.to_owned()), value, &setting.at.with(String::new()), problems);
                labels.insert(key.to_owned(), value.to_owned());
            }
        }
        specs.push(NodeSpec { role: role(node), labels });
    }
    specs.sort_by_key(|node| node.role != NodeRole::ControlPlane);
    specs
}

/// The argument of kubelets that holds their nodes' labels.
pub(super) const NODE_LABELS: &str = "nodeRegistration.kubeletExtraArgs.node-labels";

fn check(file: &Arc<Source>, key: &Located<String>, value: &str, at: &Located<String>, problems: &mut Vec<Problem>) {
    if !is_key(key) {
        let what = format!("`{}` is not a valid label key", key.value);
        problems.push(Problem::with(file, key, what).help("expected a name such as ingress-ready or example.com/rack"));
    } else if !may_set(key) {
        let what = format!("a kubelet may not set the label `{}` on its node", key.value);
        let help = "of kubernetes.io and k8s.io, a kubelet sets topology.kubernetes.io/region and zone, kubernetes.io/hostname, \
                    os and arch, and labels below node.kubernetes.io and kubelet.kubernetes.io";
        problems.push(Problem::with(file, key, what).help(help));
    }
    if !is_value(value) {
        let what = format!("`{value}` is not a valid label value");
        problems.push(
            Problem::with(file, at, what)
                .help("expected at most 63 letters, digits, dashes, underscores and dots, or nothing"),
        );
    }
}

/// Source: `k8s.io/kubelet/pkg/apis/well_known_labels.go`; a kubelet with another one of these domains does not start.
fn may_set(key: &str) -> bool {
    const LABELS: [&str; 10] = [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "kubernetes.io/os",
        "kubernetes.io/arch",
    ];
    let Some((domain, _)) = key.split_once('/') else { return true };
    let below = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    if !below("kubernetes.io") && !below("k8s.io") {
        return true;
    }
    LABELS.contains(&key) || below("kubelet.kubernetes.io") || below("node.kubernetes.io")
}

/// A part of a label: begins and ends with a letter or digit.
fn is_part(text: &str) -> bool {
    let end = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| end(c) || "-_.".contains(c);
    (1..=63).contains(&text.len()) && text.chars().all(inner) && text.starts_with(end) && text.ends_with(end)
}

fn is_value(text: &str) -> bool {
    text.is_empty() || is_part(text)
}

fn is_key(text: &str) -> bool {
    let domain = |text: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        (1..=253).contains(&text.len())
            && text.chars().all(inner)
            && !text.starts_with(['-', '.'])
            && !text.ends_with(['-', '.'])
    };
    match text.split_once('/') {
        Some((prefix, name)) => domain(prefix) && is_part(name),
        None => is_part(text),
    }
}
