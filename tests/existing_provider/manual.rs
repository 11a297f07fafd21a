//! Istio as its manual installs it: "Install Multi-Primary" on one network, the default profile, on two kind clusters. Nothing is
//! set for meshproof: no access log, permissive mutual TLS.

use std::path::Path;
use std::process::{Command, Stdio};

use meshproof::journal::EnvDir;
use meshproof::provider::kind::{self, NodeImage};
use meshproof::provider::{self, Cluster};
use meshproof::supply::{self, Origin, Overrides, Program, Purpose, Source, Supplied, Versions, images};
use meshproof::topology::Topology;
use serde_json::json;

use crate::fixture::{Fixture, differences, stdout, succeeded, wanted};

const SCENARIO: &str = "scenarios/multi-primary/rule_per_primary.yaml";

/// Removes the clusters however the test ends.
struct Kind(Option<EnvDir>);

impl Kind {
    async fn remove(mut self) {
        let Some(env) = self.0.take() else { return };
        assert_eq!(provider::remove(env.owned().unwrap()).await, Vec::<String>::new());
        env.forget().unwrap();
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        for owned in self.0.iter().flat_map(|env| env.owned().unwrap()) {
            let _ = futures::executor::block_on(kind::remove(&owned));
        }
    }
}

/// Runs a script of the manual.
fn shell(script: &str, folder: &Path, variables: &[(&str, String)]) {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(folder).stdin(Stdio::null());
    succeeded(&command.envs(variables.iter().map(|(name, value)| (*name, value.as_str()))).output().unwrap());
}

/// "Plug in CA Certificates": one root, an intermediate for each cluster.
const CERTIFICATES: &str = r#"
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout root-key.pem -out root-cert.pem -subj "/O=Istio/CN=Root CA"
openssl req -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.csr -subj "/O=Istio/CN=Intermediate CA"
printf 'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign,digitalSignature\n' > ca.ext
openssl x509 -req -in ca.csr -CA root-cert.pem -CAkey root-key.pem -CAcreateserial -days 30 -out ca-cert.pem -extfile ca.ext
cat ca-cert.pem root-cert.pem > cert-chain.pem
for kubeconfig in $ONE $TWO; do
  kubectl --kubeconfig $kubeconfig create namespace istio-system
  kubectl --kubeconfig $kubeconfig create secret generic cacerts -n istio-system \
    --from-file=ca-cert.pem --from-file=ca-key.pem --from-file=root-cert.pem --from-file=cert-chain.pem
done
"#;

/// "Install Multi-Primary", and "Enable Endpoint Discovery". The API server's address is the node's, as the manual says for kind.
const INSTALL: &str = r#"
install() {
  cat > $1.yaml <<EOF
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  values:
    global: { meshID: mesh1, multiCluster: { clusterName: $1 }, network: vpn }
EOF
  $ISTIOCTL install --kubeconfig $2 -y -f $1.yaml -f here.yaml
}
printf '%s' "$HERE" > here.yaml
install cluster1 $ONE
install cluster2 $TWO
$ISTIOCTL create-remote-secret --kubeconfig $ONE --name=cluster1 --server=$ONE_SERVER | kubectl --kubeconfig $TWO apply -f -
$ISTIOCTL create-remote-secret --kubeconfig $TWO --name=cluster2 --server=$TWO_SERVER | kubectl --kubeconfig $ONE apply -f -
"#;

/// What the manual's installation needs here: the images that the nodes have, and what a stock Envoy cannot do.
fn here(supplied: &Supplied, images: &images::Images) -> String {
    let mut spec = json!({ "hub": images.istio_hub, "tag": images.istio_tag });
    if supplied.origin == Origin::Packages {
        let env = json!({ "PILOT_ENABLE_ALPN_FILTER": "false", "PILOT_ENABLE_METADATA_EXCHANGE": "false" });
        spec["meshConfig"] = json!({ "defaultProviders": { "metrics": [] } });
        spec["values"] = json!({ "telemetry": { "enabled": false }, "global": { "imagePullPolicy": "IfNotPresent" },
            "pilot": { "env": env } });
    }
    json!({ "apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": spec }).to_string()
}

