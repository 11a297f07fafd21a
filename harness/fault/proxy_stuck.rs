//! A proxy keeps the configuration that it has.

use std::net::IpAddr;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::Value;

use super::nodes::{Rule, add_rule, can_be_entered, end_sockets, remove_rule};
use super::{Answer, Fault, FaultError, LIMIT, World, kube_error, note, state};
use crate::diagnose::RungId;
use crate::gate;
use crate::provider::Cluster;
use crate::workload::PodInfo;

pub(super) struct ProxyStuck;

/// Where proxies get their configuration from.
const XDS_PORT: &str = "15012";

/// Drops what a pod and its control plane send to each other, before any service address is translated. The connection stays open
/// at both ends until its keep-alive gives up, after half a minute. (Dropping one direction is not enough: what is sent arrives,
/// and is in force, though it is never acknowledged.)
///
/// (Stopping pilot-agent would be simpler, but it is the first process of its container, and the kernel lets nobody
/// inside the container stop that one.)
fn rules(pod: IpAddr) -> [Rule; 2] {
    let pod = pod.to_string();
    [["-s", pod.as_str(), "--dport", XDS_PORT], ["-d", pod.as_str(), "--sport", XDS_PORT]].map(|ends| {
        let words = ["-p", "tcp"].into_iter().chain(ends).chain(["-j", "DROP"]).map(str::to_owned).collect();
        Rule { table: "mangle", chain: "PREROUTING", words }
    })
}

impl Fault for ProxyStuck {
    fn name(&self) -> &'static str {
        "proxy-stuck"
    }

    fn breaks(&self) -> &'static str {
        "The proxies of this cluster's workloads cannot reach their control plane: they keep the configuration that they have."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::Configuration)
    }

    fn applies(&self, _world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        can_be_entered(cluster)
    }

    /// The addresses of the pods with a proxy.
    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let mut found: Vec<IpAddr> = Vec::new();
            for namespace in world.namespaces {
                let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
                let list = pods.list(&ListParams::default()).await.map_err(kube_error(cluster, "list pods"))?;
                found.extend(list.items.iter().map(PodInfo::of).filter(|p| p.sidecar).filter_map(|p| p.ip));
            }
            if found.is_empty() {
                let why = "no pod there has a proxy".to_owned();
                return Err(FaultError::DoesNotApply { name: self.name(), cluster: cluster.name.clone(), why });
            }
            note(&found)
        }
        .boxed_local()
    }

    fn inject<'a>(&'a self, _world: World<'a>, cluster: &'a Cluster, pods: &'a Value) -> Answer<'a, ()> {
        async move {
            for pod in state::<Vec<IpAddr>>(pods)? {
                for node in &cluster.nodes {
                    for rule in rules(pod) {
                        add_rule(cluster, &node.name, &rule).await?;
                    }
                }
            }
            Ok(())
        }
        .boxed_local()
    }

    /// Returns when every proxy is connected and in step again.
    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, pods: &'a Value) -> Answer<'a, ()> {
        async move {
            for pod in state::<Vec<IpAddr>>(pods)? {
                for node in &cluster.nodes {
                    for rule in rules(pod) {
                        remove_rule(cluster, &node.name, &rule).await?;
                    }
                }
            }
            // A connection that got no answer for long tries again in growing intervals; a new one is there at once.
            end_sockets(&world, cluster, &["dport", "=", XDS_PORT]).await?;
            let own = world.topology.cluster(&cluster.name).and_then(|c| c.served_by()).unwrap_or(&cluster.name);
            gate::connected(world.clusters, world.cluster(own)?, LIMIT).await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }
}
