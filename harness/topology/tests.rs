use std::path::Path;

use rstest::rstest;

use super::*;
use crate::source::Problems;

fn kind_configs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kind-configs")
}

const TOPOLOGY: &str = "\
purpose: p
clusters:
  cluster1: {}
  cluster2: { served_by: cluster1 }
";
const HEADER: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";

fn ranges(pods: &str, services: &str) -> String {
    format!("{HEADER}networking: {{ podSubnet: {pods}, serviceSubnet: {services} }}\n")
}

/// A folder `t` with those files; two good clusters unless they say otherwise.
fn load(files: &[(&str, &str)]) -> Result<Topology, Problems> {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("t");
    std::fs::create_dir(&folder).unwrap();
    let good = [
        ("topology.yaml", TOPOLOGY.to_owned()),
        ("cluster1.yaml", ranges("10.10.0.0/16", "10.110.0.0/16")),
        ("cluster2.yaml", ranges("10.20.0.0/16", "10.120.0.0/16")),
    ];
    for (name, text) in good.iter().map(|(n, t)| (*n, t.as_str())).chain(files.iter().copied()) {
        std::fs::write(folder.join(name), text).unwrap();
    }
    Topology::load(root.path(), "t").map_err(|problems| relative(&problems, root.path()))
}

/// Problems with paths relative to `root`: a snapshot must not know where it was made.
fn relative(problems: &Problems, root: &Path) -> Problems {
    problems.clone().under(root)
}

#[rstest]
#[case::vpn("vpn")]
#[case::vpn_kindnet("vpn-kindnet")]
#[case::vpn3("vpn3")]
fn every_topology_of_the_repository_is_sound(#[case] name: &str) {
    let topology = Topology::load(&kind_configs(), name).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(topology.clusters[0].runs_istiod());
    assert!(names(&kind_configs()).contains(&name.to_owned()));
}

#[test]
fn the_vpn_topology_is_that_of_the_experiment() {
    let vpn = Topology::load(&kind_configs(), "vpn").unwrap();
    let clusters: Vec<_> = vpn
        .clusters
        .iter()
        .map(|c| {
            let role = c.nodes[0].role;
            format!("{} {} {} {:?} {role:?} of {}", c.name, c.pods, c.services, c.cni, c.served_by().unwrap())
        })
        .collect();
    assert_eq!(
        clusters,
        [
            "cluster1 10.10.0.0/16 10.110.0.0/16 Static ControlPlane of cluster1",
            "cluster2 10.20.0.0/16 10.120.0.0/16 Static ControlPlane of cluster1"
        ]
    );
    assert_eq!(vpn.routed_pairs().len(), 2);
}

#[test]
fn a_kind_config_of_nothing_but_its_header_is_a_cluster_of_one_node_with_kinds_ranges() {
    let one = "purpose: p\nclusters: { cluster1: {} }\n";
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("t")).unwrap();
    std::fs::write(root.path().join("t/topology.yaml"), one).unwrap();
    std::fs::write(root.path().join("t/cluster1.yaml"), HEADER).unwrap();
    let topology = Topology::load(root.path(), "t").unwrap_or_else(|problems| panic!("{problems}"));
    let cluster = &topology.clusters[0];
    assert_eq!(
        (cluster.pods.to_string(), cluster.services.to_string()),
        ("10.244.0.0/16".into(), "10.96.0.0/16".into())
    );
    assert_eq!((cluster.nodes.as_slice(), cluster.cni), ([NodeRole::ControlPlane.into()].as_slice(), Cni::Kindnet));
}

