//! Clusters that the run did not create: those of a netns environment represent a user's.
//!
//! Needs root and the programs of the supply. Without them the tests skip locally, with the reason, and fail
//! where `CI` is set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, verbs};
use kube::{Client, Config, ResourceExt};
use meshproof::journal::EnvDir;
use meshproof::provider::netns::{self, Programs};
use meshproof::supply::{self, Overrides, Purpose, Source, Versions};
use meshproof::topology::Topology;
use meshproof::wait::{self, Poll};
use serde_json::json;
use tempfile::TempDir;

const SCENARIOS: [&str; 2] = ["scenarios/vpn/both_versions.yaml", "scenarios/vpn/v2_only.yaml"];

fn wanted() -> bool {
    let wanted = std::env::var_os("CI").is_some() || std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_some();
    if !wanted {
        eprintln!("skipped: it needs root and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
    }
    wanted
}

/// Somebody's clusters, in a state folder of their own, and the state folder of the runs that are tested.
struct Fixture {
    theirs: TempDir,
    ours: TempDir,
    kubeconfigs: Vec<PathBuf>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.meshproof(self.ours.path(), &["down", "--all"]);
        let _ = self.meshproof(self.theirs.path(), &["down", "--all"]);
    }
}

impl Fixture {
    /// With a mesh, as `meshproof up` leaves it.
    fn with_mesh() -> Self {
        let mut fixture = Self::empty();
        succeeded(&fixture.meshproof(fixture.theirs.path(), &["up", "--provider", "netns"]));
        let told = fixture.meshproof(fixture.theirs.path(), &["env"]);
        let told = String::from_utf8(told.stdout).unwrap();
        let line = told.lines().find_map(|l| l.strip_prefix("export KUBECONFIG=")).unwrap();
        fixture.kubeconfigs = line.trim_matches('\'').split(':').map(PathBuf::from).collect();
        fixture
    }

    /// Without a mesh.
    async fn bare() -> Self {
        let mut fixture = Self::empty();
        let versions = Versions::built_in().unwrap();
        let supplied = supply::ensure(Purpose::Netns, Source::Auto, &versions, &Overrides::new()).await.unwrap();
        let programs = Programs::of(&supplied, env!("CARGO_BIN_EXE_meshproof").as_ref()).unwrap();
        let topologies = Path::new(env!("CARGO_MANIFEST_DIR")).join("kind-configs");
        let topology = Topology::load(&topologies, "vpn").unwrap_or_else(|_| panic!("vpn"));
        let root = fixture.theirs.path().join("meshproof");
        let env = EnvDir::create(&root, &format!("x{}", std::process::id())).unwrap();
        let clusters = netns::create(&topology, &env, &programs).await.unwrap();
        fixture.kubeconfigs = clusters.into_iter().map(|c| c.kubeconfig).collect();
        fixture
    }

    fn empty() -> Self {
        let folder = || tempfile::tempdir().unwrap();
        Self { theirs: folder(), ours: folder(), kubeconfigs: Vec::new() }
    }

    fn command(&self, state: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshproof"));
        command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_STATE_HOME", state);
        command.env("KUBECONFIG", std::env::join_paths(&self.kubeconfigs).unwrap());
        command
    }

    fn meshproof(&self, state: &Path, args: &[&str]) -> Output {
        self.command(state, args).output().unwrap()
    }