/// A project whose workloads have the images that the nodes have.
fn project(folder: &Path, images: &images::Images) {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    shell(
        "cp -r $OWN/kind-configs $OWN/scenarios $OWN/fixtures $OWN/versions.yaml .",
        folder,
        &[("OWN", own.display().to_string())],
    );
    let versions = std::fs::read_to_string(folder.join("versions.yaml")).unwrap();
    let lines = versions.lines().map(|line| match line.trim_start().split(':').next() {
        Some(key) if let Some((key, image)) = images.workloads.iter().find(|(known, _)| *known == key) => {
            format!("    {key}: {image}")
        }
        _ => line.to_owned(),
    });
    std::fs::write(folder.join("versions.yaml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
}

fn variables(clusters: &[Cluster], istioctl: &Path, here: String) -> Vec<(&'static str, String)> {
    let kubeconfig = |at: usize| clusters[at].kubeconfig.display().to_string();
    vec![
        ("ONE", kubeconfig(0)),
        ("TWO", kubeconfig(1)),
        ("ONE_SERVER", clusters[0].peer_api_server.clone()),
        ("TWO_SERVER", clusters[1].peer_api_server.clone()),
        ("ISTIOCTL", istioctl.display().to_string()),
        ("HERE", here),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_was_installed_by_istio_s_manual_is_used_unchanged() {
    if !wanted() {
        return;
    }
    if std::env::var_os("CI").is_none() && !provider::engine_answers().await {
        eprintln!("skipped: no container engine answers");
        return;
    }
    let versions = Versions::built_in().unwrap();
    let supplied = supply::ensure(Purpose::Kind, Source::Auto, &versions, &Overrides::new()).await.unwrap();
    let images = images::ensure(&supplied).await.unwrap();
    let program = supplied.program(Program::Kind).unwrap().to_owned();
    let node = NodeImage { kind: program, name: images.node.clone(), archives: Vec::new(), kubernetes_minor: 34 };
    let topologies = Path::new(env!("CARGO_MANIFEST_DIR")).join("kind-configs");
    let topology = Topology::load(&topologies, "multi-primary").unwrap_or_else(|_| panic!("multi-primary"));

    let mut fixture = Fixture::empty();
    let env = EnvDir::create(fixture.theirs.path(), &format!("t{}", std::process::id())).unwrap();
    let owner = Kind(Some(env));
    let clusters = kind::create(&topology, owner.0.as_ref().unwrap(), &node).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let istioctl = supplied.program(Program::Istioctl).unwrap();
    let variables = variables(&clusters, istioctl, here(&supplied, &images));
    shell(CERTIFICATES, folder.path(), &variables);
    shell(INSTALL, folder.path(), &variables);
    project(folder.path(), &images);
    fixture.kubeconfigs = clusters.iter().map(|cluster| cluster.kubeconfig.clone()).collect();
    let before = fixture.objects_at_rest().await;

    let contexts = clusters.iter().map(|cluster| context(&cluster.kubeconfig));
    let contexts: Vec<String> = contexts.collect();
    let given: Vec<String> = ["cluster1", "cluster2"].iter().zip(&contexts).map(|(c, x)| format!("{c}={x}")).collect();
    let meshproof = |args: &[&str]| {
        let mut command = fixture.command(fixture.ours.path(), args);
        command.current_dir(folder.path()).output().unwrap()
    };
    let checked = meshproof(&["check", "--context", &contexts[0], "--context", &contexts[1]]);
    succeeded(&checked);
    assert!(stdout(&checked).contains(" 0 broken, 0 not checked"), "{}", stdout(&checked));

    let existing = ["--provider", "existing", "--context", &given[0], "--context", &given[1]];
    let ran = meshproof(&[&["run"], &existing[..], &["--keep", SCENARIO]].concat());
    succeeded(&ran);
    let printed = stdout(&ran);
    assert!(printed.contains("1 scenario: 1 pass") && printed.contains("mtls permissive"), "{printed}");
    assert!(printed.contains("EnvoyFilter meshproof-access-log"), "{printed}");
    let url = "http://helloworld.app1:5000/hello";
    let why = meshproof(&["why", "sleep@cluster1", url, "--context", &given[0], "--context", &given[1]]);
    succeeded(&why);
    succeeded(&meshproof(&["down", "--all"]));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new());
    owner.remove().await;
}

/// The context of a kubeconfig.
fn context(kubeconfig: &Path) -> String {
    kube::config::Kubeconfig::read_from(kubeconfig).unwrap().current_context.unwrap()
}