/// What kind v0.33.0 itself was seen to take and to refuse (where it refuses before it asks for a container engine).
#[rstest]
#[case::headings_without_content("networking:\nnodes:\n", true)]
#[case::yaml_1_1_booleans("networking: { disableDefaultCNI: yes }\n", true)]
#[case::numbers_as_labels("nodes: [{ role: control-plane, labels: { a: 1, b: true } }]\n", true)]
#[case::booleans_as_runtime_config("runtimeConfig: { api/all: true }\n", true)]
#[case::proxy_mode_nftables("networking: { kubeProxyMode: nftables }\n", true)]
#[case::every_heading_without_content(
    "name:\nnodes:\n- role:\n  image:\n  labels:\n  extraMounts:\n  extraPortMappings:\n  kubeadmConfigPatches:\n  kubeadmConfigPatchesJSON6902:\nnetworking: { ipFamily: , apiServerPort: , apiServerAddress: , podSubnet: , serviceSubnet: , disableDefaultCNI: , kubeProxyMode: , dnsSearch: }\nfeatureGates:\nruntimeConfig:\nkubeadmConfigPatches:\nkubeadmConfigPatchesJSON6902:\ncontainerdConfigPatches:\ncontainerdConfigPatchesJSON6902:\n",
    true
)]
#[case::empty_texts(
    "networking: { ipFamily: \"\", kubeProxyMode: \"\", podSubnet: \"\", apiServerAddress: \"\" }\n",
    true
)]
#[case::empty_items("kubeadmConfigPatches:\n-\nnodes: [{ role: control-plane, labels: { a: } }]\n", true)]
#[case::shared_by_an_anchor(
    "nodes:\n- role: control-plane\n  extraMounts: &mounts\n- &worker\n  role: worker\n  extraMounts: *mounts\n  labels: { a: b }\n- <<: *worker\n  labels: { a: c }\n",
    true
)]
#[case::port_as_a_text("networking: { apiServerPort: \"6443\" }\n", false)]
#[case::container_port_as_a_text(
    "nodes: [{ role: control-plane, extraPortMappings: [{ containerPort: \"80\" }] }]\n",
    false
)]
#[case::port_twice_on_a_node(
    "nodes: [{ role: control-plane, extraPortMappings: [{ containerPort: 80, hostPort: 8080 }, { containerPort: 81, hostPort: 8080, listenAddress: 127.0.0.1 }] }]\n",
    false
)]
#[case::port_once_for_each_protocol(
    "nodes: [{ role: control-plane, extraPortMappings: [{ containerPort: 53, hostPort: 5353, protocol: udp }, { containerPort: 53, hostPort: 5353 }] }]\n",
    true
)]
#[case::unknown_propagation(
    "nodes: [{ role: control-plane, extraMounts: [{ hostPath: /a, containerPath: /b, propagation: Shared }] }]\n",
    false
)]
#[case::quoted_boolean("featureGates: { A: \"true\" }\n", false)]
#[case::unknown_field("network: {}\n", false)]
#[case::name_twice("name: cluster1\nname: cluster1\n", false)]
#[case::unknown_protocol(
    "nodes: [{ role: control-plane, extraPortMappings: [{ containerPort: 80, protocol: HTTP }] }]\n",
    false
)]
fn kind_configs_are_taken_and_refused_as_kind_does(#[case] text: &str, #[case] taken: bool) {
    let source = crate::source::Source::new("cluster1.yaml", format!("{HEADER}{text}"));
    let read = kind_config::read(source, "cluster1");
    assert_eq!(read.is_ok(), taken, "{read:?}");
}

/// What kind takes, and no environment can have: with the field that is refused.
#[rstest]
#[case::no_kube_proxy("networking: { kubeProxyMode: none }\n", "without kube-proxy")]
#[case::domain_by_a_patch(
    "kubeadmConfigPatches:\n- |\n  kind: ClusterConfiguration\n  networking:\n    dnsDomain: east.local\n",
    "cluster1.yaml:7:5: `networking.dnsDomain: east.local`"
)]
#[case::domain_of_kubelets(
    "kubeadmConfigPatches: [\"{ kind: KubeletConfiguration, clusterDomain: x.y }\"]\n",
    "`clusterDomain: x.y`"
)]
#[case::pods_by_a_patch_of_a_node(
    "nodes:\n- role: control-plane\n  kubeadmConfigPatches:\n  - |\n    kind: ClusterConfiguration\n    networking: { podSubnet: 10.9.0.0/16 }\n",
    "`networking.podSubnet: 10.9.0.0/16` is not"
)]
#[case::domain_by_a_json_patch(
    "kubeadmConfigPatchesJSON6902:\n- group: kubeadm.k8s.io\n  version: v1beta3\n  kind: ClusterConfiguration\n  patch: |\n    - op: add\n      path: /networking/dnsDomain\n      value: a.b\n",
    "`networking.dnsDomain: a.b`"
)]
#[case::no_yaml("kubeadmConfigPatches: [\"kind: [\"]\n", "kind cannot read this patch")]
#[case::label_of_no_kubelet(
    "nodes: [{ role: control-plane, labels: { node-role.kubernetes.io/x: \"\" } }]\n",
    "a kubelet may not set"
)]
#[case::bad_label("nodes: [{ role: control-plane, labels: { a: b c } }]\n", "`b c` is not a valid label value")]
fn what_no_environment_can_have_is_refused(#[case] text: &str, #[case] expected: &str) {
    let source = crate::source::Source::new("cluster1.yaml", format!("{HEADER}{text}"));
    let problems = kind_config::read(source, "cluster1").unwrap_err().to_string();
    assert!(problems.contains(expected), "{problems}");
}

