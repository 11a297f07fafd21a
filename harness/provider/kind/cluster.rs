//! One cluster: `kind create cluster`, and what is read back from it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::config::{self, Machine};
use super::{Made, NodeImage, cni, network, node};
use crate::journal::{EnvDir, Owned, write_private};
use crate::provider::{Cluster, Node, ProviderError, kube_access};
use crate::tool::Tool;
use crate::topology::{ClusterSpec, Cni, Topology};
use crate::wait::{self, Poll};

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// Names of containers are names of hosts, which have at most this many characters.
const LONGEST_NAME: usize = 63;

/// Where the kubeconfig of a cluster is.
pub(super) fn kubeconfig(env: &EnvDir, cluster: &str) -> PathBuf {
    env.path().join(format!("{cluster}.kubeconfig"))
}

/// Makes a cluster. It returns when its API server answers and every node has its part of the pod CIDR; that the
/// nodes are ready, nobody waits for.
pub(super) async fn create(
    spec: &ClusterSpec,
    env: &EnvDir,
    image: &NodeImage,
    machine: Machine,
    mtu: Option<u32>,
) -> Result<Made, ProviderError> {
    let name = super::kind_name(env.id(), &spec.name);
    let first = format!("{name}-control-plane");
    if first.len() + 2 > LONGEST_NAME {
        return Err(ProviderError::Refused {
            what: format!("the name of cluster {} is too long: its nodes would be named {first}", spec.name),
            hint: format!("{LONGEST_NAME} characters is the most; choose a shorter name in topology.yaml"),
        });
    }
    let config = config::fitted(&spec.kind_config, machine)?;
    let kubeconfig = kubeconfig(env, &spec.name);
    env.own(&Owned::KindCluster { name: name.clone() }).map_err(super::journal)?;
    let kind = Tool::new(&image.kind)
        .args(["create", "cluster", "--name", &name, "--image", &image.name, "--config", "-", "--retain"])
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .env("KIND_EXPERIMENTAL_DOCKER_NETWORK", network::name(env.id()))
        .env("KIND_EXPERIMENTAL_PROVIDER", "docker")
        .stdin(config);
    // The first node's addresses are known beforehand, so that it is ready as soon as its kubelet is.
    let early = async {
        if spec.cni == Cni::Static {
            started(&first).await?;
            cni::set(&first, cni::of_first_node(spec.pods), mtu).await?;
        }
        Ok::<_, ProviderError>(())
    };
    let kind = async { Ok(kind.run().await?) };
    futures::future::try_join(kind, early).await?;
    name_as_in_topology(&kubeconfig, &name, &spec.name)?;
    let cluster = read(spec, &kubeconfig).await?;
    let cni = cni_in_force(&cluster, spec).await?;
    if cni == Cni::Static {
        let known = (spec.cni == Cni::Static).then(|| cni::of_first_node(spec.pods));
        for at in &cluster.nodes {
            if at.name != first || known != Some(at.pods) {
                cni::set(&at.name, at.pods, mtu).await?;
            }
        }
    }
    Ok(Made { cluster, cni })
}

/// Gives context, cluster and user of a kubeconfig, which kind names `kind-` and its own name, the topology's name for
/// the cluster: what `kubectl --context` takes is the same on every provider.
fn name_as_in_topology(kubeconfig: &Path, kind_name: &str, cluster: &str) -> Result<(), ProviderError> {
    let text = std::fs::read_to_string(kubeconfig)
        .map_err(|source| ProviderError::Io { what: format!("cannot read {}", kubeconfig.display()), source })?;
    let renamed = text.replace(&format!("kind-{kind_name}"), cluster);
    write_private(kubeconfig, renamed.as_bytes()).map_err(super::journal)
}

async fn started(container: &str) -> Result<(), ProviderError> {
    let look = || async {
        match node::runs(container).await {
            Err(error) => Poll::Failed(error),
            Ok(true) => Poll::Ready(()),
            Ok(false) => Poll::NotYet("it is not running".to_owned()),
        }
    };
    let waited = wait::until(format!("node {container}"), super::LIMIT, Duration::from_millis(200), look).await;
    waited.map_err(|e| super::overdue(e, "docker ps --all"))
}

/// A cluster that is there, by its kubeconfig.
pub(super) async fn read(spec: &ClusterSpec, kubeconfig: &Path) -> Result<Cluster, ProviderError> {
    let client = kube_access::client(kubeconfig, &spec.name).await?;
    let nodes = nodes(&client, spec).await?;
    Ok(with(spec, kubeconfig, client, nodes))
}

