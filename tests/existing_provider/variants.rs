//! Meshes as one finds them: a user who may not create EnvoyFilters, several revisions and tags.

use std::path::Path;
use std::process::Command;

use meshproof::supply::{self, Overrides, Program, Purpose, Source, Supplied, Versions};

use crate::fixture::{Fixture, differences, stdout, succeeded};

/// All that a run does, but EnvoyFilters.
const NO_FILTERS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: no-filters }
rules:
  - { apiGroups: ["", apps, discovery.k8s.io, admissionregistration.k8s.io, security.istio.io], resources: ["*"], verbs: ["*"] }
  - { apiGroups: [networking.istio.io], resources: [envoyfilters], verbs: [get, list, watch] }
  - apiGroups: [networking.istio.io]
    resources: [virtualservices, destinationrules, gateways, serviceentries, sidecars, workloadentries, workloadgroups]
    verbs: ["*"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: no-filters }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: no-filters }
subjects: [{ kind: ServiceAccount, namespace: default, name: filterless }]
"#;

/// Where no access log can be added, Envoy's counters say which endpoints had the calls; what they do not say is refused.
pub async fn counters(fixture: &Fixture) {
    let kubeconfigs = fixture.account("filterless", Some(NO_FILTERS));
    let before = fixture.objects_at_rest().await;
    let run = |scenario: &str| {
        let contexts = ["--context", "cluster1=filterless1", "--context", "cluster2=filterless2"];
        let args = [&["run", "--provider", "existing"], &contexts[..], &[scenario]].concat();
        let mut command = fixture.command(fixture.ours.path(), &args);
        command.env("KUBECONFIG", std::env::join_paths(&kubeconfigs).unwrap()).output().unwrap()
    };
    let passed = run("scenarios/vpn/header_match.yaml");
    succeeded(&passed);
    let printed = stdout(&passed);
    assert!(printed.contains("Envoy's counters per endpoint") && printed.contains("endpoints_in"), "{printed}");
    let refused = run("scenarios/vpn/v2_only.yaml");
    assert_eq!(refused.status.code(), Some(2), "{}", stdout(&refused));
    assert!(stdout(&refused).contains("read from the servers' access logs"), "{}", stdout(&refused));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new());
}

/// A second control plane, as "Canary Upgrades" of Istio's manual installs it, and the tags of "Stable revision labels". The
/// first cluster alone: what is about revisions is in each cluster for itself.
const CANARY: &str = r#"
cat > canary.yaml <<EOF
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  revision: canary
  hub: registry.istio.io/release
  tag: of-the-supply
  components: { ingressGateways: [{ name: istio-ingressgateway, enabled: false }] }
  meshConfig: { defaultProviders: { metrics: [] }, accessLogFile: /dev/stdout }
  values:
    telemetry: { enabled: false }
    global: { meshID: mesh1, multiCluster: { clusterName: cluster1 }, network: vpn }
    pilot: { env: { PILOT_ENABLE_ALPN_FILTER: "false", PILOT_ENABLE_METADATA_EXCHANGE: "false" } }
EOF
$ISTIOCTL install -y -f canary.yaml
$ISTIOCTL tag set default --revision default --overwrite
$ISTIOCTL tag set prod --revision canary
"#;

/// A topology of one cluster, and a scenario for each way to name a revision.
const PROJECT: &str = r#"
mkdir -p kind-configs/one scenarios/one fixtures/routing
cp $OWN/versions.yaml .
cp $OWN/kind-configs/vpn/cluster1.yaml kind-configs/one/
cp $OWN/fixtures/routing/helloworld-v2-only.yaml fixtures/routing/
printf 'purpose: One cluster.\nclusters:\n  cluster1: { network: vpn }\n' > kind-configs/one/topology.yaml
for revision in default canary prod; do
  mesh="mesh: { revision: $revision }"
  if [ $revision = default ]; then mesh=; fi
  cat > scenarios/one/$revision.yaml <<EOF
name: a rule reaches the proxies of revision $revision
purpose: Fails when these proxies do not get it.
topology: one
$mesh
workloads:
  - sleep: { cluster: cluster1 }
  - helloworld: { version: v1, cluster: cluster1 }
  - helloworld: { version: v2, cluster: cluster1 }
steps:
  - call: { from: sleep@cluster1, to: "http://helloworld.app1:5000/hello", expect: { reached: [v1, v2] } }
  - apply: { cluster: cluster1, file: fixtures/routing/helloworld-v2-only.yaml }
  - call:
      from: sleep@cluster1
      to: http://helloworld.app1:5000/hello
      expect: { only: v2, endpoints_in: cluster1.pods, mtls: true }
EOF
done
"#;

/// Every revision by its name, by a tag, and the default one; the log is chosen by the settings of the revision's own istiod.
pub async fn revisions(fixture: &Fixture) {
    let versions = Versions::built_in().unwrap();
    let supplied = supply::ensure(Purpose::Netns, Source::Auto, &versions, &Overrides::new()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for script in [CANARY, PROJECT] {
        shell(script, folder.path(), fixture, &supplied);
    }
    let before = fixture.objects_at_rest().await;
    let args = ["run", "--provider", "existing", "--context", "cluster1=cluster1"];
    let mut command = fixture.command(fixture.ours.path(), &args);
    let ran = command.current_dir(folder.path()).output().unwrap();
    succeeded(&ran);
    assert!(stdout(&ran).contains("3 scenarios: 3 pass"), "{}", stdout(&ran));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new());
}

fn shell(script: &str, folder: &Path, fixture: &Fixture, supplied: &Supplied) {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(folder).env("KUBECONFIG", &fixture.kubeconfigs[0]);
    command.env("OWN", env!("CARGO_MANIFEST_DIR")).env("ISTIOCTL", supplied.program(Program::Istioctl).unwrap());
    succeeded(&command.output().unwrap());
}
