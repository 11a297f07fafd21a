//! The command lines of a cluster's processes.
//!
//! Only what a mesh needs of Kubernetes runs, with kubeadm's defaults where they matter to it: RBAC and
//! Node authorisation, default admission plus NodeRestriction, service-account tokens. All flags
//! exist in Kubernetes 1.32 to 1.36.

use std::path::{Path, PathBuf};

use super::Programs;
use super::layout::{API_PORT, ClusterLayout, NodeLayout};
use super::pki::{Identity, Pki};
use crate::tool::Tool;

/// The controllers that run: what turns Deployments (and their kin) into pods, pods into endpoints,
/// and service accounts into tokens. No node lifecycle (the supervisor watches the kubelets itself),
/// no address management (the layout did it).
const CONTROLLERS: [&str; 15] = [
    "clusterrole-aggregation-controller",
    "daemonset-controller",
    "deployment-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
];

/// A process to supervise.
#[derive(Debug)]
pub struct Process {
    /// What it is: `cluster1 etcd`.
    pub what: String,
    /// How to start it.
    pub tool: Tool,
    /// Where its output goes.
    pub log: PathBuf,
}

/// The files of one cluster.
#[derive(Debug, Clone)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// Those of a cluster of the environment in `env`.
    pub fn of(env: &Path, cluster: &str) -> Self {
        Self { folder: env.join("netns").join(cluster) }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keys, certificates, kubeconfigs.
    pub fn pki(&self) -> Pki {
        Pki::at(self.folder.join("pki"))
    }

    /// What the cluster's processes print.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// A node's own folder.
    pub fn node(&self, node: &NodeLayout) -> PathBuf {
        self.folder.join(&node.name)
    }
}

/// etcd, on the control plane's loopback address.
pub fn etcd(cluster: &ClusterLayout, files: &Files, programs: &Programs) -> Process {
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    let tool = Tool::new(&programs.etcd)
        .arg("--name=default")
        .arg(format!("--data-dir={}", files.folder.join("etcd").display()))
        .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
        .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
        .arg(format!("--initial-cluster=default={peer}"))
        // The data is worth nothing after a crash of the machine.
        .args(["--unsafe-no-fsync", "--log-level=warn"]);
    process(cluster, &cluster.control_plane, files, "etcd", tool)
}

/// kube-apiserver, on the control plane's address.
pub fn api_server(cluster: &ClusterLayout, files: &Files, programs: &Programs) -> Process {
    let pki = files.pki();
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.file(name).display());
    let address = cluster.control_plane.address;
    let tool = Tool::new(&programs.kube_apiserver)
        .arg("--etcd-servers=http://127.0.0.1:2379")
        .args([format!("--bind-address={address}"), format!("--advertise-address={address}")])
        .arg(format!("--secure-port={API_PORT}"))
        .arg(format!("--service-cluster-ip-range={}", cluster.services))
        .args([file("tls-cert-file", "apiserver.crt"), file("tls-private-key-file", "apiserver.key")])
        .arg(file("client-ca-file", "ca.crt"))
        // No certificate has that name; without it the controllers log an error once a minute.
        .args([
            file("requestheader-client-ca-file", "ca.crt"),
            "--requestheader-allowed-names=front-proxy-client".into(),
        ])
        .args(["--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"])
        .arg("--requestheader-extra-headers-prefix=X-Remote-Extra-")
        .args(["--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"])
        // Nothing here would ever take the not-ready taint away again.
        .arg("--disable-admission-plugins=TaintNodesByCondition")
        .arg("--allow-privileged=true")
        .arg("--service-account-issuer=https://kubernetes.default.svc.cluster.local")
        .args([file("service-account-key-file", "sa.pub"), file("service-account-signing-key-file", "sa.key")])
        .args([
            file("kubelet-client-certificate", "apiserver-kubelet-client.crt"),
            file("kubelet-client-key", "apiserver-kubelet-client.key"),
            file("kubelet-certificate-authority", "ca.crt"),
        ])
        .arg("--kubelet-preferred-address-types=InternalIP")
        .arg("--profiling=false");
    process(cluster, &cluster.control_plane, files, "kube-apiserver", tool)
}

/// kube-controller-manager, beside the API server.
pub fn controller_manager(cluster: &ClusterLayout, files: &Files, programs: &Programs) -> Process {
    let pki = files.pki();
    let kubeconfig = pki.kubeconfig(Identity::ControllerManager);
    let tool = Tool::new(&programs.kube_controller_manager)
        .args(
            ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
                .map(|flag| format!("--{flag}={}", kubeconfig.display())),
        )
        .args(["--leader-elect=false", "--use-service-account-credentials", "--bind-address=127.0.0.1"])
        .arg(format!("--service-account-private-key-file={}", pki.file("sa.key").display()))
        .arg(format!("--root-ca-file={}", pki.file("ca.crt").display()))
        .arg(format!("--controllers={}", CONTROLLERS.join(",")))
        // The defaults (20/30) hold back the burst of a mesh being installed.
        .args(["--kube-api-qps=200", "--kube-api-burst=400", "--profiling=false"]);
    process(cluster, &cluster.control_plane, files, "kube-controller-manager", tool)
}

/// kube-proxy, on a node.
pub fn kube_proxy(cluster: &ClusterLayout, node: &NodeLayout, files: &Files, programs: &Programs) -> Process {
    let tool = Tool::new(&programs.kube_proxy)
        .arg(format!("--kubeconfig={}", files.pki().kubeconfig(Identity::Proxy).display()))
        .arg(format!("--hostname-override={}", node.name))
        .arg(format!("--cluster-cidr={}", cluster.pods))
        .arg("--proxy-mode=iptables")
        // A change is in force at once, not up to a second later.
        .arg("--iptables-min-sync-period=20ms")
        // The connection table's limits belong to the host: leave them.
        .args(["--conntrack-max-per-core=0", "--conntrack-min=0"])
        .args(["--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"])
        .args(["--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"]);
    process(cluster, node, files, &format!("kube-proxy of {}", node.name), tool)
}

/// CoreDNS, beside the API server.
pub fn coredns(cluster: &ClusterLayout, files: &Files, programs: &Programs) -> Process {
    let tool = Tool::new(&programs.coredns).arg("-conf").arg(files.folder.join("Corefile"));
    process(cluster, &cluster.control_plane, files, "coredns", tool)
}

/// What CoreDNS answers: the cluster's own names as on kind (without its cache, so that a change shows
/// at once), and "no such name" to everything else, since nothing leaves the machine. Two server
/// blocks, because `template` would answer before `kubernetes` in one.
pub fn corefile(cluster: &ClusterLayout, files: &Files) -> String {
    format!(
        "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
}}
.:53 {{
    bind {address}
    errors
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
",
        address = cluster.control_plane.address,
        kubeconfig = files.pki().kubeconfig(Identity::Dns).display(),
    )
}

fn process(cluster: &ClusterLayout, node: &NodeLayout, files: &Files, what: &str, tool: Tool) -> Process {
    Process {
        what: format!("{} {what}", cluster.name),
        tool: tool.in_netns(&node.namespace),
        log: files.logs().join(format!("{}.log", what.replace(" of ", "-"))),
    }
}
