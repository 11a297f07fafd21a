//! Machines outside Kubernetes that cannot register, or are not healthy.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::effect::until;
use super::error::FaultError;
use super::nodes::can_be_entered;
use super::objects;
use super::record::{Fault, act, plan};
use super::world::{At, World};
use crate::apply::{self, Manifest};
use crate::diagnose::RungId;
use crate::observe::entries::{self, Entry};
use crate::provider::{Cluster, PodAt};
use crate::wait::Poll;
use crate::workload;

const BASE: Fault = Fault { rung: Some(RungId::Machine), applies: has_machines, ..Fault::BASE };

pub(super) const GROUP_MISSING: Fault = Fault {
    name: "workload-group-missing",
    breaks: "The WorkloadGroups that this cluster's machines joined are deleted, and their WorkloadEntries with them.",
    plan: |at| plan(at, groups),
    restores: |noted| {
        let groups: Vec<Value> = serde_json::from_value(noted.clone()).unwrap_or_default();
        let named = |g: &Value| format!("WorkloadGroup {}/{}", g["metadata"]["namespace"], g["metadata"]["name"]);
        Ok(groups.iter().map(named).collect())
    },
    inject: |at, groups| act(at, groups, |at, groups| remove(at, groups)),
    clear: |at, groups| act(at, groups, |at, groups| restore(at, groups)),
    ..BASE
};

pub(super) const UNHEALTHY: Fault = Fault {
    name: "machine-unhealthy",
    breaks: "The applications on this cluster's machines refuse connections: their health checks fail.",
    applies: |world, cluster| has_machines(world, cluster).and_then(|()| can_be_entered(cluster)),
    inject: |at, none| {
        act(at, none, |at, ()| async move {
            filter(at, true).await?;
            health(at, Some(false)).await
        })
    },
    clear: |at, none| {
        act(at, none, |at, ()| async move {
            filter(at, false).await?;
            health(at, Some(true)).await
        })
    },
    ..BASE
};

fn has_machines(world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
    world.topology.joined_by(&cluster.name).map(drop).ok_or_else(|| "its workloads are not machines".to_owned())
}

/// The cluster that the machines join.
fn joined<'a>(at: At<'a>) -> Result<&'a Cluster, FaultError> {
    match at.world.topology.joined_by(&at.cluster.name) {
        Some(spec) => at.world.cluster(&spec.name),
        None => Err(at.does_not_apply("its workloads are not machines")),
    }
}

fn all(cluster: &Cluster, namespace: &str) -> objects::Objects<kube::api::DynamicObject> {
    objects::named(cluster, "networking.istio.io/v1", "WorkloadGroup", namespace)
}

async fn groups(at: At<'_>) -> Result<Vec<Value>, FaultError> {
    let mut found = Vec::new();
    for namespace in at.world.namespaces {
        for group in all(joined(at)?, namespace).list().await? {
            found.push(json!({
                "apiVersion": "networking.istio.io/v1",
                "kind": "WorkloadGroup",
                "metadata": { "name": group.name_any(), "namespace": namespace, "labels": group.labels() },
                "spec": group.data["spec"],
            }));
        }
    }
    at.some(found, "no WorkloadGroup is there")
}

async fn remove(at: At<'_>, groups: Vec<Value>) -> Result<(), FaultError> {
    for group in &groups {
        let text = |key: &str| group["metadata"][key].as_str().unwrap_or_default();
        all(joined(at)?, text("namespace")).delete(text("name"), None).await?;
    }
    settled(at, "no WorkloadEntry of a machine", |entries| entries.is_empty()).await?;
    at.world.endpoints_settle().await
}

/// The agents are connected and register only when they connect: machines are started again.
async fn restore(at: At<'_>, groups: Vec<Value>) -> Result<(), FaultError> {
    let manifests: Vec<Manifest> =
        groups.into_iter().map(|g| Manifest::made("group to restore", g)).collect::<Result<_, _>>()?;
    apply::apply(joined(at)?, &manifests, None).await?;
    super::workloads::end_all(at.world, at.cluster, super::workloads::is_meshed).await?;
    super::workloads::ready(at.world, at.cluster, |_| true, "").await?;
    let machines = pods(at).await?.len();
    settled(at, "a WorkloadEntry for every machine", |entries| entries.len() >= machines).await?;
    at.world.endpoints_settle().await
}

/// Waits until the entries that machines registered are as wanted.
async fn settled(at: At<'_>, what: &str, wanted: impl Fn(&[Entry]) -> bool) -> Result<(), FaultError> {
    let (joined, wanted) = (joined(at)?, &wanted);
    until(format!("{what} in {}", joined.name), || async move {
        let mut registered = Vec::new();
        for namespace in at.world.namespaces {
            match entries::of_namespace(joined, namespace).await {
                Ok(all) => registered.extend(all.into_iter().filter(|e| e.group.is_some())),
                Err(error) => return Poll::NotYet(error.to_string()),
            }
        }
        if wanted(&registered) { Poll::Ready(()) } else { Poll::NotYet(format!("there are {}", registered.len())) }
    })
    .await
}

async fn pods(at: At<'_>) -> Result<Vec<PodAt>, FaultError> {
    let mut all = Vec::new();
    for namespace in at.world.namespaces {
        for pod in workload::pods(at.cluster, namespace, "").await? {
            let place = pod.node.clone().zip(pod.ip);
            all.extend(place.map(|(node, address)| PodAt { pod: pod.reference(), node, address }));
        }
    }
    Ok(all)
}

/// Refuses, or lets through, connections to the application inside each machine.
async fn filter(at: At<'_>, refuse: bool) -> Result<(), FaultError> {
    const RULE: &str = "INPUT -i lo -p tcp --dport 5000 -j REJECT --reject-with tcp-reset";
    let argv = |verb: &'static str| ["iptables", "-w", verb].into_iter().chain(RULE.split(' ')).collect::<Vec<_>>();
    for pod in pods(at).await? {
        let there = at.cluster.pod_net_exec(&pod, &argv("-C")).await?.status.success();
        if there != refuse {
            let done = at.cluster.pod_net_exec(&pod, &argv(if refuse { "-I" } else { "-D" })).await?;
            if !done.status.success() {
                return Err(FaultError::NoEffect(format!("iptables in {}: {}", pod.pod.name, done.last_lines(2))));
            }
        }
    }
    Ok(())
}

/// Waits until the machines that report their health report this.
async fn health(at: At<'_>, wanted: Option<bool>) -> Result<(), FaultError> {
    // Those without a health check are always healthy.
    let checked = |entries: &[Entry]| match wanted {
        Some(false) => entries.iter().any(|entry| entry.healthy == Some(false)),
        _ => entries.iter().all(|entry| entry.healthy == wanted),
    };
    settled(at, "the machines to report their health", checked).await?;
    at.world.endpoints_settle().await
}
