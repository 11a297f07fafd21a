//! The shell steps of `action.yml`, executed as GitHub executes those of a composite action: the release is installed from a
//! server on loopback, scenarios run on netns, and summary, annotations and the artifact's files are there.
//!
//! Needs root and the programs of the supply. Without them the test skips locally, with the reason, and fails where `CI` is set.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Action {
    inputs: BTreeMap<String, Input>,
    runs: Runs,
}

#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    default: String,
}

#[derive(Deserialize)]
struct Runs {
    using: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    name: String,
    run: Option<String>,
    shell: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    with: BTreeMap<String, String>,
}

/// What GitHub would put in place of `${{ inputs.x }}` and `${{ runner.temp }}`.
struct Context {
    inputs: BTreeMap<String, String>,
    temp: String,
}

impl Context {
    fn expand(&self, text: &str) -> String {
        let mut parts = text.split("${{");
        let mut expanded = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (expression, rest) = part.split_once("}}").expect("an expression that ends");
            expanded += match expression.trim() {
                "runner.temp" => &self.temp,
                other => {
                    let name = other.strip_prefix("inputs.").unwrap_or_else(|| panic!("expression {other}"));
                    self.inputs.get(name).unwrap_or_else(|| panic!("the action has no input {name}"))
                }
            };
            expanded += rest;
        }
        expanded
    }
}

/// Packs the binary under test as a release, and serves it.
async fn releases() -> String {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let packed =
        Command::new(own.join(".github/package")).args([&target, env!("CARGO_BIN_EXE_meshproof")]).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let name = format!("meshproof-{target}.tar.gz");
    let archive = fs::read(own.join("target/dist").join(&name)).unwrap();
    let sums = format!("{}  {name}\n", hex::encode(Sha256::digest(&archive)));
    let files = BTreeMap::from([(name, archive), ("SHA256SUMS".to_owned(), sums.into_bytes())]);
    let serve = |State(files): State<BTreeMap<String, Vec<u8>>>, UrlPath(file): UrlPath<String>| async move {
        files.get(&file).cloned().ok_or(StatusCode::NOT_FOUND)
    };
    let router = Router::new().route("/latest/download/{file}", get(serve)).with_state(files);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_the_action_install_run_and_report() {
    if std::env::var_os("CI").is_none() && std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_none() {
        eprintln!("skipped: it needs root and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
        return;
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let action: Action = serde_saphyr::from_str(&fs::read_to_string(own.join("action.yml")).unwrap()).unwrap();
    assert_eq!(action.runs.using, "composite");
    let temp = tempfile::tempdir().unwrap();
    let file = |name: &str| temp.path().join(name);
    let mut inputs: BTreeMap<String, String> = action.inputs.into_iter().map(|(name, i)| (name, i.default)).collect();
    let given = [
        ("scenarios", "scenarios/vpn/both_versions.yaml tests/fails/instances.yaml".to_owned()),
        ("provider", "netns".to_owned()),
    ];
    for (name, value) in given {
        *inputs.get_mut(name).unwrap_or_else(|| panic!("no input {name}")) = value;
    }
    let context = Context { inputs, temp: temp.path().display().to_string() };
    let releases = releases().await;

    let mut ran: BTreeMap<String, Output> = BTreeMap::new();
    for step in action.runs.steps.iter().filter(|step| step.run.is_some()) {
        assert_eq!(step.shell.as_deref(), Some("bash"), "{}", step.name);
        fs::write(file("step"), context.expand(step.run.as_deref().unwrap_or_default())).unwrap();
        let added = fs::read_to_string(file("path")).unwrap_or_default();
        let path = added.lines().rev().chain([std::env::var("PATH").unwrap().as_str()]).collect::<Vec<_>>().join(":");
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-e", "-o", "pipefail"]).arg(file("step")).current_dir(own);
        command.envs(step.env.iter().map(|(name, value)| (name, context.expand(value))));
        command.env("PATH", path).env("GITHUB_ACTIONS", "true").env("GITHUB_ACTION_PATH", own);
        command.env("GITHUB_PATH", file("path")).env("GITHUB_STEP_SUMMARY", file("summary"));
        command.env("MESHPROOF_RELEASES", &releases).env("XDG_STATE_HOME", file("state"));
        ran.insert(step.name.clone(), command.output().unwrap());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for (name, output) in &ran {
        let expected = if name == "Run the scenarios" { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{name}: {}", text(&output.stderr));
    }
    assert!(text(&ran["Install meshproof"].stdout).contains("installed meshproof "));
    let printed = text(&ran["Run the scenarios"].stdout);
    assert!(printed.contains("2 scenarios: 1 pass, 1 fail"), "{printed}");
    assert!(printed.lines().any(|line| line.starts_with("::error file=tests/fails/instances.yaml,line=")), "{printed}");
    let summary = fs::read_to_string(file("summary")).unwrap();
    assert!(summary.contains("tests/fails/instances.yaml") || summary.contains("instances"), "{summary}");

    // The artifact: one of its folders is where the reports are.
    let upload = action.runs.steps.iter().find(|step| step.with.contains_key("if-no-files-found")).unwrap();
    let folders: Vec<String> = context.expand(&upload.with["path"]).lines().map(str::to_owned).collect();
    let reports = printed.lines().find_map(|line| line.strip_prefix("reports: ")).unwrap();
    let kept = folders.iter().any(|folder| Path::new(reports).starts_with(own.join(folder)));
    assert!(kept && Path::new(reports).join("junit.xml").is_file(), "{reports} is in none of {folders:?}");
}