#[test]
fn labels_of_nodes_come_from_their_field_or_from_a_patch_that_replaces_it() {
    let text = "nodes:\n- role: worker\n  labels: { zone: a }\n- role: control-plane\n  labels: { zone: b }\n  kubeadmConfigPatches:\n  - |\n    kind: InitConfiguration\n    \
                nodeRegistration: { kubeletExtraArgs: { node-labels: \"ingress-ready=true,topology.kubernetes.io/region=east\" } }\n";
    let source = crate::source::Source::new("cluster1.yaml", format!("{HEADER}{text}"));
    let nodes = kind_config::read(source, "cluster1").unwrap().nodes;
    let shown: Vec<String> = nodes.iter().map(|node| format!("{:?} {:?}", node.role, node.labels)).collect();
    assert_eq!(
        shown,
        [
            r#"ControlPlane {"ingress-ready": "true", "topology.kubernetes.io/region": "east"}"#,
            r#"Worker {"zone": "a"}"#
        ]
    );
}

/// Everything that differs from kind's defaults, and no more.
#[test]
fn what_only_kind_does_is_found_at_its_place() {
    let config = format!(
        "{HEADER}networking: {{ podSubnet: 10.20.0.0/16, serviceSubnet: 10.120.0.0/16, kubeProxyMode: ipvs, apiServerPort: 6443, \
         apiServerAddress: 127.0.0.1, dnsSearch: [a.b] }}\nfeatureGates: {{ A: true }}\nruntimeConfig: {{ api/alpha: \"true\" }}\n\
         containerdConfigPatches: [\"x = 1\"]\nkubeadmConfigPatches:\n- |\n  kind: KubeProxyConfiguration\n  metricsBindAddress: 0.0.0.0\n  \
         conntrack: {{ min: 1 }}\n- |\n  kind: ClusterConfiguration\n  networking: {{ podSubnet: 10.20.0.0/16, dnsDomain: cluster.local }}\nnodes:\n- \
         role: control-plane\n  labels: {{ zone: a }}\n  extraMounts: [{{ hostPath: /a, containerPath: /b }}]\n  extraPortMappings:\n  - {{ containerPort: 80, hostPort: 80 }}\n"
    );
    let mut vpn = Topology::load(&kind_configs(), "vpn").unwrap();
    vpn.clusters[1].kind_config = config;
    let problems = vpn.only_on_kind(Path::new("kind-configs"), "netns");
    let shown: Vec<String> = problems.iter().map(|p| format!("{}: {p}", p.place())).collect();
    insta::assert_snapshot!(shown.join("\n"));
    assert!(
        Topology::load(&kind_configs(), "vpn").unwrap().only_on_kind(Path::new("kind-configs"), "netns").is_empty()
    );
}

#[test]
fn a_port_that_two_clusters_ask_for_is_refused() {
    let config = |pods: &str, port: u16| {
        format!(
            "{HEADER}networking: {{ podSubnet: {pods}.0.0/16, serviceSubnet: {pods}.0.0/16, apiServerPort: {port} }}\n"
        )
        .replacen(
            &format!("serviceSubnet: {pods}"),
            &format!("serviceSubnet: {}", pods.replace("10.", "10.1")),
            1,
        )
    };
    let (one, two) = (config("10.10", 6443), config("10.20", 6443));
    let problems = load(&[("cluster1.yaml", &one), ("cluster2.yaml", &two)]).unwrap_err().to_string();
    assert!(problems.starts_with("t/cluster2.yaml:3:") && problems.contains("port 6443 of this machine"), "{problems}");
    assert!(load(&[("cluster1.yaml", &one), ("cluster2.yaml", &config("10.20", 6444))]).is_ok());
}

#[test]
fn primaries_come_first_and_ranges_may_repeat_across_networks() {
    let topology = "\
purpose: p
trust_domain: cluster.local
clusters:
  cluster1: { network: a, gateway: east-west, served_by: cluster2 }
  cluster2: { network: b, gateway: east-west }
";
    let same = ranges("10.10.0.0/16", "10.110.0.0/16");
    let topology = load(&[("topology.yaml", topology), ("cluster2.yaml", &same)]).unwrap();
    assert_eq!(topology.clusters.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["cluster2", "cluster1"]);
    assert!(topology.routed_pairs().is_empty());
}

