//! The netns provider, for real: real clusters in network namespaces of this machine.
//!
//! Needs root and the programs of the supply. Without them the tests skip locally, with the reason, and fail
//! where `CI` is set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::path::PathBuf;
use std::time::Instant;

use meshproof::journal::EnvDir;
use meshproof::provider::netns::{self, Programs};
use meshproof::topology::{ClusterSpec, Cni, NodeRole, Topology};

fn programs() -> Programs {
    let bin = PathBuf::from(std::env::var_os("MESHPROOF_TEST_PROGRAMS").unwrap_or_default());
    let program = |name: &str| bin.join(name);
    Programs {
        meshproof: env!("CARGO_BIN_EXE_meshproof").into(),
        etcd: program("etcd"),
        kube_apiserver: program("kube-apiserver"),
        kube_controller_manager: program("kube-controller-manager"),
        kube_proxy: program("kube-proxy"),
        coredns: program("coredns"),
        pilot_discovery: program("pilot-discovery"),
        pilot_agent: program("pilot-agent"),
        envoy: program("pilot-agent"),
    }
}

fn cluster(number: u8) -> ClusterSpec {
    ClusterSpec {
        name: format!("cluster{number}"),
        network: "network1".into(),
        control_plane: "cluster1".into(),
        pods: format!("10.{number}0.0.0/16").parse().unwrap(),
        services: format!("10.{number}1.0.0/16").parse().unwrap(),
        nodes: vec![NodeRole::ControlPlane],
        cni: Cni::Static,
        kind_config: String::new(),
    }
}

fn topology() -> Topology {
    Topology {
        name: "vpn".into(),
        purpose: String::new(),
        trust_domain: "cluster.local".into(),
        clusters: vec![cluster(1), cluster(2)],
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "leaves an environment running, for work on the node agent by hand"]
async fn keeps_an_environment() {
    let root = std::env::temp_dir().join("meshproof-by-hand");
    let env = EnvDir::create(&root, &format!("h{}", std::process::id() % 10_000)).unwrap();
    let started = Instant::now();
    let clusters = netns::create(&topology(), &env, &programs()).await.unwrap();
    println!("ready after {:.1?} in {}", started.elapsed(), env.path().display());
    for cluster in clusters {
        println!("{}: kubectl --kubeconfig {} …", cluster.name, cluster.kubeconfig.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "ends what `keeps_an_environment` left"]
async fn removes_kept_environments() {
    let root = std::env::temp_dir().join("meshproof-by-hand");
    for entry in std::fs::read_dir(root.clone()).unwrap() {
        let Some(env) = EnvDir::open(&root, &entry.unwrap().file_name().to_string_lossy()).unwrap() else { continue };
        for owned in env.owned().unwrap() {
            netns::remove(&owned).await.unwrap();
        }
        env.forget().unwrap();
    }
}
