//! What runs on the node, and what it uses: `/pods`, `/stats/summary`, `/metrics/resource`.

use std::fmt::Write as _;

use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::super::usage::{self, PodUsage, Usage};
use super::super::{KubeletNode, status};
use super::reply::{self, Body};

/// The pods, with the status that they have now.
pub fn pods(node: &KubeletNode) -> Response<Body> {
    let now = Timestamp::now();
    let items = node.pods.all().into_iter().map(|run| {
        let status = status::of(&run.view.borrow(), node.config.address.into(), None, now);
        Pod { status: Some(status), ..run.latest() }
    });
    let items: Vec<Pod> = items.collect();
    reply::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// Kubernetes' `Summary` (k8s.io/kubelet/pkg/apis/stats/v1alpha1): processor time and memory.
pub fn summary(node: &KubeletNode) -> Response<Body> {
    let now = Timestamp::now();
    let both = |usage: Usage| {
        (
            json!({"time": now, "usageCoreNanoSeconds": usage.cpu}),
            json!({"time": now, "usageBytes": usage.memory, "workingSetBytes": usage.memory, "rssBytes": usage.memory}),
        )
    };
    let pod = |pod: &PodUsage| {
        let containers: Vec<Value> = pod
            .containers
            .iter()
            .map(|c| {
                let (cpu, memory) = both(c.usage);
                json!({"name": c.name, "startTime": c.since, "cpu": cpu, "memory": memory})
            })
            .collect();
        let (cpu, memory) = both(pod.total());
        let reference = json!({
            "name": pod.run.name(), "namespace": pod.run.namespace(), "uid": pod.run.pod.metadata.uid
        });
        let start = pod.run.view.borrow().started_at;
        json!({"podRef": reference, "startTime": start, "containers": containers, "cpu": cpu, "memory": memory})
    };
    let pods: Vec<Value> = usage::of(node).iter().map(pod).collect();
    let (cpu, memory) = both(usage::machine());
    reply::json(&json!({"node": {"nodeName": node.config.name, "cpu": cpu, "memory": memory}, "pods": pods}))
}

/// What metrics-server reads, in Prometheus' text format.
pub fn metrics(node: &KubeletNode) -> Response<Body> {
    let now = Timestamp::now().as_millisecond();
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value} {now}");
        }
    };
    let pods = usage::of(node);
    let containers = || {
        pods.iter().flat_map(|pod| {
            pod.containers.iter().map(move |c| {
                let labels = format!(
                    "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
                    c.name,
                    pod.run.namespace(),
                    pod.run.name()
                );
                (labels, c)
            })
        })
    };
    let of_pods = |value: fn(Usage) -> f64| -> Vec<(String, f64)> {
        let labels = |pod: &PodUsage| format!("{{namespace=\"{}\",pod=\"{}\"}}", pod.run.namespace(), pod.run.name());
        pods.iter().map(|pod| (labels(pod), value(pod.total()))).collect()
    };
    let seconds = |usage: Usage| usage.cpu as f64 / 1e9;
    let bytes = |usage: Usage| usage.memory as f64;
    let machine = usage::machine();
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
        &containers().map(|(labels, c)| (labels, seconds(c.usage))).collect::<Vec<_>>(),
    );
    family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
        &containers().map(|(labels, c)| (labels, bytes(c.usage))).collect::<Vec<_>>(),
    );
    family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
        &containers().map(|(labels, c)| (labels, c.since.as_millisecond() as f64 / 1e3)).collect::<Vec<_>>(),
    );
    family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
        &[(String::new(), seconds(machine))],
    );
    family(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
        &[(String::new(), bytes(machine))],
    );
    family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
        &of_pods(seconds),
    );
    family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", &of_pods(bytes));
    family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        &[(String::new(), 0.0)],
    );
    reply::text(StatusCode::OK, text)
}
