//! Somebody's clusters, and runs on them.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use kube::api::{Api, DynamicObject, ListParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::discovery::{Discovery, verbs};
use kube::{Client, Config, ResourceExt};
use meshproof::journal::EnvDir;
use meshproof::provider::netns::{self, Programs};
use meshproof::supply::{self, Overrides, Purpose, Source, Versions};
use meshproof::topology::Topology;
use meshproof::wait::{self, Poll};
use tempfile::TempDir;

pub const SCENARIOS: [&str; 2] = ["scenarios/vpn/both_versions.yaml", "scenarios/vpn/v2_only.yaml"];

pub fn wanted() -> bool {
    let wanted = std::env::var_os("CI").is_some() || std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_some();
    if !wanted {
        eprintln!("skipped: it needs root and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
    }
    wanted
}

/// Somebody's clusters, in a state folder of their own, and the state folder of the runs that are tested.
pub struct Fixture {
    pub theirs: TempDir,
    pub ours: TempDir,
    pub kubeconfigs: Vec<PathBuf>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.meshproof(self.ours.path(), &["down", "--all"]);
        let _ = self.meshproof(self.theirs.path(), &["down", "--all"]);
    }
}

impl Fixture {
    /// With a mesh, as `meshproof up` leaves it.
    pub fn with_mesh() -> Self {
        Self::with_mesh_of("vpn")
    }

    /// With a mesh of that topology.
    pub fn with_mesh_of(topology: &str) -> Self {
        let mut fixture = Self::empty();
        succeeded(&fixture.meshproof(fixture.theirs.path(), &["up", "--provider", "netns", "--topology", topology]));
        let printed = fixture.meshproof(fixture.theirs.path(), &["env"]);
        let printed = String::from_utf8(printed.stdout).unwrap();
        let line = printed.lines().find_map(|l| l.strip_prefix("export KUBECONFIG=")).unwrap();
        fixture.kubeconfigs = line.trim_matches('\'').split(':').map(PathBuf::from).collect();
        fixture
    }

    /// Without a mesh.
    pub async fn bare() -> Self {
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

    pub fn empty() -> Self {
        let folder = || tempfile::tempdir().unwrap();
        Self { theirs: folder(), ours: folder(), kubeconfigs: Vec::new() }
    }

    pub fn command(&self, state: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshproof"));
        command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_STATE_HOME", state);
        command.env("KUBECONFIG", std::env::join_paths(&self.kubeconfigs).unwrap());
        command
    }

    pub fn meshproof(&self, state: &Path, args: &[&str]) -> Output {
        self.command(state, args).output().unwrap()
    }

    pub fn run_args<'a>(more: &[&'a str], files: &[&'a str]) -> Vec<&'a str> {
        Self::args("run", more, files)
    }

    pub fn args<'a>(command: &'a str, more: &[&'a str], files: &[&'a str]) -> Vec<&'a str> {
        let contexts = ["--context", "cluster1=cluster1", "--context", "cluster2=cluster2"];
        [&[command, "--provider", "existing"], &contexts[..], more, files].concat()
    }

    /// Runs scenarios on the clusters.
    pub fn run(&self, more: &[&str], files: &[&str]) -> Output {
        self.meshproof(self.ours.path(), &Self::run_args(more, files))
    }

    /// A kubeconfig beside the clusters' own, for a ServiceAccount to which the manifest `role` gives rights (`None`: it has none).
    pub fn account(&self, name: &str, role: Option<&str>) -> Vec<PathBuf> {
        let each = self.kubeconfigs.iter().zip(1..).map(|(kubeconfig, number)| {
            kubectl(kubeconfig, &["-n", "default", "create", "serviceaccount", name], "");
            if let Some(role) = role {
                kubectl(kubeconfig, &["apply", "-f", "-"], role);
            }
            let token = kubectl(kubeconfig, &["-n", "default", "create", "token", name], "");
            let mut config = Kubeconfig::read_from(kubeconfig).unwrap();
            config.auth_infos[0].auth_info =
                Some(AuthInfo { token: Some(token.trim().to_owned().into()), ..<_>::default() });
            config.auth_infos[0].name = format!("{name}{number}");
            config.contexts[0].name = format!("{name}{number}");
            config.contexts[0].context.as_mut().unwrap().user = Some(format!("{name}{number}"));
            let path = kubeconfig.with_file_name(format!("{name}{number}.kubeconfig"));
            std::fs::write(&path, serde_json::to_string(&config).unwrap()).unwrap();
            path
        });
        each.collect()
    }

    /// Everything in the clusters that lasts, by name, with its resource version: any write changes it.
    pub async fn objects(&self) -> BTreeSet<String> {
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
    pub async fn objects_at_rest(&self) -> BTreeSet<String> {
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

/// What `kubectl` prints.
fn kubectl(kubeconfig: &Path, args: &[&str], input: &str) -> String {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    succeeded(&output);
    stdout(&output)
}

/// The resource version of an object; nothing where it is written without anybody's doing: nodes report that they are alive,
/// autoscalers write what they measure, and who leads renews that.
fn version(kind: &str, object: &DynamicObject) -> String {
    let leads = object.annotations().contains_key("control-plane.alpha.kubernetes.io/leader");
    if ["Node", "HorizontalPodAutoscaler"].contains(&kind) || leads {
        String::new()
    } else {
        object.resource_version().unwrap_or_default()
    }
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

pub async fn client(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

pub fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}\n{}", stdout(output), String::from_utf8_lossy(&output.stderr));
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `after` against `before`, for a message that people can read.
pub fn differences(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let gone = before.difference(after).map(|o| format!("gone: {o}"));
    gone.chain(after.difference(before).map(|o| format!("left: {o}"))).collect()
}