    fn run_args<'a>(more: &[&'a str], files: &[&'a str]) -> Vec<&'a str> {
        Self::args("run", more, files)
    }

    fn args<'a>(command: &'a str, more: &[&'a str], files: &[&'a str]) -> Vec<&'a str> {
        let contexts = ["--context", "cluster1=cluster1", "--context", "cluster2=cluster2"];
        [&[command, "--provider", "existing"], &contexts[..], more, files].concat()
    }

    /// Runs scenarios on the clusters.
    fn run(&self, more: &[&str], files: &[&str]) -> Output {
        self.meshproof(self.ours.path(), &Self::run_args(more, files))
    }

    /// Everything in the clusters that lasts, by name, with its resource version: any write changes it.
    async fn objects(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for (kubeconfig, cluster) in self.kubeconfigs.iter().zip(1..) {
            let client = client(kubeconfig).await;
            let discovery = Discovery::new(client.clone()).run().await.unwrap();
            for (resource, capabilities) in discovery.groups().flat_map(|g| g.recommended_resources()) {
                // Events and leases change by themselves.
                if !capabilities.supports_operation(verbs::LIST) || ["Event", "Lease"].contains(&resource.kind.as_str())
                {
                    continue;
                }
                let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
                let listed = api.list(&ListParams::default()).await.unwrap().items;
                all.extend(listed.iter().map(|object| {
                    let place = object.namespace().unwrap_or_default();
                    let (kind, name, version) = (&resource.kind, object.name_any(), version(&resource.kind, object));
                    format!("{cluster} {kind} {place}/{name} {:?} {version}", object.uid())
                }));
            }
        }
        all
    }

    /// [`Self::objects`] once the controllers of a new cluster have made what is theirs, which they do some time
    /// after it answers: in every namespace an account and the root, and an account for each controller.
    async fn objects_at_rest(&self) -> BTreeSet<String> {
        let last = Mutex::new(BTreeSet::new());
        let rest = wait::until("the clusters to make nothing more", Duration::from_secs(60), REST, || async {
            let now = self.objects().await;
            let last = std::mem::replace(&mut *last.lock().unwrap(), now.clone());
            match not_made(&now).or_else(|| differences(&last, &now).pop()) {
                None => Poll::Ready(now),
                Some(missing) => Poll::<_, Infallible>::NotYet(missing),
            }
        });
        rest.await.unwrap()
    }
}

/// The resource version of an object; nothing where it is written without anybody's doing: nodes report that they are alive,
/// and who leads renews that.
fn version(kind: &str, object: &DynamicObject) -> String {
    let leads = object.annotations().contains_key("control-plane.alpha.kubernetes.io/leader");
    if kind == "Node" || leads { String::new() } else { object.resource_version().unwrap_or_default() }
}

/// What a controller has yet to make in a namespace, of those `objects`.
fn not_made(objects: &BTreeSet<String>) -> Option<String> {
    let namespaces = objects.iter().filter_map(|o| o.split_once(" Namespace /"));
    let mut theirs = namespaces.flat_map(|(cluster, named)| {
        let name = named.split(' ').next().unwrap();
        let wanted = |kind: &str, object: &str| format!("{cluster} {kind} {name}/{object} ");
        [wanted("ServiceAccount", "default"), wanted("ConfigMap", "kube-root-ca.crt")]
    });
    theirs.find(|wanted| !objects.iter().any(|o| o.starts_with(wanted)))
}

/// Between two looks at clusters that are to be at rest.
const REST: Duration = Duration::from_secs(3);

async fn client(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}\n{}", stdout(output), String::from_utf8_lossy(&output.stderr));
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `after` against `before`, for a message that people can read.
fn differences(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let gone = before.difference(after).map(|o| format!("gone: {o}"));
    gone.chain(after.difference(before).map(|o| format!("left: {o}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scenarios_run_on_a_mesh_that_is_there_and_leave_it_as_it_was() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::with_mesh();
    let before = fixture.objects_at_rest().await;
    assert!(before.iter().any(|o| o.contains("Deployment istio-system/istiod")), "{before:#?}");

    // A namespace of somebody else's, of the name that the scenarios use.
    let namespaces: Api<Namespace> = Api::all(client(&fixture.kubeconfigs[1]).await);
    let theirs: Namespace = serde_json::from_value(json!({ "metadata": { "name": "app1" } })).unwrap();
    let theirs = namespaces.create(&PostParams::default(), &theirs).await.unwrap();
    let refused = fixture.run(&[], &SCENARIOS[..1]);
    assert_eq!(refused.status.code(), Some(2), "{}", stdout(&refused));
    assert!(stdout(&refused).contains("namespace app1 of cluster2 already exists"), "{}", stdout(&refused));
    let now = namespaces.get("app1").await.unwrap();
    assert_eq!((now.uid(), now.labels()), (theirs.uid(), theirs.labels()), "it was touched");
    assert!(!fixture.objects().await.iter().any(|o| o.contains("1 Namespace /app1")), "nothing was made elsewhere");
    namespaces.delete("app1", &Default::default()).await.unwrap();
    gone(&namespaces, "app1").await;

    // Killed in the middle: what it made is there, labelled; the next command takes it away.
    let killed = fixture.command(fixture.ours.path(), &Fixture::run_args(&[], &SCENARIOS));
    killed_when_there(killed, &namespaces).await;
    let left = namespaces.get("app1").await.unwrap();
    assert!(left.labels().contains_key("meshproof.dev/run"), "{left:?}");
    succeeded(&fixture.meshproof(fixture.ours.path(), &["down", "--dead"]));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new(), "after a kill");

    // Another mesh than is there is refused, not made.
    let refused = fixture.run(&[], &["scenarios/vpn/mtls_disabled.yaml"]);
    assert!(stdout(&refused).contains("`mtls: disabled`, and it is strict"), "{}", stdout(&refused));

    let passed = fixture.run(&[], &SCENARIOS);
    succeeded(&passed);
    assert!(stdout(&passed).contains("2 scenarios: 2 pass"), "{}", stdout(&passed));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new(), "after a run");

    // Nobody's control plane is broken for a proof.
    let more = ["--fault", "istiod-down", "--fault", "remote-secret-missing"];
    let proved = fixture.meshproof(fixture.ours.path(), &Fixture::args("prove", &more, &SCENARIOS[..1]));
    succeeded(&proved);
    assert!(stdout(&proved).contains("2 not applicable"), "{}", stdout(&proved));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new(), "after a proof");
}

