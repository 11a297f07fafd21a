//! The netns provider, for real: real clusters in network namespaces of this machine.
//!
//! Needs root and the programs of the supply. Without them the tests skip locally, with the reason, and fail
//! where `CI` is set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::PostParams;
use meshproof::journal::{EnvDir, Owned};
use meshproof::provider::Cluster;
use meshproof::provider::netns::kubelet::ImageMap;
use meshproof::provider::netns::{self, Programs, dns, namespace, network};
use meshproof::supply::containers::StoreSettings;
use meshproof::supply::{self, Overrides, Purpose, Source, Versions};
use meshproof::topology::{ClusterSpec, Cni, MeshSpec, NodeRole, Role, Topology};
use meshproof::wait::{self, Poll};
use serde_json::json;

/// The programs; `None`, with the reason printed: this test cannot run here.
async fn programs() -> Option<Programs> {
    if std::env::var_os("CI").is_none() && std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_none() {
        eprintln!("skipped: it needs root and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
        return None;
    }
    assert!(nix::unistd::geteuid().is_root(), "cannot run: network namespaces need root");
    let versions = Versions::built_in().unwrap();
    let supplied = supply::ensure(Purpose::Netns, Source::Auto, &versions, &Overrides::new()).await.unwrap();
    let programs = Programs::of(&supplied, env!("CARGO_BIN_EXE_meshproof").as_ref()).unwrap();
    programs.check().unwrap();
    Some(programs)
}

fn cluster(number: u8) -> ClusterSpec {
    ClusterSpec {
        name: format!("cluster{number}"),
        network: "network1".into(),
        role: Role::Primary,
        mesh: MeshSpec::default(),
        gateway: false,
        pods: format!("10.{number}0.0.0/16").parse().unwrap(),
        services: format!("10.{number}1.0.0/16").parse().unwrap(),
        nodes: vec![NodeRole::ControlPlane.into()],
        cni: Cni::Static,
        kind_config: String::new(),
    }
}

fn topology() -> Topology {
    Topology {
        name: "vpn".into(),
        purpose: String::new(),
        clusters: vec![cluster(1), cluster(2)],
        istio: Default::default(),
    }
}

/// Removes what a failed test leaves, as the next run would.
struct Leftovers(PathBuf, Vec<String>);

impl Drop for Leftovers {
    fn drop(&mut self) {
        for id in &self.1 {
            let (root, id) = (self.0.clone(), id.clone());
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                if let Ok(Some(env)) = EnvDir::open(&root, &id) {
                    runtime.block_on(remove(env));
                }
            });
            let _ = thread.join();
        }
    }
}

async fn remove(env: EnvDir) {
    for owned in env.owned().unwrap() {
        assert!(netns::remove(&owned).await.unwrap(), "{owned:?}");
    }
    env.forget().unwrap();
}

/// What an environment could leave on the host: names, mounts and processes that carry its folder or its id,
/// and links (other people's container engines come and go meanwhile).
fn traces(env_id: &str, folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = namespace::names(&format!("mp-{env_id}-")).into_iter().collect();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (name, folder) = (format!("mp-{env_id}-"), folder.to_string_lossy().into_owned());
    found.extend(mounts.lines().filter(|l| l.contains(&name) || l.contains(&folder)).map(str::to_owned));
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        // Empty for zombies: they only wait for their parent to look.
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&name) || line.contains(&folder) {
            found.push(line);
        }
    }
    for link in std::fs::read_dir("/sys/class/net").unwrap().flatten() {
        let link = link.file_name().to_string_lossy().into_owned();
        if link == "br0" || link.starts_with("c0n") || link.starts_with("c1n") || link.starts_with("pod") {
            found.push(format!("link {link}"));
        }
    }
    found
}

/// A server inside a namespace that sends each caller the caller's own address.
fn listen(at: &str, address: Ipv4Addr) {
    let listener = namespace::enter(at, move || TcpListener::bind((address, PORT))).unwrap().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut caller, from)) = listener.accept() {
            let _ = caller.write_all(from.ip().to_string().as_bytes());
        }
    });
}

/// A namespace attached to the cluster's first node as a pod's would be, with a server.
struct PodLike {
    namespace: String,
    address: Ipv4Addr,
}

const PORT: u16 = 7000;

impl PodLike {
    async fn new(env: &EnvDir, cluster: &Cluster, number: u8) -> Self {
        Self::on(env, cluster, 0, number).await
    }

    async fn on(env: &EnvDir, cluster: &Cluster, node: usize, number: u8) -> Self {
        let node = &cluster.nodes[node];
        let IpAddr::V4(range) = node.pods.network() else { panic!("IPv6") };
        let at = |n: u8| Ipv4Addr::from(u32::from(range) + u32::from(n));
        let pod = Self { namespace: format!("mp-{}-{}-{number}", env.id(), node.name), address: at(number) };
        env.own(&Owned::NetworkNamespace { name: pod.namespace.clone() }).unwrap();
        namespace::create(&[&pod.namespace]).await.unwrap();
        let on = format!("mp-{}-{}", env.id(), node.name);
        network::attach_pod(&on, &pod.namespace, &format!("pod{number}"), pod.address, at(1)).await.unwrap();
        listen(&pod.namespace, pod.address);
        pod
    }