/// A cluster whose nodes are known: nothing is asked of it.
pub(super) async fn known(spec: &ClusterSpec, kubeconfig: &Path, nodes: Vec<Node>) -> Result<Cluster, ProviderError> {
    Ok(with(spec, kubeconfig, kube_access::client(kubeconfig, &spec.name).await?, nodes))
}

fn with(spec: &ClusterSpec, kubeconfig: &Path, client: Client, nodes: Vec<Node>) -> Cluster {
    let peer_api_server = match nodes.first().map(|n| n.address) {
        Some(IpAddr::V6(address)) => format!("https://[{address}]:6443"),
        Some(IpAddr::V4(address)) => format!("https://{address}:6443"),
        None => String::new(),
    };
    Cluster {
        name: spec.name.clone(),
        client,
        kubeconfig: kubeconfig.to_owned(),
        peer_api_server,
        pods: spec.pods,
        services: spec.services,
        nodes,
        access: super::access(),
    }
}

/// All nodes, once all are registered and have their addresses.
async fn nodes(client: &Client, spec: &ClusterSpec) -> Result<Vec<Node>, ProviderError> {
    let api: Api<v1::Node> = Api::all(client.clone());
    let look = || async {
        let listed = match api.list(&ListParams::default()).await {
            Ok(listed) => listed.items,
            // The API server comes back seconds after a restart of its node.
            Err(error) => return Poll::NotYet(format!("API server: {error}")),
        };
        let mut nodes: Vec<(bool, Node)> = listed.iter().filter_map(complete).collect();
        if nodes.len() < spec.nodes.len() {
            let missing = format!("{} of {} nodes have their pod CIDR", nodes.len(), spec.nodes.len());
            return Poll::<_, ProviderError>::NotYet(missing);
        }
        nodes.sort_by(|(a_control, a), (b_control, b)| (!a_control, &a.name).cmp(&(!b_control, &b.name)));
        Poll::Ready(nodes.into_iter().map(|(_, node)| node).collect())
    };
    let waited = wait::until(format!("the nodes of cluster {}", spec.name), super::LIMIT, super::LOOK, look).await;
    waited.map_err(|e| super::overdue(e, "docker ps --all"))
}

/// Whether it is a control plane, and what is known of it; `None` as long as something is missing.
fn complete(node: &v1::Node) -> Option<(bool, Node)> {
    let name = node.metadata.name.clone()?;
    let pods: IpNet = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let address = addresses.iter().find(|a| a.type_ == "InternalIP")?.address.parse().ok()?;
    let control_plane = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(CONTROL_PLANE));
    Some((control_plane, Node { name, address, pods }))
}

/// kindnet where it runs. Where it does not (no default CNI, or a node image without kindnet) the provider gives pods
/// their addresses.
async fn cni_in_force(cluster: &Cluster, spec: &ClusterSpec) -> Result<Cni, ProviderError> {
    if spec.cni == Cni::Static {
        return Ok(Cni::Static);
    }
    let kindnet = kindnet(cluster).get_opt(KINDNET).await.map_err(kube_access::failed(cluster, "get kindnet"))?;
    Ok(if kindnet.is_some() { Cni::Kindnet } else { Cni::Static })
}

const KINDNET: &str = "kindnet";

fn kindnet(cluster: &Cluster) -> Api<DaemonSet> {
    Api::namespaced(cluster.client.clone(), "kube-system")
}

/// Tells kindnet not to hide its pods behind their node's address on the way to pods of other clusters.
///
/// kindnet translates what leaves the ranges in its `POD_SUBNET`, a list
/// (kind, `images/kindnetd/cmd/kindnetd/{main,masq}.go`).
pub(super) async fn exempt_peers(topology: &Topology, made: &Made) -> Result<(), ProviderError> {
    if made.cni != Cni::Kindnet {
        return Ok(());
    }
    let cluster = &made.cluster;
    let peers = topology.routed_pairs().into_iter().filter(|(a, _)| a.name == cluster.name).map(|(_, b)| b.pods);
    let ranges: Vec<String> = std::iter::once(cluster.pods).chain(peers).map(|range| range.to_string()).collect();
    let env = json!([{ "name": "POD_SUBNET", "value": ranges.join(",") }]);
    let patch =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "kindnet-cni", "env": env }] } } } });
    let patched = kindnet(cluster).patch(KINDNET, &PatchParams::default(), &Patch::Strategic(patch)).await;
    patched.map(drop).map_err(kube_access::failed(cluster, "set POD_SUBNET of kindnet"))
}