/// Turns the mesh into one as Istio's default profile installs it: permissive mutual TLS, no access log, logs flushed by Envoy's
/// default.
async fn as_by_default(client: &Client) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("security.istio.io", "v1", "PeerAuthentication"));
    let policies: Api<DynamicObject> = Api::namespaced_with(client.clone(), "istio-system", &resource);
    policies.delete("default", &Default::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "istio-system");
    let mesh = maps.get("istio").await.unwrap().data.unwrap().remove("mesh").unwrap();
    let kept = mesh.lines().filter(|line| !line.contains("accessLog") && !line.contains("fileFlushInterval"));
    let patch = json!({ "data": { "mesh": kept.collect::<Vec<_>>().join("\n") } });
    maps.patch("istio", &Default::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_of_istio_s_defaults_needs_no_configuration() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::with_mesh();
    as_by_default(&client(&fixture.kubeconfigs[0]).await).await;
    let before = fixture.objects_at_rest().await;

    // All that proxies report is judged, by a log of the run's own.
    let passed = fixture.run(&[], &SCENARIOS);
    succeeded(&passed);
    let told = stdout(&passed);
    assert!(told.contains("2 scenarios: 2 pass") && told.contains("EnvoyFilter meshproof-access-log"), "{told}");
    assert!(told.contains("mtls permissive"), "{told}");
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new());
}

async fn gone(namespaces: &Api<Namespace>, name: &str) {
    let gone = wait::until(format!("namespace {name} to go"), Duration::from_secs(60), LOOK, || async {
        match namespaces.get_opt(name).await {
            Ok(None) => Poll::Ready(()),
            Ok(Some(_)) => Poll::NotYet("it is still there".into()),
            Err(error) => Poll::Failed(error),
        }
    });
    gone.await.unwrap();
}

const LOOK: Duration = Duration::from_millis(50);

/// Starts a run and kills it as soon as it has made a namespace.
async fn killed_when_there(mut command: Command, namespaces: &Api<Namespace>) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let there = wait::until("the run to make a namespace", Duration::from_secs(60), LOOK, || async {
        match namespaces.get_opt("app1").await {
            Ok(Some(_)) => Poll::Ready(()),
            Ok(None) => Poll::NotYet("namespace app1".into()),
            Err(error) => Poll::Failed(error),
        }
    });
    there.await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_is_installed_for_the_run_goes_with_it() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::bare().await;
    let before = fixture.objects_at_rest().await;
    let none = fixture.run(&[], &SCENARIOS[..1]);
    assert_eq!(none.status.code(), Some(4), "{}", stdout(&none));
    let told = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(told.contains("no control plane") && told.contains("--install-mesh"), "{told}");

    let passed = fixture.run(&["--install-mesh"], &SCENARIOS);
    succeeded(&passed);
    assert!(stdout(&passed).contains("2 scenarios: 2 pass"), "{}", stdout(&passed));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new());
}
