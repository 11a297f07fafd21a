//! Evidence and capsule of a real run: a scenario that fails, on real clusters in network namespaces of this machine.
//!
//! Needs root and the programs of the supply. Without them the test skips locally, with the reason, and fails where `CI` is
//! set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use meshproof::capsule;
use meshproof::evidence;
use meshproof::journal::EnvDir;
use meshproof::project::Project;
use meshproof::provider::ProviderName;
use meshproof::report::{RunReport, ScenarioReport};
use meshproof::run::settings::{Keep, Settings};
use meshproof::run::{Chosen, Selection, Session, reap};
use meshproof::verdict::Class;

/// The rule sends every call to v2, and v1 is expected.
const SCENARIO: &str = "
name: the wrong version is expected
purpose: Fails, so that there is something to keep evidence of.
topology: vpn
workloads:
  - sleep: { cluster: cluster1 }
  - helloworld: { version: v1, cluster: cluster1 }
  - helloworld: { version: v2, cluster: cluster2 }
steps:
  - call: { from: sleep@cluster1, to: \"http://helloworld.app1:5000/hello\", expect: { reached: [v1, v2] } }
  - apply: { cluster: cluster1, file: fixtures/routing/helloworld-v2-only.yaml }
  - call: { from: sleep@cluster1, to: \"http://helloworld.app1:5000/hello\", expect: { only: v1 } }
";

/// Removes the environment when a test fails.
struct Leftovers(PathBuf);

impl Drop for Leftovers {
    fn drop(&mut self) {
        let root = self.0.clone();
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                for entry in std::fs::read_dir(&root).into_iter().flatten().flatten() {
                    if let Ok(Some(env)) = EnvDir::open(&root, &entry.file_name().to_string_lossy()) {
                        reap::remove(env).await.unwrap();
                    }
                }
            });
        });
        let _ = removing.join();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn settings(project: Project, state_root: &Path) -> Settings {
    let (provider, state_root) = (Some(ProviderName::Netns), state_root.to_owned());
    Settings {
        provider,
        keep: Keep::Always,
        state_root,
        ..Settings::new(project, env!("CARGO_BIN_EXE_meshproof").into())
    }
}

/// Runs one scenario and answers the run's folder and report.
async fn run(settings: Settings, chosen: &Chosen) -> (PathBuf, RunReport) {
    let mut session = Session::new(settings).unwrap();
    session.run(chosen).await;
    let ended = session.close(false).await.unwrap();
    (ended.folder, ended.report)
}

/// Every file in a folder and below, by its path in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_type().unwrap().is_file() {
                let name = entry.path().strip_prefix(folder).unwrap().display().to_string();
                files.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

fn base64(bytes: &[u8]) -> String {
    serde_json::to_value(ByteString(bytes.to_vec())).unwrap().as_str().unwrap().to_owned()
}

/// What must not be found of a secret: the middle of its lines, as they are and in base64.
fn needles(name: &str, secret: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(secret);
    let lines = text.split_whitespace().map(str::to_owned).chain([base64(secret)]);
    let middle = |line: String| (line.len() >= 40).then(|| line[line.len() / 2 - 16..line.len() / 2 + 16].to_owned());
    lines.filter(|line| line.is_ascii()).filter_map(middle).map(|needle| (name.to_owned(), needle)).collect()
}

fn is_private(key: &str, value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    key == "token" || text.contains("PRIVATE KEY") || text.contains("\"token\"") || text.contains("token:")
}

/// The private parts of a PEM file that holds certificates too.
fn private_parts(text: &str) -> Vec<String> {
    let part = |begin: &str| {
        let (label, rest) = begin.split_once("-----")?;
        label.ends_with("PRIVATE KEY").then(|| rest.split("-----END").next().unwrap_or_default().to_owned())
    };
    text.split("-----BEGIN ").skip(1).filter_map(part).collect()
}