#[rstest]
#[case::overlap_inside_a_cluster("cluster2.yaml", &ranges("10.20.0.0/16", "10.20.64.0/20"))]
#[case::overlap_between_clusters("cluster2.yaml", &ranges("10.10.128.0/17", "10.110.0.0/16"))]
#[case::overlap_with_kinds_default("cluster2.yaml", &format!("{HEADER}networking: {{ podSubnet: 10.96.16.0/20 }}\n"))]
#[case::another_kind("cluster2.yaml", "kind: Clutter\napiVersion: kind.x-k8s.io/v1alpha3\n")]
#[case::not_strict("cluster2.yaml", &format!("{HEADER}nodes:\n- role: control-plane\n  rolle: x\n  image: kindest/node:v1\nnetwork: {{}}\n"))]
#[case::no_control_plane("cluster2.yaml", &format!("{HEADER}networking: {{ podSubnet: 10.20.0.0/16, serviceSubnet: 10.120.0.0/16 }}\nnodes:\n- role: worker\n"))]
#[case::roles_ports_and_modes("cluster2.yaml", &format!("{HEADER}name: cluster3\nnodes:\n- role: controlplane\n  extraPortMappings: [{{ containerPort: 80, hostPort: 70000, protocol: HTTP }}]\n- role: worker\n  image: x\nnetworking: {{ kubeProxyMode: ebpf, apiServerPort: -2, ipFamily: ipv6, podSubnet: \"fd00::/56\", serviceSubnet: 10.120.0.1/16 }}\n"))]
#[case::ranges_of_the_wrong_size("cluster2.yaml", &ranges("10.20.0.0/25", "10.0.0.0/8"))]
#[case::too_small_for_its_nodes("cluster2.yaml", &format!("{HEADER}networking: {{ podSubnet: 10.20.0.0/24, serviceSubnet: 10.120.0.0/16 }}\nnodes:\n- role: control-plane\n- role: worker\n"))]
#[case::not_yaml("cluster2.yaml", "kind: Cluster\n\tapiVersion: x\n")]
#[case::empty_file("cluster2.yaml", "")]
#[case::unknown_primary_and_remote_primary(
    "topology.yaml",
    "purpose: p\ntrust_domain: cluster.local\nclusters:\n  cluster1: { served_by: cluster2 }\n  cluster2: { served_by: cluter1 }\n"
)]
#[case::missing_and_extra_files(
    "topology.yaml",
    "purpose: ''\ntrust_domain: Cluster.local\nclusters:\n  cluster1: {}\n  cluster3: { served_by: cluster1 }\n"
)]
#[case::bad_names(
    "topology.yaml",
    "purpose: p\ntrust_domain: cluster.local\nclusters:\n  cluster1: { network: V P N }\n  cluster2: { network: vpn, served_by: cluster1, provider: kind }\n"
)]
#[case::both_names_of_a_field(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: { control_plane: cluster1 }\n  cluster2: { control_plane: cluster1, served_by: cluster1 }\n"
)]
#[case::remote_of_a_remote(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: { served_by: cluster2 }\n  cluster2: { served_by: cluster1 }\n"
)]
#[case::one_mesh_two_roots(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: { root: root1 }\n  cluster2: { root: root2, trust_domain: other.local }\n"
)]
#[case::a_remote_of_another_mesh(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: { mesh: mesh1, root: root1 }\n  cluster2: { served_by: cluster1, mesh: mesh2, trust_domain: b }\n"
)]
#[case::two_networks_without_a_gateway(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: { network: network1 }\n  cluster2: { network: network2 }\n"
)]
#[case::an_istiod_behind_no_gateway(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: {}\n  cluster2: { gateway: east-west }\n  cluster3: { network: network2, gateway: east-west, served_by: cluster1 }\n"
)]
#[case::an_external_control_plane_that_serves_nobody(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: { config: cluster2, gateway: west }\n  cluster2: { config: cluster1, served_by: cluster1 }\n"
)]
#[case::an_external_control_plane_of_another(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: { config: cluster2, gateway: east-west }\n  cluster2: {}\n"
)]
#[case::trust_in_no_other_mesh(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: { trusts: [mesh1, mehs2, mesh2] }\n  cluster2: { mesh: mesh2 }\n"
)]
#[case::machines_that_are_something_else(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: { gateway: east-west }\n  cluster2: { joins: cluster3, gateway: east-west }\n  cluster3: { served_by: cluster1 }\n"
)]
#[case::machines_on_another_network(
    "topology.yaml",
    "purpose: p\nclusters:\n  cluster1: {}\n  cluster2: { joins: cluster1, network: network2 }\n"
)]
#[case::no_clusters("topology.yaml", "purpose: p\ntrust_domain: cluster.local\nclusters: {}\n")]
fn mistakes_are_reported_all_at_once_with_their_places(#[case] file: &str, #[case] text: &str) {
    let name = std::thread::current().name().and_then(|n| n.rsplit("::").next()).unwrap().to_owned();
    let problems = load(&[(file, text)]).expect_err("a topology with mistakes was accepted");
    insta::assert_snapshot!(name, problems);
}

