//! Machines outside Kubernetes, and those that cannot register because their groups are missing.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::effect::until;
use super::error::FaultError;
use super::objects;
use super::record::{Fault, act, plan};
use super::world::{At, World};
use crate::apply::{self, Manifest};
use crate::diagnose::RungId;
use crate::observe::entries::{self, RegisteredMachine};
use crate::provider::Cluster;
use crate::wait::Poll;

pub(super) const BASE: Fault =
    Fault { rung: Some(RungId::Machine), applies: |world, cluster| joins(world, cluster).map(drop), ..Fault::BASE };

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

/// The name of the cluster that the machines join.
pub(super) fn joins<'a>(world: &World<'a>, cluster: &Cluster) -> Result<&'a str, String> {
    let spec = world.topology.joined_by(&cluster.name).ok_or("its workloads are not machines")?;
    Ok(&spec.name)
}

/// The cluster that the machines join.
pub(super) fn joined<'a>(at: At<'a>) -> Result<&'a Cluster, FaultError> {
    at.world.cluster(joins(&at.world, at.cluster).map_err(|why| at.does_not_apply(&why))?)
}

fn all(cluster: &Cluster, namespace: &str) -> objects::Objects<kube::api::DynamicObject> {
    objects::named(cluster, "networking.istio.io/v1", "WorkloadGroup", namespace)
}

pub(super) async fn groups(at: At<'_>) -> Result<Vec<Value>, FaultError> {
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
    left(at).await
}

/// The agents are connected and register only when they connect: machines are started again.
async fn restore(at: At<'_>, groups: Vec<Value>) -> Result<(), FaultError> {
    let manifests: Vec<Manifest> =
        groups.into_iter().map(|g| Manifest::made("group to restore", g)).collect::<Result<_, _>>()?;
    apply::apply(joined(at)?, &manifests, None).await?;
    super::workloads::end_all(at.world, at.cluster, super::workloads::is_meshed).await?;
    registered(at).await
}

/// Waits until no machine is registered.
pub(super) async fn left(at: At<'_>) -> Result<(), FaultError> {
    settled(at, "no WorkloadEntry of a machine", |entries| entries.is_empty()).await?;
    at.world.endpoints_settle().await
}

/// Waits until every machine runs and is registered.
pub(super) async fn registered(at: At<'_>) -> Result<(), FaultError> {
    super::workloads::ready(at.world, at.cluster, |_| true, "").await?;
    let machines = super::workloads::pods(at.world, at.cluster, super::workloads::is_meshed).await?.len();
    settled(at, "a WorkloadEntry for every machine", |entries| entries.len() >= machines).await?;
    at.world.endpoints_settle().await
}

/// Waits until the entries that machines registered are as wanted.
pub(super) async fn settled(
    at: At<'_>,
    what: &str,
    wanted: impl Fn(&[RegisteredMachine]) -> bool,
) -> Result<(), FaultError> {
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
