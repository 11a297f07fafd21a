//! The kind provider on a real container engine.
//!
//! `MESHPROOF_TEST_KIND` (the kind program) and `MESHPROOF_TEST_NODE_IMAGE` (a node image of Kubernetes 1.34) say what
//! to use; without them the supply does, but only where `CI` is set, because it may take half an hour.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use meshproof::journal::{EnvDir, Owned};
use meshproof::provider::kind::{self, NodeImage};
use meshproof::supply::{self, Overrides, Program, Purpose, Source, Versions, images};
use meshproof::topology::{ClusterSpec, Cni, MeshSpec, NodeRole, Role, Topology};

fn spec(number: u8, nodes: &[NodeRole]) -> ClusterSpec {
    let roles: Vec<_> = nodes
        .iter()
        .map(|role| match role {
            NodeRole::ControlPlane => "{role: control-plane}",
            NodeRole::Worker => "{role: worker}",
        })
        .collect();
    ClusterSpec {
        name: format!("cluster{number}"),
        network: "vpn".into(),
        role: Role::Primary,
        mesh: MeshSpec::default(),
        gateway: false,
        pods: format!("10.7{number}.0.0/16").parse().unwrap(),
        services: format!("10.17{number}.0.0/16").parse().unwrap(),
        nodes: nodes.iter().copied().map(Into::into).collect(),
        cni: Cni::Static,
        kind_config: format!(
            "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {{podSubnet: 10.7{number}.0.0/16, \
             serviceSubnet: 10.17{number}.0.0/16, disableDefaultCNI: true}}\nnodes: [{}]\n",
            roles.join(", ")
        ),
    }
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The node image; `None`, with the reason printed: this test cannot run here.
async fn image() -> Option<NodeImage> {
    if std::env::var_os("CI").is_none() && std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_none() {
        eprintln!("skipped: it needs Docker and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
        return None;
    }
    let versions = Versions::built_in().unwrap();
    let supplied = supply::ensure(Purpose::Kind, Source::Auto, &versions, &Overrides::new()).await.unwrap();
    let name = images::ensure(&supplied).await.unwrap().node;
    let kind = supplied.program(Program::Kind).unwrap().to_owned();
    Some(NodeImage { kind, name, archives: Vec::new(), kubernetes_minor: 34 })
}

/// A service address that kube-proxy knows nothing of is refused at once: nothing is sent to nowhere.
fn refuses_untranslated(node: &str) {
    let call = "timeout 3 bash -c 'exec 3<>/dev/tcp/10.171.9.9/443' 2>/dev/null; echo $?";
    assert_eq!(docker(&["exec", node, "bash", "-c", call]), "1", "124 is a time-out, 0 a connection");
}

async fn remove(env: EnvDir) {
    for owned in env.owned().unwrap() {
        assert!(kind::remove(&owned).await.unwrap(), "{owned:?} is the provider's own");
        // Once more, as after a clean-up that was cut short.
        kind::remove(&owned).await.unwrap();
    }
    env.forget().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_on_one_network() {
    let Some(image) = image().await else { return };
    let root = tempfile::tempdir().unwrap();
    let id = format!("t{}", std::process::id());
    let bystander = Bystander::new(&id, &image.name);
    let nodes = [NodeRole::ControlPlane, NodeRole::Worker];
    let topology = Topology {
        name: "test".into(),
        purpose: "two clusters, one of two nodes".into(),
        clusters: vec![spec(1, &nodes[..1]), spec(2, &nodes)],
        istio: Default::default(),
    };
    let env = EnvDir::create(root.path(), &id).unwrap();
    let result = async {
        let started = Instant::now();
        let clusters = kind::create(&topology, &env, &image).await?;
        eprintln!("created in {:.1?}", started.elapsed());
        assert_eq!(clusters.iter().map(|c| c.nodes.len()).collect::<Vec<_>>(), [1, 2]);
        private(env.path());

        let started = Instant::now();
        assert_eq!(kind::verify_flat(&clusters).await?, [], "pods see each other's own addresses");
        eprintln!("verified in {:.1?}", started.elapsed());

        refuses_untranslated(&clusters[0].nodes[0].name);

        // Translated addresses are noticed, and in which direction.
        let (one, two) = (&clusters[0].nodes[0], &clusters[1].nodes[1]);
        let rule = "iptables -t nat -I POSTROUTING -s 10.71.0.0/16 -d 10.72.0.0/16 -j MASQUERADE";
        docker(&["exec", &one.name, "sh", "-c", rule]);
        let wrong = kind::verify_flat(&clusters).await?;
        assert_eq!(wrong.len(), 2, "one caller, two pods called: {wrong:?}");
        assert!(wrong.iter().all(|w| w.from.0 == one.name && w.seen == Some(one.address.to_string())), "{wrong:?}");
        docker(&["exec", &one.name, "sh", "-c", &rule.replace("-I", "-D")]);

        // A route that was taken out stays out, and is back after a restart.
        docker(&["exec", &one.name, "ip", "route", "del", &two.pods.to_string()]);
        let wrong = kind::verify_flat(&clusters).await?;
        assert!(wrong.iter().any(|w| w.from.0 == one.name && w.to.0 == two.name && w.seen.is_none()), "{wrong:?}");
        docker(&["restart", &one.name]);
        let clusters = kind::attach(&topology, &env).await?;
        assert_eq!(kind::verify_flat(&clusters).await?, [], "routes survive a restart");
        refuses_untranslated(&one.name);
        Ok::<_, meshproof::provider::ProviderError>(())
    };
    let result = result.await;
    assert!(env.owned().unwrap().contains(&Owned::DockerNetwork { name: format!("meshproof-{id}") }));
    remove(env).await;
    result.unwrap();
    assert_eq!(docker(&["ps", "-aq", "--filter", &format!("name=mp-{id}")]), "");
    bystander.is_still_there();
}

/// A node of somebody else's kind cluster, and somebody else's network.
struct Bystander(String);

impl Bystander {
    fn new(id: &str, image: &str) -> Self {
        let name = format!("bystander-{id}");
        docker(&["network", "create", &name]);
        docker(&["create", "--name", &name, "--label", "io.x-k8s.kind.cluster=bystander", "--net", &name, image]);
        Self(name)
    }

    fn is_still_there(&self) {
        docker(&["container", "inspect", &self.0]);
        docker(&["network", "inspect", &self.0]);
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        docker(&["rm", "--force", &self.0]);
        docker(&["network", "rm", &self.0]);
    }
}

fn private(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let kubeconfigs = files.filter(|f| f.file_name().to_string_lossy().ends_with(".kubeconfig"));
    let modes: Vec<u32> = kubeconfigs.map(|f| f.metadata().unwrap().permissions().mode() & 0o777).collect();
    assert_eq!(modes, [0o600, 0o600]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_is_dropped_in_the_middle_leaves_only_what_is_written_down() {
    let Some(image) = image().await else { return };
    let root = tempfile::tempdir().unwrap();
    let id = format!("d{}", std::process::id());
    let topology = Topology {
        name: "test".into(),
        purpose: String::new(),
        clusters: vec![spec(3, &[NodeRole::ControlPlane])],
        istio: Default::default(),
    };
    let env = EnvDir::create(root.path(), &id).unwrap();
    let cut = tokio::time::timeout(std::time::Duration::from_secs(2), kind::create(&topology, &env, &image)).await;
    assert!(cut.is_err(), "two seconds are too short");
    remove(env).await;
    assert_eq!(docker(&["ps", "-aq", "--filter", &format!("name=mp-{id}")]), "");
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &format!("name=meshproof-{id}")]), "");
}