#[test]
fn an_unknown_topology_is_a_missing_file() {
    let problems = Topology::load(&kind_configs(), "no-such").unwrap_err();
    assert!(problems.to_string().ends_with("no-such/topology.yaml: no such file"), "{problems}");
}

#[rstest]
#[case::default_route("0.0.0.0/0", None)]
#[case::elsewhere("172.17.0.0/16", None)]
#[case::inside(
    "10.20.3.0/24",
    Some("the pods' range of cluster2 (10.20.0.0/16) overlaps docker network x (10.20.3.0/24) of this machine")
)]
#[case::around(
    "10.112.0.0/12",
    Some("the services' range of cluster2 (10.120.0.0/16) overlaps docker network x (10.112.0.0/12) of this machine")
)]
fn ranges_that_the_machine_uses_are_found(#[case] range: &str, #[case] expected: Option<&str>) {
    let vpn = Topology::load(&kind_configs(), "vpn").unwrap();
    let host = [HostRange { what: "docker network x".into(), range: range.parse().unwrap() }];
    let clashes = vpn.clashes(&host);
    assert_eq!(clashes.first().map(ToString::to_string).as_deref(), expected);
    if let Some(clash) = clashes.first() {
        let place = clash.problem(Path::new("kind-configs"), &vpn).place();
        let line = if clash.of == RangeOf::Pods { 7 } else { 8 };
        assert!(place.starts_with(&format!("kind-configs/vpn/cluster2.yaml:{line}:")), "{place}");
    }
}

#[test]
fn ports_of_the_machine_that_are_in_use_are_found_at_their_places() {
    let config = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: { apiServerPort: 7001 }\nnodes:\n  - extraPortMappings:\n    - \
                  { containerPort: 80, hostPort: 7002 }\n    - { containerPort: 81, hostPort: 0 }\n";
    let mut vpn = Topology::load(&kind_configs(), "vpn").unwrap();
    vpn.clusters[1].kind_config = config.into();
    let places = |taken: fn(u16) -> bool| -> Vec<String> {
        vpn.taken_ports(Path::new("kind-configs"), taken).iter().map(|p| format!("{}: {p}", p.place())).collect()
    };
    assert_eq!(places(|_| false), Vec::<String>::new());
    assert_eq!(
        places(|port| port == 7002),
        ["kind-configs/vpn/cluster2.yaml:6:38: port 7002 of this machine is in use"]
    );
    assert_eq!(places(|_| true).len(), 2, "0 is any free port");
}

#[test]
fn an_external_control_plane_reads_the_configuration_of_a_cluster_that_it_serves() {
    let mut topology = load(&[]).unwrap();
    topology.clusters[0].role = Role::External { config: "cluster2".into() };
    let names = |clusters: Vec<&ClusterSpec>| clusters.into_iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(topology.istiods().collect()), ["cluster1"]);
    assert_eq!(names(topology.config_clusters().collect()), ["cluster2"]);
    assert_eq!(names(topology.served_by("cluster1").collect()), ["cluster2"]);
    assert_eq!(names(topology.read_by(&topology.clusters[0]).collect()), ["cluster2"]);
}

#[test]
fn a_remote_has_the_trust_of_its_istiod() {
    let topology = "purpose: p\ntrust_domain: a.example\nclusters:\n  cluster1: { root: mine, mesh: m }\n  \
                    cluster2: { served_by: cluster1 }\n";
    let topology = load(&[("topology.yaml", topology)]).unwrap();
    let mesh = MeshSpec { id: "m".into(), trust_domain: "a.example".into(), root: "mine".into(), trusts: vec![] };
    assert_eq!(topology.clusters.iter().map(|c| &c.mesh).collect::<Vec<_>>(), [&mesh, &mesh]);
}
