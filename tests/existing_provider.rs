//! Clusters that the run did not create: those of a netns environment represent a user's.
//!
//! Needs root and the programs of the supply. Without them the tests skip locally, with the reason, and fail
//! where `CI` is set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PostParams};
use kube::config::{AuthInfo, Context, KubeConfigOptions, Kubeconfig, NamedCluster, NamedContext};
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

/// A kubeconfig beside the clusters' own, for a ServiceAccount that has what `meshproof role` prints (`None`: nothing).
fn account(fixture: &Fixture, name: &str, role: Option<&[&str]>) -> Vec<PathBuf> {
    let to = format!("serviceaccount:default/{name}");
    let role = role.map(|more| {
        let printed = fixture.meshproof(fixture.ours.path(), &[&["role", "--to", &to], more].concat());
        succeeded(&printed);
        stdout(&printed)
    });
    let each = fixture.kubeconfigs.iter().zip(1..).map(|(kubeconfig, number)| {
        let kubectl = |args: &[&str], input: &str| {
            let mut child = Command::new("kubectl")
                .arg("--kubeconfig")
                .arg(kubeconfig)
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            succeeded(&output);
            stdout(&output)
        };
        kubectl(&["-n", "default", "create", "serviceaccount", name], "");
        if let Some(role) = &role {
            kubectl(&["apply", "-f", "-"], role);
        }
        let token = kubectl(&["-n", "default", "create", "token", name], "");
        let mut config = Kubeconfig::read_from(kubeconfig).unwrap();
        config.auth_infos[0].auth_info =
            Some(AuthInfo { token: Some(token.trim().to_owned().into()), ..<_>::default() });
        config.auth_infos[0].name = name.into();
        config.contexts[0].name = format!("{name}{number}");
        config.contexts[0].context.as_mut().unwrap().user = Some(name.into());
        let path = kubeconfig.with_file_name(format!("{name}{number}.kubeconfig"));
        std::fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
        path
    });
    each.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_mesh_is_checked_by_a_user_who_may_only_read() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::with_mesh();
    let theirs = fixture.theirs.path();
    succeeded(&fixture.meshproof(theirs, &["run", "--provider", "netns", "--keep", SCENARIOS[0]]));
    let kubeconfigs = [&account(&fixture, "reader", Some(&[])), &account(&fixture, "nobody", None)[..]].concat();
    let before = fixture.objects_at_rest().await;
    let run = |args: &[&str]| {
        let mut command = fixture.command(fixture.ours.path(), args);
        let all = fixture.kubeconfigs.iter().chain(&kubeconfigs);
        command.env("KUBECONFIG", std::env::join_paths(all).unwrap()).output().unwrap()
    };
    let check = |contexts: &[&str]| {
        let contexts: Vec<&str> = contexts.iter().flat_map(|context| ["--context", *context]).collect();
        run(&[&["check"], &contexts[..]].concat())
    };
    let holds = |checked: &Output, what: &str| {
        succeeded(checked);
        assert!(stdout(checked).contains("0 broken") && stdout(checked).contains(what), "{}", stdout(checked));
    };
    holds(&check(&["cluster1", "cluster2"]), "10 checks: 0 broken, 0 not checked");
    holds(&check(&["reader1", "reader2"]), "10 checks: 0 broken, 4 not checked");
    let nobody = check(&["nobody1", "nobody2"]);
    assert_eq!(nobody.status.code(), Some(3), "{}", stdout(&nobody));
    assert!(stdout(&nobody).contains("`meshproof role` prints the rights"), "{}", stdout(&nobody));
    let unknown = check(&["cluster1", "cluster9"]);
    assert_eq!(unknown.status.code(), Some(4), "{}", stdout(&unknown));

    // `why` with the same role: all rungs but those that need `exec`.
    let contexts = ["--context", "cluster1=reader1", "--context", "cluster2=reader2"];
    let why = run(&[&["why", "sleep@cluster1", "http://helloworld.app1:5000/hello"], &contexts[..]].concat());
    assert_eq!(why.status.code(), Some(3), "{}", stdout(&why));
    let told = stdout(&why);
    assert!(!told.contains('✗') && told.contains("mutual TLS at both ends"), "{told}");
    for rung in ["clusters synced", "one root of trust", "endpoints in the caller", "mutual TLS at both"] {
        assert!(told.lines().any(|line| line.starts_with('✓') && line.contains(rung)), "{rung}: {told}");
    }
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new(), "something was written");

    // Many contexts, as of a large mesh: asked at the same time.
    let many = fixture.theirs.path().join("many");
    std::fs::write(&many, serde_json::to_string(&of_fifty(&fixture.kubeconfigs)).unwrap()).unwrap();
    let names: Vec<String> = (0..50).map(|number| format!("c{number}")).collect();
    let contexts = names.iter().flat_map(|name| ["--context", name.as_str()]);
    let started = std::time::Instant::now();
    let checked =
        run(&["check", "--kubeconfig", many.to_str().unwrap()].into_iter().chain(contexts).collect::<Vec<_>>());
    holds(&checked, "50 clusters, ");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let dead = run(&["check", "--kubeconfig", many.to_str().unwrap(), "--context", "c0", "--context", "dead"]);
    assert_eq!(dead.status.code(), Some(1), "{}", stdout(&dead));
    assert!(stdout(&dead).contains("expected: the API server of dead responds"), "{}", stdout(&dead));

    // What is broken is found by either user.
    succeeded(&fixture.meshproof(theirs, &["fault", "inject", "remote-secret-missing", "--cluster", "cluster2"]));
    for (contexts, rung) in
        [(["cluster1", "cluster2"], "✗ remote secrets"), (["reader1", "reader2"], "✗ clusters synced")]
    {
        let broken = check(&contexts);
        assert_eq!(broken.status.code(), Some(1), "{}", stdout(&broken));
        assert!(
            stdout(&broken).contains(rung) && stdout(&broken).contains("cluster1 → cluster2"),
            "{}",
            stdout(&broken)
        );
    }
}

/// Fifty contexts of the same clusters in turn, and one of a cluster that does not respond.
fn of_fifty(kubeconfigs: &[PathBuf]) -> Kubeconfig {
    let read: Vec<Kubeconfig> = kubeconfigs.iter().map(|path| Kubeconfig::read_from(path).unwrap()).collect();
    let mut all = Kubeconfig::default();
    for number in 0..50 {
        let (mut one, name) = (read[number % read.len()].clone(), format!("c{number}"));
        one.clusters[0].name.clone_from(&name);
        one.auth_infos[0].name.clone_from(&name);
        let context = Context { cluster: name.clone(), user: Some(name.clone()), ..<_>::default() };
        all.contexts.push(NamedContext { name, context: Some(context), ..<_>::default() });
        all.clusters.append(&mut one.clusters);
        all.auth_infos.append(&mut one.auth_infos);
    }
    let server = kube::config::Cluster { server: Some("https://127.0.0.1:9".into()), ..<_>::default() };
    all.clusters.push(NamedCluster { name: "dead".into(), cluster: Some(server), ..<_>::default() });
    let context = Context { cluster: "dead".into(), user: Some("c0".into()), ..<_>::default() };
    all.contexts.push(NamedContext { name: "dead".into(), context: Some(context), ..<_>::default() });
    all
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
