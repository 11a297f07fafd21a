//! A cluster's east-west gateway is away, cannot be reached, or is not known as one.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::effect::until;
use super::error::FaultError;
use super::nodes::{Rule, add_rules, can_be_entered, close_sockets, remove_rules};
use super::objects;
use super::record::{Fault, act, plan};
use super::world::{At, World};
use crate::diagnose::RungId;
use crate::istio::NAMESPACE;
use crate::istio::gateway::{NAME, PORT};
use crate::observe::istiod;
use crate::provider::Cluster;
use crate::topology::ClusterSpec;
use crate::wait::Poll;

const BASE: Fault = Fault { rung: Some(RungId::Gateway), applies: has_gateway, ..Fault::BASE };

pub(super) const DOWN: Fault = Fault {
    name: "gateway-down",
    breaks: "This cluster's east-west gateway has no pods: nothing on other networks reaches its services.",
    plan: |at| plan(at, replicas),
    inject: |at, replicas| act(at, replicas, |at, _: i32| scale(at, 0)),
    clear: |at, replicas| act(at, replicas, scale),
    ..BASE
};

pub(super) const PORT_CLOSED: Fault = Fault {
    name: "gateway-port-closed",
    breaks: "This cluster's nodes drop what is sent to port 15443: connections to its east-west gateway time out.",
    applies: |world, cluster| has_gateway(world, cluster).and_then(|()| can_be_entered(cluster)),
    inject: |at, none| act(at, none, |at, ()| async move { add_rules(at.cluster, &[closed()]).await }),
    clear: |at, none| act(at, none, |at, ()| open(at)),
    ..BASE
};

pub(super) const ADDRESS_WRONG: Fault = Fault {
    name: "gateway-address-wrong",
    breaks: "The Service of this cluster's east-west gateway has an external address where nothing responds.",
    plan: |at| plan(at, known),
    inject: |at, known| {
        act(at, known, |at, _: Known| async move {
            put(at, json!({ "spec": { "externalIPs": [NOBODY] } })).await?;
            until_known(at, Some(NOBODY)).await
        })
    },
    clear: |at, known| act(at, known, restore),
    ..BASE
};

pub(super) const LABEL_MISSING: Fault = Fault {
    name: "gateway-network-label-missing",
    breaks: "The Service of this cluster's east-west gateway has no label topology.istio.io/network: proxies on other networks get \
             the addresses of pods, as if the network were flat.",
    applies: |world, cluster| {
        has_gateway(world, cluster)?;
        let own = world.topology.cluster(&cluster.name);
        let apart = |c: &ClusterSpec| own.is_some_and(|own| c.mesh.id == own.mesh.id && c.network != own.network);
        let apart = world.topology.clusters.iter().any(apart);
        if apart { Ok(()) } else { Err("its mesh has no other network".to_owned()) }
    },
    plan: |at| plan(at, known),
    inject: |at, known| {
        act(at, known, |at, _: Known| async move {
            put(at, json!({ "metadata": { "labels": { LABEL: null } } })).await?;
            until_known(at, None).await
        })
    },
    clear: |at, known| act(at, known, restore),
    ..BASE
};

const LABEL: &str = "topology.istio.io/network";
/// Nobody answers there (TEST-NET-1 of RFC 5737).
const NOBODY: &str = "192.0.2.1";

/// Fails where there is no east-west gateway.
fn has_gateway(world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
    match world.topology.cluster(&cluster.name) {
        Some(spec) if spec.gateway => Ok(()),
        _ => Err("it has no east-west gateway".to_owned()),
    }
}

fn deployments(cluster: &Cluster) -> objects::Objects<Deployment> {
    objects::of(cluster, NAMESPACE)
}

async fn replicas(at: At<'_>) -> Result<i32, FaultError> {
    Ok(deployments(at.cluster).get(NAME).await?.spec.replicas.unwrap_or(1).max(1))
}

