//! Workloads on machines: the files that they join with, and waiting until they are registered.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::try_join_all;
use kube::api::Api;
use serde_json::json;

use super::desired::{Desired, Machines};
use super::{RunningWorkload, WorkloadError};
use crate::apply::{self, Manifest};
use crate::istio::machine::Joining;
use crate::observe::PodInfo;
use crate::observe::entries::{self, RegisteredMachine};
use crate::provider::Cluster;
use crate::wait::{self, Poll};

const LIMIT: Duration = Duration::from_secs(120);

/// The clusters whose workloads are machines.
pub(super) fn of(joining: &Joining, clusters: &[Cluster]) -> Result<Vec<Machines>, WorkloadError> {
    let topology = &joining.topology;
    let of = topology.clusters.iter().filter_map(|spec| Some((spec, topology.joined_by(&spec.name)?)));
    of.map(|(spec, joined)| {
        Ok(Machines {
            cluster: spec.name.clone(),
            joins: joined.name.clone(),
            istiod: joining.istiod(&joined.name, clusters)?,
            network: spec.network.clone(),
            image: joining.image.clone(),
        })
    })
    .collect()
}

fn named<'a>(clusters: &'a [Cluster], name: &str) -> Option<&'a Cluster> {
    clusters.iter().find(|cluster| cluster.name == name)
}

/// Brings the files of every machine into its cluster. The workloads of the clusters that they join must be there.
pub(super) async fn files(
    joining: &Joining,
    desired: &Desired,
    clusters: &[Cluster],
    owner: &str,
) -> Result<(), WorkloadError> {
    let each = desired.machines.iter().map(|(cluster, machine)| async move {
        let (Some(home), Some(joined)) = (named(clusters, cluster), named(clusters, &machine.joins)) else {
            return Ok(());
        };
        root_certificate(joined, &machine.namespace).await?;
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": machine.namespace } });
        let mut manifests = vec![Manifest::made("namespace of workloads", namespace)?];
        manifests.extend(joining.files(machine, clusters).await?);
        apply::apply(home, &manifests, Some(owner)).await?;
        Ok::<_, WorkloadError>(())
    });
    try_join_all(each).await?;
    Ok(())
}

/// istiod writes it into a namespace soon after that is created.
async fn root_certificate(joined: &Cluster, namespace: &str) -> Result<(), WorkloadError> {
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(joined.client.clone(), namespace);
    let (maps, what) = (&maps, format!("the root certificate in namespace {namespace} of {}", joined.name));
    wait::until(what, LIMIT, Duration::from_millis(100), || async move {
        match maps.get_opt("istio-ca-root-cert").await {
            Ok(Some(_)) => Poll::Ready(()),
            Ok(None) => Poll::NotYet("ConfigMap istio-ca-root-cert".into()),
            Err(error) => Poll::Failed(WorkloadError::kube(joined, "read the root certificate", error)),
        }
    })
    .await
    .map_err(not_running)
}

/// Waits until every machine that runs is registered and healthy in the cluster that it joins, and no other.
pub(super) async fn registered(
    desired: &Desired,
    running: &[RunningWorkload],
    clusters: &[Cluster],
) -> Result<(), WorkloadError> {
    let each = desired.machines.iter().filter_map(|(cluster, machine)| {
        let workload = running.iter().find(|w| w.cluster == *cluster && w.name == machine.name)?;
        Some((named(clusters, &machine.joins)?, machine, workload))
    });
    let each = each.map(|(joined, machine, workload)| async move {
        forget_others(joined, &machine.namespace, &machine.name, &workload.pods).await?;
        entries(joined, &machine.namespace, &machine.name, &workload.pods).await
    });
    try_join_all(each).await?;
    Ok(())
}

/// Deletes what machines of earlier scenarios left: an istiod that restarted while a machine left keeps its entry for half an hour
/// (istio/istio `pilot/pkg/autoregistration`: until its connection would have reached its greatest age).
async fn forget_others(joined: &Cluster, namespace: &str, group: &str, pods: &[PodInfo]) -> Result<(), WorkloadError> {
    let Ok(all) = entries::of_namespace(joined, namespace).await else { return Ok(()) };
    let others = all.iter().filter(|entry| entry.group.as_deref() == Some(group));
    let others = others.filter(|entry| !pods.iter().any(|pod| pod.ip.is_some() && pod.ip == entry.address));
    let manifests = others.map(|entry| {
        let metadata = json!({ "name": entry.name, "namespace": namespace });
        let object = json!({ "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": metadata });
        Manifest::made("left by a machine", object)
    });
    apply::delete(joined, &manifests.collect::<Result<Vec<_>, _>>()?).await?;
    Ok(())
}

/// Waits until the entries of a group are those of `pods`, and none is about to change. istiod removes the entry of a machine
/// that has left after a grace period.
pub(super) async fn entries(
    joined: &Cluster,
    namespace: &str,
    group: &str,
    pods: &[PodInfo],
) -> Result<(), WorkloadError> {
    let what = format!("WorkloadEntries of group {namespace}/{group} in {}", joined.name);
    wait::until(what, LIMIT, Duration::from_millis(200), || async move {
        let entries = match entries::of_namespace(joined, namespace).await {
            Ok(entries) => entries,
            Err(error) => return Poll::NotYet(error.to_string()),
        };
        let own: Vec<&RegisteredMachine> = entries.iter().filter(|e| e.group.as_deref() == Some(group)).collect();
        let addresses: Vec<IpAddr> = pods.iter().filter_map(|pod| pod.ip).collect();
        if let Some(address) = addresses.iter().find(|ip| !own.iter().any(|e| e.address == Some(**ip))) {
            return Poll::NotYet(format!("none has the address {address}"));
        }
        if let Some(old) = own.iter().find(|e| e.address.is_none_or(|ip| !addresses.contains(&ip))) {
            return Poll::NotYet(format!("{} of a machine that is gone is still there", old.name));
        }
        match own.iter().find_map(|entry| entry.unsettled()) {
            Some(why) => Poll::NotYet(why),
            None => Poll::Ready(()),
        }
    })
    .await
    .map_err(not_running)
}

fn not_running(source: wait::WaitError<WorkloadError>) -> WorkloadError {
    WorkloadError::NotRunning { source: Box::new(source), events: String::new() }
}
