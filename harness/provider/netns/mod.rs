//! Clusters without a container engine: real Kubernetes processes in network namespaces.
//!
//! Per cluster a real etcd, kube-apiserver and kube-controller-manager, per node a real kube-proxy
//! and the node [`agent`], and CoreDNS beside the control plane: all plain processes. Per node and
//! per pod one network namespace, joined by a namespace that plays the network between the machines
//! (the fabric). Nothing of it shows in the host's own network: the API servers are reached
//! through forwarders on 127.0.0.1.
//!
//! | file | job |
//! |---|---|
//! | `layout` | which namespaces, addresses and routes an environment has (pure) |
//! | `network` | links, addresses, routes |
//! | `namespace` | named network namespaces: make, enter, list what runs inside, remove |
//!
//! **Never**: touch the host's links, routes or packet filter.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod agent;
pub mod layout;
pub mod namespace;
pub mod network;

/// Where the programs are that the clusters and their pods are made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// This harness: `meshproof __supervise` keeps the processes. (Not `current_exe`: a test binary has no such command.)
    pub meshproof: PathBuf,
    /// etcd 3.6 or newer.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// kube-controller-manager.
    pub kube_controller_manager: PathBuf,
    /// kube-proxy.
    pub kube_proxy: PathBuf,
    /// CoreDNS.
    pub coredns: PathBuf,
    /// istiod.
    pub pilot_discovery: PathBuf,
    /// Istio's agent beside each proxy.
    pub pilot_agent: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
}