/// Returns when the gateway has as many pods, each ready.
async fn scale(at: At<'_>, replicas: i32) -> Result<(), FaultError> {
    deployments(at.cluster).merge(NAME, json!({ "spec": { "replicas": replicas } })).await?;
    let pods = objects::of::<Pod>(at.cluster, NAMESPACE);
    if replicas == 0 {
        for pod in pods.list_by(&format!("app={NAME}")).await? {
            pods.delete(&pod.name_any(), Some(1)).await?;
        }
    }
    let (wanted, pods) = (usize::try_from(replicas).unwrap_or(0), &pods);
    until(format!("{replicas} ready pods of the east-west gateway in {}", at.cluster.name), || async move {
        match pods.list_by(&format!("app={NAME}")).await {
            Ok(all) => {
                let ready = all.iter().filter(|pod| crate::observe::PodInfo::of(pod).ready).count();
                if all.len() == wanted && ready == wanted {
                    return Poll::Ready(());
                }
                Poll::NotYet(format!("{} exist, {ready} are ready", all.len()))
            }
            Err(error) => Poll::Failed(error),
        }
    })
    .await?;
    if replicas > 0 { reconnected(at).await } else { Ok(()) }
}

/// Waits until every proxy is connected to its control plane and has the endpoints that exist now.
async fn reconnected(at: At<'_>) -> Result<(), FaultError> {
    for spec in at.world.topology.istiods() {
        at.world.connected(at.world.cluster(&spec.name)?).await?;
    }
    at.world.endpoints_settle().await
}

fn closed() -> Rule {
    Rule::new("mangle", "PREROUTING", &format!("-p tcp --dport {PORT} -j DROP"))
}

/// Connections that stalled are retried in growing intervals; a new one is opened at once.
async fn open(at: At<'_>) -> Result<(), FaultError> {
    remove_rules(at.cluster, &[closed()]).await?;
    for other in at.world.others(at.cluster) {
        close_sockets(&at.world, other, &["dport", "=", &PORT.to_string()]).await?;
    }
    Ok(())
}

/// How the gateway is known.
#[derive(Serialize, Deserialize)]
struct Known {
    network: String,
    addresses: Vec<String>,
}

fn services(cluster: &Cluster) -> objects::Objects<Service> {
    objects::of(cluster, NAMESPACE)
}

async fn known(at: At<'_>) -> Result<Known, FaultError> {
    let service = services(at.cluster).get(NAME).await?;
    let network = service.labels().get(LABEL).cloned();
    let network = network.ok_or_else(|| at.does_not_apply(format!("Service {NAME} has no label {LABEL}")))?;
    let addresses = service.spec.and_then(|spec| spec.external_ips).unwrap_or_default();
    let addresses =
        at.some(addresses, "the gateway's Service has no external IP: a load balancer gives it an address")?;
    Ok(Known { network, addresses })
}

async fn put(at: At<'_>, patch: serde_json::Value) -> Result<(), FaultError> {
    services(at.cluster).merge(NAME, patch).await
}

async fn restore(at: At<'_>, Known { network, addresses }: Known) -> Result<(), FaultError> {
    let patch = json!({ "metadata": { "labels": { LABEL: network } }, "spec": { "externalIPs": addresses } });
    put(at, patch).await?;
    until_known(at, addresses.first().map(String::as_str)).await
}

/// Waits until every istiod of the mesh knows the cluster's gateway at that address, or knows none (`None`), and the proxies have
/// what follows from it.
async fn until_known(at: At<'_>, address: Option<&str>) -> Result<(), FaultError> {
    let Some(spec) = at.world.topology.cluster(&at.cluster.name) else { return Ok(()) };
    for istiod in at.world.topology.istiods().filter(|istiod| istiod.mesh.id == spec.mesh.id) {
        let home = at.world.cluster(&istiod.name)?;
        let words = address.map_or("no gateway".to_owned(), |address| format!("a gateway at {address}"));
        until(format!("the istiod in {} to know {words} of {}", istiod.name, spec.network), || async {
            match istiod::gateways(home).await {
                Ok(all) => {
                    let mut known = all.iter().filter(|gateway| gateway.network == spec.network);
                    let same = match address {
                        Some(address) => known.any(|gateway| gateway.addr == address),
                        None => known.next().is_none(),
                    };
                    if same { Poll::Ready(()) } else { Poll::NotYet(format!("it knows {all:?}")) }
                }
                Err(error) => Poll::NotYet(error.to_string()),
            }
        })
        .await?;
    }
    at.world.endpoints_settle().await
}