    /// Who the server at `to` says that this pod is.
    fn call(&self, to: impl Into<IpAddr>) -> std::io::Result<String> {
        let to = SocketAddr::new(to.into(), PORT);
        let call = move || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        namespace::enter(&self.namespace, call).unwrap()
    }

    /// Waits until a call is answered: a service's rules take a moment.
    async fn call_until_answered(&self, to: Ipv4Addr) -> String {
        let answered =
            wait::until(format!("an answer from {to}"), Duration::from_secs(30), Duration::from_millis(50), || async {
                self.call(to).map_or_else(|e| Poll::<_, std::io::Error>::NotYet(e.to_string()), Poll::Ready)
            });
        answered.await.unwrap()
    }

    fn resolve(&self, cluster: &Cluster, name: &str) -> Option<Ipv4Addr> {
        let IpAddr::V4(services) = cluster.services.network() else { panic!("IPv6") };
        dns::ask(&self.namespace, Ipv4Addr::from(u32::from(services) + 10), name).unwrap()
    }
}

/// A service `echo` in front of a pod-like namespace.
async fn serve(cluster: &Cluster, pod: &PodLike) -> Ipv4Addr {
    let services: Api<Service> = Api::default_namespaced(cluster.client.clone());
    let ports = json!([{"name": "tcp-echo", "port": PORT, "protocol": "TCP"}]);
    let service = json!({
        "metadata": {"name": "echo"},
        "spec": {"ports": ports, "externalIPs": [cluster.nodes[0].address]},
    });
    let service = services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client.clone());
    let slice = json!({
        "metadata": {"name": "echo", "labels": {"kubernetes.io/service-name": "echo"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [pod.address], "conditions": {"ready": true}}],
        "ports": ports.as_array().unwrap().iter().map(|p| json!({"name": p["name"], "port": p["port"], "protocol": "TCP"})).collect::<Vec<_>>(),
    });
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    service.spec.unwrap().cluster_ip.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_are_joined_as_one_network_and_leave_nothing_behind() {
    let Some(programs) = programs().await else { return };
    let root = tempfile::tempdir().unwrap();
    let id = format!("t{}", std::process::id());
    let _leftovers = Leftovers(root.path().into(), vec![id.clone()]);
    let env = EnvDir::create(root.path(), &id).unwrap();
    let started = Instant::now();
    let clusters = netns::create(&topology(), &env, &programs).await.unwrap();
    eprintln!("two clusters after {:.1?}", started.elapsed());
    let [one, two] = &clusters[..] else { panic!("{} clusters", clusters.len()) };
    for cluster in &clusters {
        let nodes = Api::<Node>::all(cluster.client.clone()).list(&Default::default()).await.unwrap();
        assert_eq!(nodes.items.len(), 1);
    }

    let (caller, server) = (PodLike::new(&env, one, 2).await, PodLike::new(&env, one, 3).await);
    let far = PodLike::new(&env, two, 2).await;
    assert_eq!(caller.call(far.address).unwrap(), caller.address.to_string(), "cluster1 to cluster2");
    assert_eq!(far.call(caller.address).unwrap(), far.address.to_string(), "cluster2 to cluster1");
    assert_eq!(caller.call(server.address).unwrap(), caller.address.to_string(), "on one node");
    assert!(caller.call(Ipv4Addr::new(203, 0, 113, 7)).is_err(), "nothing leaves the environment");

    let service = serve(one, &server).await;
    let resolved = wait::until("the name", Duration::from_secs(30), Duration::from_millis(20), || async {
        match caller.resolve(one, "echo.default.svc.cluster.local") {
            Some(address) => Poll::<_, std::io::Error>::Ready(address),
            None => Poll::NotYet("no such name".into()),
        }
    });
    assert_eq!(resolved.await.unwrap(), service);
    assert_eq!(caller.resolve(one, "nobody.default.svc.cluster.local"), None);
    assert_eq!(
        far.resolve(two, "echo.default.svc.cluster.local"),
        None,
        "a service has a name in its own cluster only"
    );
    assert_eq!(caller.call_until_answered(service).await, caller.address.to_string(), "through the service address");
    let IpAddr::V4(node) = one.nodes[0].address else { panic!("IPv6") };
    far.call_until_answered(node).await;

    // Another command finds it again.
    let again = netns::attach(&env).await.unwrap();
    assert_eq!(again[0].kubeconfig, one.kubeconfig);
    netns::check(&env).unwrap();

    // A process that dies is named, with what it said.
    let dns_server = namespace::pids(&format!("mp-{id}-cluster2-control-plane")).unwrap().into_iter();
    let is_dns =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "coredns");
    let dns_server = dns_server.into_iter().find(is_dns).unwrap();
    kill(dns_server);
    let noticed =
        wait::until("the death to be noticed", Duration::from_secs(10), Duration::from_millis(10), || async {
            netns::check(&env).map_or_else(Poll::Ready, |()| Poll::<_, std::io::Error>::NotYet("all is well".into()))
        });
    let error = noticed.await.unwrap().to_string();
    assert!(error.contains("cluster2 coredns ended with signal: 9") && error.contains("CoreDNS-1."), "{error}");

    // The supervisor is killed: what it kept dies with it, and the journal removes the rest.
    let supervisor = env.owned().unwrap().into_iter().find_map(|owned| match owned {
        Owned::Process { pid, .. } => Some(pid),
        _ => None,
    });
    kill(supervisor.unwrap());
    drop(env);
    let env = EnvDir::open(root.path(), &id).unwrap().unwrap();
    let folder = env.path().to_owned();
    assert!(!traces(&id, &folder).is_empty(), "the check below looks in the right places");
    remove(env).await;
    assert_eq!(traces(&id, &folder), Vec::<String>::new());
}

fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_environments_of_one_topology_do_not_see_each_other() {
    let Some(programs) = programs().await else { return };
    let root = tempfile::tempdir().unwrap();
    let alone = Topology { clusters: vec![cluster(1)], ..topology() };
    let ids = [format!("a{}", std::process::id()), format!("b{}", std::process::id())];
    let _leftovers = Leftovers(root.path().into(), ids.to_vec());
    let envs = ids.each_ref().map(|id| EnvDir::create(root.path(), id).unwrap());
    let (a, b) = tokio::join!(netns::create(&alone, &envs[0], &programs), netns::create(&alone, &envs[1], &programs));
    let (a, b) = (a.unwrap().remove(0), b.unwrap().remove(0));
    let (in_a, in_b) = (PodLike::new(&envs[0], &a, 2).await, PodLike::new(&envs[1], &b, 3).await);
    assert!(in_a.call(in_b.address).is_err(), "the same range, but not the same network");
    assert_ne!(a.kubeconfig, b.kubeconfig);

    let [env_a, env_b] = envs;
    remove(env_a).await;
    netns::check(&env_b).unwrap();
    assert_eq!(Api::<Node>::all(b.client.clone()).list(&Default::default()).await.unwrap().items.len(), 1);
    assert_eq!(in_b.call(in_b.address).unwrap(), in_b.address.to_string());
    remove(env_b).await;
    for id in &ids {
        assert_eq!(traces(id, root.path()), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_cluster_route_pods_and_clusters_of_two_networks_meet_at_nodes_only() {
    let Some(programs) = programs().await else { return };
    let root = tempfile::tempdir().unwrap();
    let id = format!("n{}", std::process::id());
    let _leftovers = Leftovers(root.path().into(), vec![id.clone()]);
    let env = EnvDir::create(root.path(), &id).unwrap();
    let mut clusters = vec![cluster(1), cluster(2)];
    clusters[0].nodes.push(NodeRole::Worker.into());
    clusters[1].network = "network2".into();
    let clusters = netns::create(&Topology { clusters, ..topology() }, &env, &programs).await.unwrap();
    let [one, two] = &clusters[..] else { panic!("{} clusters", clusters.len()) };

    let (caller, server) = (PodLike::on(&env, one, 0, 2).await, PodLike::on(&env, one, 1, 2).await);
    assert_eq!(caller.call(server.address).unwrap(), caller.address.to_string(), "node to node");
    let service = serve(one, &server).await;
    assert_eq!(caller.call_until_answered(service).await, caller.address.to_string(), "service on another node");
    assert_eq!(server.call_until_answered(service).await, server_seen_by_itself(one, 1), "its own service");

    let far = PodLike::new(&env, two, 2).await;
    assert!(caller.call(far.address).is_err() && far.call(caller.address).is_err(), "no route between networks");
    let (here, there) = (one.nodes[0].address, two.nodes[0].address);
    let IpAddr::V4(at) = there else { panic!("IPv6") };
    listen(&format!("mp-{}-{}", env.id(), two.nodes[0].name), at);
    assert_eq!(caller.call(there).unwrap(), here.to_string(), "a node of another network sees the node");
    remove(env).await;
}

/// A pod that calls its own service must not see its own address as the source: kube-proxy puts the node's there.
fn server_seen_by_itself(cluster: &Cluster, node: usize) -> String {
    let IpAddr::V4(range) = cluster.nodes[node].pods.network() else { panic!("IPv6") };
    Ipv4Addr::from(u32::from(range) + 1).to_string()
}

#[tokio::test]
async fn a_missing_program_is_named_before_anything_is_made() {
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "m1").unwrap();
    let nowhere = PathBuf::from("/nonexistent/etcd");
    let exe = std::env::current_exe().unwrap();
    let programs = Programs {
        meshproof: exe.clone(),
        etcd: nowhere,
        kube_apiserver: exe.clone(),
        kube_controller_manager: exe.clone(),
        kube_proxy: exe.clone(),
        coredns: exe,
        images: ImageMap::default(),
        store: StoreSettings::default(),
    };
    let error = netns::create(&topology(), &env, &programs).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("etcd not found: /nonexistent/etcd") && error.contains("meshproof supply"), "{error}");
    assert_eq!(env.owned().unwrap(), []);
}