/// Every private key and token of the environment: in its folder on this machine, and in its clusters.
async fn secrets(environment: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, bytes) in files(environment) {
        for key in private_parts(&String::from_utf8_lossy(&bytes)) {
            all.extend(needles(&name, key.as_bytes()));
        }
        if !name.ends_with(".kubeconfig") {
            continue;
        }
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&String::from_utf8(bytes).unwrap()).unwrap();
        let user = serde_json::to_value(&kubeconfig.auth_infos).unwrap();
        for field in ["client-key-data", "token"] {
            if let Some(secret) = user[0]["user"][field].as_str() {
                all.extend(needles(&format!("{field} of {name}"), secret.as_bytes()));
            }
        }
        // Those of the clusters' own programs are not for this machine's network.
        if name.contains('/') {
            continue;
        }
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        config.proxy_url = None;
        let api: Api<Secret> = Api::all(kube::Client::try_from(config).unwrap());
        for secret in api.list(&ListParams::default()).await.unwrap().items {
            for (key, ByteString(value)) in secret.data.unwrap_or_default() {
                let name = format!("{name}: secret {} key {key}", secret.metadata.name.clone().unwrap_or_default());
                let keys = private_parts(&String::from_utf8_lossy(&value));
                all.extend(keys.iter().flat_map(|private| needles(&name, private.as_bytes())));
                if is_private(&key, &value) {
                    all.extend(needles(&name, &value));
                }
                if let Ok(config) = serde_json::from_slice::<serde_json::Value>(&value)
                    && let Some(token) = config["users"][0]["user"]["token"].as_str()
                {
                    all.extend(needles(&format!("{name}: token"), token.as_bytes()));
                }
            }
        }
    }
    all
}

/// Every part that `docs/evidence.md` promises.
const PROMISED: &[&str] = &[
    "README.md",
    "timeline.txt",
    "scenario.yaml",
    "versions.txt",
    "commands.txt",
    "manifests/step-2-cluster1-2-VirtualService-helloworld.yaml",
    "cluster1/objects/VirtualService.yaml",
    "cluster1/objects/Secret.yaml",
    "cluster1/events.txt",
    "cluster2/events.txt",
    "cluster1/istiod/*/syncz.json",
    "cluster1/istiod/*/clusterz.json",
    "cluster1/istiod/*/endpointz.json",
    "cluster1/istiod/*/log.txt",
    "cluster1/nodes/*.txt",
    "cluster2/nodes/*.txt",
    "cluster1/proxies/sleep-*.app1/before-step-2.helloworld.app1-5000.json",
    "cluster1/proxies/sleep-*.app1/at-the-end.helloworld.app1-5000.json",
    "cluster1/proxies/sleep-*.app1/at-the-end.config_dump.json",
    "cluster2/proxies/helloworld-v2-*.app1/access-log.jsonl",
];

