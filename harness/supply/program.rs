//! The files that the supply knows by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A file that the supply can provide. All are programs but [`Program::EnvoyBootstrap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// The Kubernetes API server.
    KubeApiserver,
    /// The Kubernetes controller manager.
    KubeControllerManager,
    /// The Kubernetes scheduler.
    KubeScheduler,
    /// What makes ClusterIPs work on a node.
    KubeProxy,
    /// The Kubernetes kubelet.
    Kubelet,
    /// What sets up a Kubernetes node.
    Kubeadm,
    /// The Kubernetes command line.
    Kubectl,
    /// The store of the API server.
    Etcd,
    /// The DNS server of a cluster.
    Coredns,
    /// kind.
    Kind,
    /// The Istio command line.
    Istioctl,
    /// Istio's control plane (istiod).
    PilotDiscovery,
    /// What runs beside Envoy in every proxy.
    PilotAgent,
    /// The proxy.
    Envoy,
    /// `envoy_bootstrap_tmpl.json`, which the agent turns into Envoy's first configuration.
    EnvoyBootstrap,
    /// The server of the helloworld sample.
    Helloworld,
    /// Holds a pod's namespaces.
    Pause,
}

impl Program {
    /// Every one of them.
    pub const ALL: [Self; 17] = [
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::KubeProxy,
        Self::Kubelet,
        Self::Kubeadm,
        Self::Kubectl,
        Self::Etcd,
        Self::Coredns,
        Self::Kind,
        Self::Istioctl,
        Self::PilotDiscovery,
        Self::PilotAgent,
        Self::Envoy,
        Self::EnvoyBootstrap,
        Self::Helloworld,
        Self::Pause,
    ];

    /// Its name: also the name of its file in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::KubeProxy => "kube-proxy",
            Self::Kubelet => "kubelet",
            Self::Kubeadm => "kubeadm",
            Self::Kubectl => "kubectl",
            Self::Etcd => "etcd",
            Self::Coredns => "coredns",
            Self::Kind => "kind",
            Self::Istioctl => "istioctl",
            Self::PilotDiscovery => "pilot-discovery",
            Self::PilotAgent => "pilot-agent",
            Self::Envoy => "envoy",
            Self::EnvoyBootstrap => "envoy-bootstrap",
            Self::Helloworld => "helloworld",
            Self::Pause => "pause",
        }
    }

    /// Arguments that make it print its version and end; `None` for what is no program or has no version.
    pub fn version_args(self) -> Option<&'static [&'static str]> {
        match self {
            Self::KubeApiserver
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::KubeProxy
            | Self::Kubelet
            | Self::Etcd
            | Self::Envoy => Some(&["--version"]),
            Self::Kubeadm => Some(&["version", "-o", "short"]),
            Self::Kubectl => Some(&["version", "--client"]),
            Self::Coredns => Some(&["-version"]),
            Self::Kind => Some(&["version"]),
            Self::Istioctl => Some(&["version", "--remote=false", "--short"]),
            Self::PilotDiscovery | Self::PilotAgent => Some(&["version", "--short"]),
            Self::EnvoyBootstrap | Self::Helloworld | Self::Pause => None,
        }
    }
}

impl Program {
    /// What is in its answer to [`Program::version_args`] and in no other program's.
    pub(super) fn version_mark(self) -> &'static str {
        match self {
            Self::KubeApiserver
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::KubeProxy
            | Self::Kubelet => "Kubernetes v",
            Self::Etcd => "etcd Version: ",
            Self::Envoy => "  version: ",
            Self::Coredns => "CoreDNS-",
            _ => "",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Program {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|p| p.name()).collect();
            format!("no program is named {name:?}; known: {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_the_same_way_everywhere() {
        for program in Program::ALL {
            assert_eq!(program.name().parse(), Ok(program));
            assert_eq!(serde_json::to_value(program).unwrap(), program.name());
        }
        assert!("kube".parse::<Program>().unwrap_err().contains("kube-apiserver, "));
    }
}
