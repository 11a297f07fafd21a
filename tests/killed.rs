//! `kill -9` at any moment leaks nothing once the next command has run.
//!
//! `MESHPROOF_TEST_KILLS` says how often (default 3), `MESHPROOF_TEST_SEED` repeats the moments of an earlier run.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use meshproof::provider::netns::namespace;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn variable(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

/// The scenario that whole runs are made of.
const WHOLE: &str = "scenarios/vpn/both_versions.yaml";

/// One scenario of each other topology.
const OTHERS: &[&str] = &[
    "scenarios/multi-primary/rule_per_primary.yaml",
    "scenarios/multi-primary-multi-network/across_gateways.yaml",
    "scenarios/primary-remote-multi-network/across_gateways.yaml",
    "scenarios/mixed/flat_and_gateway.yaml",
    "scenarios/locality/failover.yaml",
    "scenarios/external-control-plane/rule_in_the_config_cluster.yaml",
    "scenarios/federation/only_what_is_exported.yaml",
    "scenarios/federation-one-root/only_what_is_exported.yaml",
    "scenarios/virtual-machine/joins_by_itself.yaml",
    "scenarios/vpn3/two_remotes.yaml",
];

/// A run of one scenario that keeps its state and its temporary files under `root`.
fn run(root: &Path, scenario: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshproof"));
    command.args(["run", "--provider", "netns", scenario]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.env("XDG_STATE_HOME", root.join("state")).env("TMPDIR", root.join("tmp"));
    command
}

/// A whole run, which must pass: how long it took, and the environment that it made.
fn green(root: &Path) -> (Duration, String) {
    let started = Instant::now();
    let output = run(root, WHOLE).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let id = printed.lines().find_map(|line| line.strip_prefix("environment ")?.split(' ').next()).unwrap();
    (started.elapsed(), id.to_owned())
}

/// The environments that are there: their folders carry their names.
fn environments(root: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(root.join("state/meshproof")).into_iter().flatten().flatten();
    folders.map(|folder| folder.file_name().into_string().unwrap()).collect()
}

fn lines(program: &str, args: &[&str]) -> Vec<String> {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Comments of iptables-save hold the time, and chains their counters.
    let kept = text.lines().filter(|line| !line.starts_with('#'));
    kept.map(|line| format!("{program}: {}", line.split(" [").next().unwrap_or(line))).collect()
}

/// What these environments could have left on this machine: namespaces, links, firewall rules, mounts, processes and files.
fn traces(root: &Path, ids: &BTreeSet<String>) -> BTreeSet<String> {
    let names = ids.iter().flat_map(|id| namespace::names(&format!("mp-{id}-")));
    let mut found: BTreeSet<String> = names.map(|name| format!("netns {name}")).collect();
    let links = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    found.extend(links.map(|link| format!("link {}", link.file_name().to_string_lossy())));
    found.extend(lines("iptables-save", &[]));
    let folder = root.to_string_lossy();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_ours = |line: &str| ids.iter().any(|id| line.contains(&format!("/netns/mp-{id}-")));
    let ours = mounts.lines().filter(|line| line.contains(&*folder) || of_ours(line));
    found.extend(ours.map(|line| format!("mount {line}")));
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        // Empty for zombies: they only wait for their parent to look.
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*folder) {
            found.insert(format!("process {line}"));
        }
    }
    for kind in ["state/meshproof", "tmp"] {
        let files = std::fs::read_dir(root.join(kind)).into_iter().flatten().flatten();
        found.extend(files.map(|file| format!("file {}", file.path().display())));
    }
    found
}

fn kill(mut run: Command, moment: Duration) {
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The folder of a test's runs; `None`: the test is skipped.
fn folder() -> Option<tempfile::TempDir> {
    if std::env::var_os("CI").is_none() && std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_none() {
        eprintln!("skipped: it needs root and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("tmp")).unwrap();
    Some(root)
}

/// Each run removes what the one before left, in another topology; a last one removes what the last of them left.
#[test]
fn killed_in_each_topology_it_leaks_nothing_once_the_next_run_is_over() {
    let Some(root) = folder() else { return };
    let before = traces(root.path(), &BTreeSet::new());
    let seed = variable("MESHPROOF_TEST_SEED").unwrap_or_else(|| rand::rng().random());
    eprintln!("MESHPROOF_TEST_SEED={seed}");
    let mut moments = StdRng::seed_from_u64(seed);
    let mut ids = BTreeSet::new();
    for scenario in OTHERS {
        // From the first processes of a control plane to the calls of the scenario.
        let moment = moments.random_range(Duration::from_secs(4)..Duration::from_secs(20));
        kill(run(root.path(), scenario), moment);
        let left = environments(root.path());
        eprintln!("{scenario} killed after {moment:.1?}: {left:?}");
        ids.extend(left);
    }
    assert!(ids.len() > 1, "no kill came while there was something to leak; seed {seed}");
    ids.insert(green(root.path()).1);
    let after: Vec<String> = traces(root.path(), &ids).difference(&before).cloned().collect();
    assert_eq!(after, Vec::<String>::new(), "seed {seed}");
}

#[test]
fn killed_at_any_moment_it_leaks_nothing_once_the_next_run_is_over() {
    let Some(root) = folder() else { return };
    let before = traces(root.path(), &BTreeSet::new());
    let (whole, first) = green(root.path());
    let mut ids = BTreeSet::from([first]);
    let seed = variable("MESHPROOF_TEST_SEED").unwrap_or_else(|| rand::rng().random());
    eprintln!("a whole run takes {whole:.1?}; MESHPROOF_TEST_SEED={seed}");
    let mut moments = StdRng::seed_from_u64(seed);
    let mut left_something = 0;
    for _ in 0..variable("MESHPROOF_TEST_KILLS").unwrap_or(3) {
        let moment = moments.random_range(Duration::ZERO..whole);
        kill(run(root.path(), WHOLE), moment);
        ids.extend(environments(root.path()));
        let left = traces(root.path(), &ids).difference(&before).count();
        eprintln!("killed after {moment:.1?}: {left} traces");
        left_something += usize::from(left > 0);
    }
    assert!(left_something > 0, "no kill came while there was something to leak; seed {seed}");
    ids.insert(green(root.path()).1);
    let after: Vec<String> = traces(root.path(), &ids).difference(&before).cloned().collect();
    assert_eq!(after, Vec::<String>::new(), "seed {seed}");
}
