//! Wrong input is wrong input: files of the kinds that people bring, each with its right verdict.
//!
//! `tests/cases/` holds scenarios that must be refused without a cluster (`offline/`), by the clusters of an environment
//! (`online/`), those beside them that must pass (`passes/`), those that must fail (`fails/`), and those that
//! must be inconclusive (`inconclusive/`). `tests/fails/` holds scenarios whose expectation must fail.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use meshproof::topology::Topology;
use rstest::rstest;

const BINARY: &str = env!("CARGO_BIN_EXE_meshproof");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A project with the cases, this repository's topologies and its versions.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: PathBuf, to: PathBuf| {
        assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
    };
    for name in ["offline", "online", "passes", "fails", "inconclusive", "settings", "kind-configs"] {
        copy(root().join("tests/cases").join(name), folder.path().join(name));
    }
    copy(root().join("kind-configs/vpn"), folder.path().join("kind-configs/vpn"));
    copy(root().join("versions.yaml"), folder.path().join("versions.yaml"));
    folder
}

fn meshproof(project: &Path, state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(args).current_dir(project).env("XDG_STATE_HOME", state).env("NO_COLOR", "1");
    command.env_remove("MESHPROOF_PROVIDER").output().unwrap()
}

/// Asserts exit code 4, and that each place with its words is shown.
fn refused(output: &Output, expected: &[(&str, &str)]) {
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{printed}");
    for (place, words) in expected {
        assert!(printed.contains(&format!("[{place}]")), "{place} is not underlined:\n{printed}");
        assert!(printed.contains(words), "`{words}` is not said:\n{printed}");
    }
}

#[rstest]
#[case(
    "boolean-as-text",
    "offline/objects/boolean-as-text.yaml:7:43",
    "kubectl reads `Yes` without quotes as the boolean `true`"
)]
#[case(
    "boolean-as-key",
    "offline/objects/boolean-as-key.yaml:6:3",
    "kubectl reads `y` without quotes as the boolean `true`"
)]
#[case(
    "exported",
    "offline/objects/exported.yaml:11:7",
    "remove metadata.uid, metadata.resourceVersion, metadata.creationTimestamp, status"
)]
#[case("unknown-group", "offline/objects/unknown-group.yaml:1:13", "no cluster serves the API group")]
#[case("unknown-kind", "offline/objects/unknown-kind.yaml:2:7", "did you mean `VirtualService`?")]
#[case("namespace-of-nobody", "offline/objects/namespace-of-nobody.yaml:3:38", "cluster1 has no namespace `shop`")]
#[case("namespace-too-late", "offline/objects/namespace-too-late.yaml:3:38", "cluster1 has no namespace `shop`")]
#[case("owned", "offline/owned.yaml:5:26", "meshproof sets `trustDomain` itself")]
#[case("owned", "offline/owned.yaml:5:33", "MeshConfig has no field `outboundTraficPolicy`")]
#[case("owned", "offline/objects/owned.yaml:3:19", "meshproof installs ConfigMap istio-system/istio itself")]
#[case("steps", "offline/steps.yaml:5:48", "meshproof sets `app` itself")]
#[case("steps", "offline/steps.yaml:6:67", "`a b` is not the value of a label")]
#[case("steps", "offline/objects/steps.yaml:3:33", "does not match the namespace `sample`")]
#[case("steps", "offline/steps.yaml:9:69", "no object of the file has labels that `version=v9` selects")]
#[case("steps", "offline/steps.yaml:10:24", "what is to be deleted is missing")]
#[case("steps", "offline/steps.yaml:11:42", "unknown kind `Deploymnt`")]
#[case("steps", "offline/steps.yaml:12:47", "`deployment` and `pods` both say what is restarted")]
#[case("steps", "offline/steps.yaml:13:44", "there is more than one thing")]
#[case("object-name", "offline/object-name.yaml:8:44", "`x` is not KIND/NAME")]
#[case("gateway-api", "offline/objects/gateway-api.yaml:2:7", "write `mesh: { gateway_api: true }` in the scenario")]
#[case("domains", "kind-configs/domains/cluster2.yaml:10:54", "the DNS domain of every cluster is cluster.local")]
#[case("only-kind", "kind-configs/only-kind/cluster1.yaml:6:3", "netns does not support `containerdConfigPatches`")]
fn what_needs_no_cluster_is_refused_when_the_scenario_is_read(
    #[case] name: &str,
    #[case] place: &str,
    #[case] words: &str,
) {
    let (project, state) = (project(), tempfile::tempdir().unwrap());
    let file = format!("offline/{name}.yaml");
    for command in ["plan", "run"] {
        let output = meshproof(project.path(), state.path(), &[command, "--provider", "netns", &file]);
        refused(&output, &[(place, words)]);
    }
    assert!(!state.path().join("meshproof").exists(), "something was begun");
}

