//! A proxy keeps the configuration that it has.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::error::FaultError;
use super::nodes::{Rule, add_rules, can_be_entered, close_sockets, remove_rules};
use super::objects;
use super::record::{Fault, act, plan};
use super::world::At;
use crate::diagnose::RungId;
use crate::workload::PodInfo;

pub(super) const PROXY_STUCK: Fault = Fault {
    name: "proxy-stuck",
    breaks: "The proxies of this cluster's workloads cannot reach their control plane: they keep the configuration that they have.",
    rung: Some(RungId::Configuration),
    applies: |_, cluster| can_be_entered(cluster),
    plan: |at| plan(at, proxies),
    inject: |at, pods| act(at, pods, |at, pods: Vec<IpAddr>| async move { add_rules(at.cluster, &rules(&pods)).await }),
    clear: |at, pods| act(at, pods, reconnect),
    ..Fault::BASE
};

/// Where proxies get their configuration from.
const XDS_PORT: &str = "15012";

/// Drops what pods and their control plane send to each other, before any service address is translated. The connection stays
/// open at both ends until its keep-alive gives up, after half a minute. (Dropping one direction is not enough: what is sent
/// arrives and takes effect, though it is never acknowledged.)
///
/// (Stopping pilot-agent would be simpler, but it is the first process of its container, which the kernel lets no process of
/// the container stop.)
fn rules(pods: &[IpAddr]) -> Vec<Rule> {
    let both = |pod: &IpAddr| [format!("-s {pod} --dport {XDS_PORT}"), format!("-d {pod} --sport {XDS_PORT}")];
    let rule = |ends| Rule::new("mangle", "PREROUTING", &format!("-p tcp {ends} -j DROP"));
    pods.iter().flat_map(both).map(rule).collect()
}

/// The addresses of the pods with a proxy.
async fn proxies(at: At<'_>) -> Result<Vec<IpAddr>, FaultError> {
    let mut found: Vec<IpAddr> = Vec::new();
    for namespace in at.world.namespaces {
        let pods = objects::of::<Pod>(at.cluster, namespace).list().await?;
        found.extend(pods.iter().map(PodInfo::of).filter(|p| p.sidecar).filter_map(|p| p.ip));
    }
    at.some(found, "no pod there has a proxy")
}

/// Returns when every proxy is connected and has the current configuration again.
async fn reconnect(at: At<'_>, pods: Vec<IpAddr>) -> Result<(), FaultError> {
    remove_rules(at.cluster, &rules(&pods)).await?;
    // A connection that got no answer for long is retried in growing intervals; a new one is opened at once.
    close_sockets(&at.world, at.cluster, &["dport", "=", XDS_PORT]).await?;
    let own = at.world.topology.cluster(&at.cluster.name).and_then(|c| c.served_by()).unwrap_or(&at.cluster.name);
    at.world.connected(at.world.cluster(own)?).await?;
    at.world.endpoints_settle().await
}
