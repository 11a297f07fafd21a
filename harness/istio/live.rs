//! The real thing, on real clusters that somebody made: pieces, options and workloads, end to end.
//!
//! `MESHPROOF_DEV_KUBECONFIGS` names a kubeconfig for each cluster, the primary's first, separated by `:`; the clusters must be
//! routed to each other and have no mesh. `MESHPROOF_DEV_ISTIO` is `ISTIOCTL,HUB,TAG` of a stock-Envoy build,
//! `MESHPROOF_DEV_IMAGES` is `HELLOWORLD_V1,HELLOWORLD_V2,CURL`. Without them there is nothing to test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node as KubeNode, Secret};
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::*;
use crate::apply;
use crate::provider::access::Access;
use crate::provider::{ExecOutput, Node};
use crate::scenario::{Helloworld, Located, MeshOptions, Mtls, Outbound, Sleep, Workload};
use crate::tool::Tool;
use crate::topology::{ClusterSpec, Cni, MeshSpec, NodeRole, Role, Topology};
use crate::workload::{self, RunningWorkload, WorkloadImages};
use kube::api::{Api, ListParams};

const OWNER: &str = "live";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// The cluster behind a kubeconfig, as a provider would give it.
async fn cluster(name: &str, kubeconfig: &Path) -> Cluster {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let api: Api<KubeNode> = Api::all(client.clone());
    let nodes: Vec<Node> = api.list(&ListParams::default()).await.unwrap().items.into_iter().map(node).collect();
    let third = nodes[0].pods.to_string();
    let second: u8 = third.split('.').nth(1).unwrap().parse().unwrap();
    Cluster {
        name: name.into(),
        client,
        kubeconfig: kubeconfig.into(),
        peer_api_server: format!("https://{}:6443", nodes[0].address),
        pods: format!("10.{second}.0.0/16").parse().unwrap(),
        services: format!("10.1{second}.0.0/16").parse().unwrap(),
        nodes,
        access: Access::Existing,
    }
}

fn node(node: KubeNode) -> Node {
    let addresses = node.status.unwrap().addresses.unwrap();
    let internal = addresses.iter().find(|a| a.type_ == "InternalIP").unwrap();
    let pods: IpNet = node.spec.unwrap().pod_cidr.unwrap().parse().unwrap();
    Node { name: node.metadata.name.unwrap(), address: internal.address.parse().unwrap(), pods }
}

fn topology(clusters: &[Cluster]) -> Topology {
    let spec = |c: &Cluster| ClusterSpec {
        name: c.name.clone(),
        network: "network1".into(),
        role: if c.name == clusters[0].name {
            Role::Primary
        } else {
            Role::Remote { served_by: clusters[0].name.clone() }
        },
        mesh: MeshSpec::default(),
        gateway: false,
        pods: c.pods,
        services: c.services,
        nodes: vec![NodeRole::ControlPlane],
        cni: Cni::Static,
        kind_config: String::new(),
    };
    Topology { name: "live".into(), purpose: "test".into(), clusters: clusters.iter().map(spec).collect() }
}

fn at(text: &str) -> Located<String> {
    Located::nowhere(text.into())
}

fn sleep() -> Located<Workload> {
    Located::nowhere(Workload::Sleep(Sleep {
        cluster: at("cluster1"),
        name: at("sleep"),
        namespace: None,
        sidecar: true,
    }))
}

fn helloworld(version: &str, cluster: &str, stubs: bool) -> Located<Workload> {
    Located::nowhere(Workload::Helloworld(Helloworld {
        version: at(version),
        cluster: at(cluster),
        namespace: at("app1"),
        replicas: Located::nowhere(1),
        stubs,
    }))
}

struct Live {
    clusters: Vec<Cluster>,
    images: WorkloadImages,
}

impl Live {
    async fn reconcile(&self, workloads: &[Located<Workload>], options: &MeshOptions) -> Vec<RunningWorkload> {
        let started = Instant::now();
        let same = |path: &Path| path.to_path_buf();
        let running = workload::reconcile(&self.clusters, workloads, options, &self.images, OWNER, same).await;
        let running = running.unwrap_or_else(|e| panic!("{e}"));
        eprintln!("workloads: {:.2?}", started.elapsed());
        running
    }