#[rstest]
#[case("passes/brings-its-own.yaml")]
#[case("passes/near.yaml")]
#[case("online/webhook.yaml")]
fn what_only_a_cluster_can_know_is_planned(#[case] file: &str) {
    let (project, state) = (project(), tempfile::tempdir().unwrap());
    let output = meshproof(project.path(), state.path(), &["plan", "--provider", "netns", file]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Skips, or fails where `CI` is set, unless clusters can be created without containers.
fn netns_is_missing() -> bool {
    if nix::unistd::geteuid().is_root() {
        return false;
    }
    assert!(std::env::var_os("CI").is_none(), "these tests need root");
    eprintln!("skipped: needs root");
    true
}

#[test]
fn what_clusters_refuse_is_underlined_all_at_once_and_nothing_runs() {
    if netns_is_missing() {
        return;
    }
    let (project, state) = (project(), tempfile::tempdir().unwrap());
    let output = meshproof(project.path(), state.path(), &["run", "--provider", "netns", "online"]);
    refused(
        &output,
        &[
            ("online/objects/unknown-field.yaml:7:5", "unknown field \"spec.trafficPolicy.conectionPool\""),
            ("online/objects/unknown-field.yaml:13:35", "unknown field \"spec.ports[0].targetport\""),
            ("online/objects/wrong-type.yaml:7:60", "spec.http[0].route[0].weight"),
            ("online/objects/missing-field.yaml:9:31", "spec.ports[0].port"),
            ("online/objects/webhook.yaml:4:1", "NONE mode cannot set endpoints"),
            ("online/objects/istio-webhook.yaml:8:60", "weight -25 < 0"),
            ("online/objects/old-version.yaml:1:13", "serves no kind `VirtualService`"),
        ],
    );
    assert!(!String::from_utf8_lossy(&output.stdout).contains("pass"), "a scenario was run");
}

#[test]
fn what_istioctl_refuses_is_underlined_before_a_cluster_is_created() {
    if netns_is_missing() {
        return;
    }
    let (project, state) = (project(), tempfile::tempdir().unwrap());
    let output = meshproof(project.path(), state.path(), &["run", "--provider", "netns", "settings/values.yaml"]);
    refused(&output, &[("settings/values.yaml:5:11", "unknown field \"replicas\"")]);
    let output = meshproof(project.path(), state.path(), &["run", "--provider", "netns", "settings/stock-envoy.yaml"]);
    refused(&output, &[("settings/stock-envoy.yaml:5:33", "the proxies of this environment are a stock Envoy")]);
    let left = std::fs::read_dir(state.path().join("meshproof")).into_iter().flatten().count();
    assert_eq!(left, 0, "an environment was begun");
}

#[test]
fn what_clusters_accept_passes() {
    if netns_is_missing() {
        return;
    }
    let (project, state) = (project(), tempfile::tempdir().unwrap());
    let output = meshproof(project.path(), state.path(), &["run", "--provider", "netns", "passes"]);
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}");
}

#[test]
fn what_held_before_the_change_is_inconclusive() {
    if netns_is_missing() {
        return;
    }
    let (project, state) = (project(), tempfile::tempdir().unwrap());
    let output = meshproof(project.path(), state.path(), &["run", "--provider", "netns", "inconclusive"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{printed}");
    assert!(printed.contains("the expectations already held before the change"), "{printed}");
}

#[test]
fn without_the_mesh_config_of_their_topology_they_fail() {
    if netns_is_missing() {
        return;
    }
    let (project, state) = (project(), tempfile::tempdir().unwrap());
    let output = meshproof(project.path(), state.path(), &["run", "--provider", "netns", "fails"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("✗ fail ") && printed.contains("refused"), "{printed}");
}

/// `tests/fails/`: an expectation each, in a mesh that is healthy and does something else.
#[test]
fn what_must_fail_fails() {
    if netns_is_missing() {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let output = meshproof(root(), state.path(), &["run", "--provider", "netns", "tests/fails"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for entry in std::fs::read_dir(root().join("tests/fails")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let failed = |line: &str| line.starts_with("✗ fail ") && line.contains(&name);
        assert!(printed.lines().any(failed), "{name} did not fail:\n{printed}");
    }
}

/// kind itself, from PATH or the supply.
fn kind() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let items = std::fs::read_dir(cache.join("meshproof/items")).into_iter().flatten().flatten();
    let supplied = items.map(|item| item.path().join("files/kind")).find(|path| path.is_file());
    let on_path = std::env::split_paths(&std::env::var_os("PATH")?).map(|f| f.join("kind")).find(|path| path.is_file());
    supplied.or(on_path)
}

/// Whether kind accepts a config: an engine that does nothing ends it where it would create the first container.
fn kind_accepts(kind: &Path, config: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let engine = "#!/bin/sh\ncase \"$1\" in\ninfo) echo '{\"CgroupVersion\":\"2\",\"MemoryLimit\":true,\"PidsLimit\":true,\"CPUShares\":true,\"SecurityOptions\":[]}' ;;\nps) ;;\n*) exit 1 ;;\nesac\n";
    let docker = folder.path().join("docker");
    std::fs::write(&docker, engine).unwrap();
    assert!(Command::new("chmod").arg("755").arg(&docker).status().unwrap().success());
    std::fs::write(folder.path().join("config.yaml"), config).unwrap();
    let output = Command::new(kind)
        .args(["create", "cluster", "--config", "config.yaml", "--kubeconfig", "kubeconfig"])
        .current_dir(folder.path())
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .env("KIND_EXPERIMENTAL_PROVIDER", "docker")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    (printed.contains("Creating cluster"), printed)
}

/// What kind accepts is read, and what it refuses is refused.
#[test]
fn kind_configs_are_read_as_kind_reads_them() {
    let Some(kind) = kind() else {
        assert!(std::env::var_os("CI").is_none(), "kind is missing: `meshproof supply`");
        eprintln!("skipped: kind is missing (`meshproof supply` builds it)");
        return;
    };
    let node = |fields: &str| format!("nodes:\n- role: control-plane\n  {fields}\n");
    let configs = [
        String::new(),
        "networking:\nnodes:\nfeatureGates:\nruntimeConfig:\nkubeadmConfigPatches:\ncontainerdConfigPatches:\nkubeadmConfigPatchesJSON6902:\n".into(),
        "networking: { ipFamily: , kubeProxyMode: \"\", podSubnet: , apiServerPort: , dnsSearch: , disableDefaultCNI: }\n".into(),
        "networking: { dnsSearch: [a.example], apiServerAddress: 0.0.0.0, apiServerPort: 6443 }\n".into(),
        "networking: { disableDefaultCNI: yes }\n".into(),
        "networking: { disableDefaultCNI: \"true\" }\n".into(),
        "networking: { apiServerPort: \"6443\" }\n".into(),
        "networking: { apiServerPort: 66000 }\n".into(),
        "networking: { podSubnet: 10.1.0.0 }\n".into(),
        "networking: { kubeProxyMode: ebpf }\n".into(),
        "networking: { subnet: 10.1.0.0/16 }\n".into(),
        "featureGates: { A: true, B: \"false\" }\n".into(),
        "featureGates: { A: false }\nruntimeConfig: { api/all: true, api/x: \"false\" }\n".into(),
        "containerdConfigPatches:\n- |\n  version = 2\n-\n".into(),
        "kubeadmConfigPatches: one\n".into(),
        "kubeadmConfigPatchesJSON6902:\n- { group: kubeadm.k8s.io, version: v1beta3, kind: ClusterConfiguration, patch: \"[]\" }\n".into(),
        "kubeadmConfigPatchesJSON6902:\n- { name: config, kind: ClusterConfiguration, patch: \"[]\" }\n".into(),
        node("labels: { a: 1, b: true, c: }"),
        node("labels: [a]"),
        node("extraMounts: [{ hostPath: /tmp, containerPath: /x, readOnly: true, propagation: HostToContainer }]"),
        node("extraMounts: [{ hostPath: /tmp, containerPath: /x, propagation: Shared }]"),
        node("extraMounts: [{ hostpath: /tmp }]"),
        node("extraPortMappings: [{ containerPort: 80, hostPort: 8080, protocol: tcp }, { containerPort: 80, hostPort: 8080, protocol: UDP }]"),
        node("extraPortMappings: [{ containerPort: 80, hostPort: 8080 }, { containerPort: 81, hostPort: 8080, listenAddress: 127.0.0.1 }]"),
        node("extraPortMappings: [{ containerPort: 80, hostPort: 8080, listenAddress: 127.0.0.2 }, { containerPort: 81, hostPort: 8080, listenAddress: 127.0.0.1 }]"),
        node("extraPortMappings: [{ containerPort: \"80\" }]"),
        node("extraPortMappings: [{ containerPort: 80, protocol: HTTP }]"),
        node("extraMounts: &m\n- &w\n  role: worker\n  extraMounts: *m\n  labels: { z: a }\n- <<: *w\n  labels: { z: b }"),
        "nodes: [{ role: worker }]\n".into(),
        "nodes: [{ role: master }]\n".into(),
        "nodes: [{}]\n".into(),
    ];
    for config in configs {
        let config = format!("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n{config}");
        let folder = tempfile::tempdir().unwrap();
        let topology = folder.path().join("t");
        std::fs::create_dir(&topology).unwrap();
        let text = "purpose: p\ntrust_domain: cluster.local\nclusters: { cluster1: { network: n, control_plane: cluster1 } }\n";
        std::fs::write(topology.join("topology.yaml"), text).unwrap();
        std::fs::write(topology.join("cluster1.yaml"), &config).unwrap();
        let read = Topology::load(folder.path(), "t");
        let (accepted, printed) = kind_accepts(&kind, &config);
        assert_eq!(
            read.is_ok(),
            accepted,
            "{config}\nkind: {printed}\nmeshproof: {:?}",
            read.err().map(|e| e.to_string())
        );
    }
}