fn assert_whole(bundle: &BTreeMap<String, Vec<u8>>) {
    for promised in PROMISED {
        let (begin, end) = promised.split_once('*').unwrap_or((promised, ""));
        let found = bundle.iter().find(|(name, _)| name.starts_with(begin) && name.ends_with(end));
        assert!(found.is_some_and(|(_, bytes)| !bytes.is_empty()), "{promised} is not in {:#?}", bundle.keys());
    }
    let text = |name: &str| String::from_utf8(bundle[name].clone()).unwrap();
    let readme = text("README.md");
    let first: Vec<&str> = readme.lines().take(5).collect();
    assert!(first[0].starts_with("# FAIL: "), "{readme}");
    assert_eq!(first[2], "- **expected**: only v1 answers, every call");
    assert!(first[3].starts_with("- **observed**: v2 132 of 132 calls"), "{readme}");
    let route = "route 5000 helloworld.app1.svc.cluster.local:5000 prefix / → outbound|5000|";
    assert!(
        readme.contains(&format!("\n- {route}|helloworld")) && readme.contains(&format!("\n+ {route}v2|helloworld")),
        "{readme}"
    );
    assert!(!readme.contains("Not collected"), "{readme}");
    // All ends of the calls, the control plane, and the gate on one time line, in the order of events.
    let timeline = text("timeline.txt");
    let mut from = 0;
    for wanted in [
        "step 1 begins",
        "cluster2 app1/helloworld-v2-",
        "takes a snapshot of 3 proxies before step 2",
        "applies VirtualService app1/helloworld in cluster1",
        "cluster1 istiod",
        "cluster2 gate",
        "step 3 begins",
        "132 calls within",
        "step 3 ends: fail: expected only v1 answers",
    ] {
        let at = timeline[from..].find(wanted);
        from += at.unwrap_or_else(|| panic!("{wanted} is not in its place in\n{timeline}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_run_leaves_evidence_without_secrets_and_can_be_repeated() {
    if std::env::var_os("CI").is_none() && std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_none() {
        eprintln!("skipped: it needs root and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "cannot run: network namespaces need root");
    meshproof::logging::start();
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    let _leftovers = Leftovers(state.clone());
    let (repository, project) = (Path::new(env!("CARGO_MANIFEST_DIR")), root.path().join("project"));
    copy(&repository.join("kind-configs/vpn"), &project.join("kind-configs/vpn"));
    copy(&repository.join("fixtures"), &project.join("fixtures"));
    std::fs::copy(repository.join("versions.yaml"), project.join("versions.yaml")).unwrap();
    let scenario = project.join("scenarios/wrong.yaml");
    std::fs::create_dir_all(scenario.parent().unwrap()).unwrap();
    std::fs::write(&scenario, SCENARIO).unwrap();
    let project = Project::find(&project).unwrap();
    let selection = Selection { files: vec![scenario], ..Selection::default() };
    let chosen = selection.open(&project).unwrap();

    let (folder, report) = run(settings(project.clone(), &state), &chosen[0]).await;
    let scenario: &ScenarioReport = &report.scenarios[0];
    assert_eq!(scenario.class(), Class::Fail, "{scenario:#?}");
    for one in &scenario.evidence {
        assert!(folder.join(&one.path).is_file(), "{one:?}");
    }
    assert!(!scenario.evidence.is_empty());
    let bundle = files(&evidence::folder(&folder, &scenario.name));
    assert_whole(&bundle);

    let environment = state.join(scenario.environment.as_ref().unwrap());
    let secrets = secrets(&environment).await;
    for holder in
        ["secret cacerts key ca-key.pem", "istio-remote-secret-cluster2", "key token", "client-key-data", ".key"]
    {
        assert!(secrets.iter().any(|(name, _)| name.contains(holder)), "{holder} is not among the secrets looked for");
    }
    // Everything that a run leaves, not the bundle alone.
    for (file, bytes) in files(&folder) {
        let text = String::from_utf8_lossy(&bytes);
        for (name, needle) in &secrets {
            assert!(!text.contains(needle.as_str()), "{file} holds {name}");
        }
    }

    // The capsule repeats it without the project, in the environment that was kept.
    let file = root.path().join("run.capsule.tar.gz");
    capsule::pack(&folder, &file).unwrap();
    std::fs::remove_dir_all(project.root()).unwrap();
    let opened = capsule::open(&file).unwrap();
    let project = Project::find(&opened.project()).unwrap().with_runs_in(root.path().join("runs"));
    let (name, path) = opened.scenarios().next().unwrap();
    let plan = meshproof::plan::open(&path, &meshproof::fault::names()).unwrap();
    let (_, again) = run(settings(project, &state), &Chosen { name, plan }).await;
    assert!(again.environments[0].reused);
    let compared = capsule::compare(&opened.recorded.scenarios[0], &again.scenarios[0]);
    assert!(compared.starts_with("as recorded: fail (step 3, only: v2 132 of 132"), "{compared}");
    assert_eq!(capsule::compare_making(&opened.recorded, &again), [""; 0]);
}