    /// Sends calls from sleep; answers the replies' versions, counted, and curl's own complaints.
    async fn call(&self, running: &[RunningWorkload], calls: u32, url: &str) -> (BTreeMap<String, u32>, String) {
        let sleep = running.iter().find(|w| w.name == "sleep").unwrap();
        let script = format!("for i in $(seq {calls}); do curl -sS -m 5 {url}; done");
        let output: ExecOutput =
            self.clusters[0].exec(&sleep.pods[0].reference(), "sleep", &["sh", "-c", &script], b"").await.unwrap();
        let mut versions = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let version = line.strip_prefix("Hello version: ").and_then(|l| l.split(',').next()).unwrap_or(line);
            *versions.entry(version.to_owned()).or_default() += 1;
        }
        (versions, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Calls until `holds`, for at most a minute: what the gate will do properly.
    async fn until(
        &self,
        running: &[RunningWorkload],
        url: &str,
        holds: impl Fn(&BTreeMap<String, u32>, &str) -> bool,
    ) -> (BTreeMap<String, u32>, String) {
        let started = Instant::now();
        loop {
            let (versions, errors) = self.call(running, 30, url).await;
            if holds(&versions, &errors) {
                eprintln!("{versions:?} after {:.2?}", started.elapsed());
                return (versions, errors);
            }
            assert!(started.elapsed().as_secs() < 60, "{versions:?} {errors}");
        }
    }

    /// The peer identities that v2's proxy logged last.
    async fn peers(&self, running: &[RunningWorkload]) -> Vec<serde_json::Value> {
        crate::wait::pass(std::time::Duration::from_millis(500)).await;
        let v2 = running.iter().find(|w| w.name == "helloworld-v2").unwrap();
        let log = self.clusters[1].logs(&v2.pods[0].reference(), "istio-proxy", None).await.unwrap();
        let lines = log.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let calls: Vec<_> = lines.filter(|l| l["path"] == "/hello").map(|l| l[access_log::PEER].clone()).collect();
        calls[calls.len().saturating_sub(10)..].to_vec()
    }
}

const HELLO: &str = "http://helloworld.app1:5000/hello";

fn both(versions: &BTreeMap<String, u32>, errors: &str) -> bool {
    errors.is_empty() && versions.keys().eq(["v1", "v2"])
}

#[tokio::test]
#[ignore = "needs real clusters that have no mesh yet"]
async fn the_mesh_on_real_clusters() {
    let (Some(kubeconfigs), Some(istio), Some(images)) =
        (variable("MESHPROOF_DEV_KUBECONFIGS"), variable("MESHPROOF_DEV_ISTIO"), variable("MESHPROOF_DEV_IMAGES"))
    else {
        eprintln!("skipped: MESHPROOF_DEV_KUBECONFIGS, MESHPROOF_DEV_ISTIO and MESHPROOF_DEV_IMAGES name no clusters");
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut clusters = Vec::new();
    for (index, path) in kubeconfigs.split(':').enumerate() {
        clusters.push(cluster(&format!("cluster{}", index + 1), Path::new(path)).await);
    }
    let istio: Vec<&str> = istio.split(',').collect();
    let images: Vec<&str> = images.split(',').collect();
    let inputs = MeshInputs {
        istioctl: PathBuf::from(istio[0]),
        hub: istio[1].into(),
        tag: istio[2].into(),
        stock_envoy: true,
        owner: OWNER.into(),
    };
    let helloworlds = [("v1".to_owned(), images[0].to_owned()), ("v2".to_owned(), images[1].to_owned())];
    let images = WorkloadImages { helloworld: helloworlds.into(), curl: images[2].into() };
    let live = Live { clusters, images };
    let (topology, strict) = (topology(&live.clusters), MeshOptions::default());

    let started = Instant::now();
    let prepared = prepare(&topology, &strict, &inputs).await.unwrap();
    eprintln!("prepare: {:.2?}", started.elapsed());
    let started = Instant::now();
    let installed = install(&prepared, &live.clusters).await.unwrap_or_else(|e| panic!("{e}"));
    eprintln!("install: {:.2?}", started.elapsed());
    for (phase, took) in &installed.phases {
        eprintln!("  {phase}: {took:.2?}");
    }
    let mesh = installed.mesh;
    assert_eq!(read_back_outbound(&live.clusters[0]).await.unwrap(), "*");
    same_secret_as_istioctl(&live.clusters, istio[0]).await;

    let workloads = [sleep(), helloworld("v1", "cluster1", true), helloworld("v2", "cluster2", true)];
    let first = live.reconcile(&workloads, &strict).await;
    let again = Instant::now();
    let running = live.reconcile(&workloads, &strict).await;
    let again = again.elapsed();
    assert_eq!(first, running, "unchanged workloads keep their pods");
    live.until(&running, HELLO, both).await;
    assert!(live.peers(&running).await.contains(&"spiffe://cluster.local/ns/app1/sa/sleep".into()));

    eprintln!("-- mutual TLS disabled");
    let disabled = MeshOptions { mtls: Mtls::Disabled, ..strict.clone() };
    let changed = reconcile(&mesh, &live.clusters, &strict, &disabled).await.unwrap();
    assert_eq!(changed.len(), 1);
    let started = Instant::now();
    loop {
        live.until(&running, HELLO, both).await;
        if live.peers(&running).await.iter().all(serde_json::Value::is_null) {
            break;
        }
        assert!(started.elapsed().as_secs() < 30, "still mutual TLS: {:?}", live.peers(&running).await);
    }
    eprintln!("-- outbound ranges of the clusters, and mutual TLS again");
    let narrow = MeshOptions { outbound: Outbound::Clusters, ..strict.clone() };
    reconcile(&mesh, &live.clusters, &disabled, &narrow).await.unwrap();
    let expected = "10.10.0.0/16,10.110.0.0/16,10.20.0.0/16,10.120.0.0/16";
    assert_eq!(read_back_outbound(&live.clusters[0]).await.unwrap(), expected);
    let before = running;
    let running = live.reconcile(&workloads, &narrow).await;
    assert!(running.iter().zip(&before).all(|(a, b)| a.pods[0].name != b.pods[0].name), "new pods, new sidecars");
    live.until(&running, HELLO, both).await;

    eprintln!("-- no stub: the name does not resolve; with DNS capture it does");
    reconcile(&mesh, &live.clusters, &narrow, &strict).await.unwrap();
    let workloads = [sleep(), helloworld("v2", "cluster2", false)];
    let running = live.reconcile(&workloads, &strict).await;
    let (_, errors) = live.call(&running, 1, HELLO).await;
    assert!(errors.contains("Could not resolve host"), "{errors}");
    let capture = MeshOptions { dns_capture: true, ..strict.clone() };
    reconcile(&mesh, &live.clusters, &strict, &capture).await.unwrap();
    let running = live.reconcile(&workloads, &capture).await;
    live.until(&running, HELLO, |v, e| e.is_empty() && v.keys().eq(["v2"])).await;

    eprintln!("-- remote secret removed and restored");
    remote_secret::remove(&live.clusters[0], "cluster2").await.unwrap();
    live.until(&running, HELLO, |v, _| !v.contains_key("v2")).await;
    assert!(istiod::clusters(&live.clusters[0]).await.unwrap().iter().all(|c| c.id != "cluster2"));
    remote_secret::restore(&live.clusters[0], &live.clusters[1], OWNER).await.unwrap();
    live.until(&running, HELLO, |v, e| e.is_empty() && v.keys().eq(["v2"])).await;

    eprintln!("-- scaled to zero and back");
    let started = Instant::now();
    assert!(workload::scale(&live.clusters[1], "app1", "v2", 0).await.unwrap().is_empty());
    eprintln!("scaled to zero: {:.2?}", started.elapsed());
    assert_eq!(workload::scale(&live.clusters[1], "app1", "v2", 2).await.unwrap().len(), 2);
    assert_eq!(workload::pods(&live.clusters[1], "app1", "version=v2").await.unwrap().len(), 2);

    eprintln!("-- an image that cannot be is told at once");
    let images = WorkloadImages { curl: "Not::AnImage".into(), ..live.images.clone() };
    let same = |path: &Path| path.to_path_buf();
    let error = workload::reconcile(&live.clusters, &[sleep()], &strict, &images, OWNER, same).await.unwrap_err();
    assert!(error.to_string().contains("container sleep: InvalidImageName"), "{error}");

    eprintln!("-- nothing wanted, nothing left");
    assert!(live.reconcile(&[], &strict).await.is_empty());
    for cluster in &live.clusters {
        assert!(workload::pods(cluster, "app1", workload_label()).await.unwrap().is_empty());
    }
    assert!(again.as_millis() < 500, "unchanged workloads took {again:.2?}");
}

fn workload_label() -> &'static str {
    "meshproof.dev/workload"
}

/// Ours says what `istioctl create-remote-secret` says.
async fn same_secret_as_istioctl(clusters: &[Cluster], istioctl: &str) {
    let output = Tool::new(istioctl)
        .args(["create-remote-secret", "--name", "cluster2", "--server", &clusters[1].peer_api_server, "--kubeconfig"])
        .arg(&clusters[1].kubeconfig)
        .run()
        .await
        .unwrap();
    let theirs = &apply::parse("istioctl", &output.text()).unwrap()[0].object;
    let api: Api<Secret> = Api::namespaced(clusters[0].client.clone(), NAMESPACE);
    let ours = api.get(&remote_secret::name("cluster2")).await.unwrap();
    let kubeconfig = |text: &str| -> serde_json::Value { serde_saphyr::from_str(text).unwrap() };
    let text = String::from_utf8(ours.data.unwrap()["cluster2"].0.clone()).unwrap();
    let (ours_config, mut theirs_config) =
        (kubeconfig(&text), kubeconfig(theirs.data["stringData"]["cluster2"].as_str().unwrap()));
    // istioctl writes an empty map where Kubernetes has dropped it since.
    theirs_config["preferences"] = serde_json::json!({});
    assert_eq!(ours_config, theirs_config);
    assert_eq!(ours.metadata.annotations, theirs.metadata.annotations);
    let labels = ours.metadata.labels.unwrap();
    for (key, value) in theirs.metadata.labels.as_ref().unwrap() {
        assert_eq!(labels.get(key), Some(value));
    }
}
