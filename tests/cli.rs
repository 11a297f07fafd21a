//! What people read when they make a mistake: the command's words, its exit code, and that nothing was begun.
//!
//! Each case in `tests/cli/` is a folder with files (`NAME.in`) and what was typed there, with what came back
//! (`NAME.trycmd`). `TRYCMD=overwrite cargo test --test cli` writes down what comes back now; read the difference.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_meshproof");

#[test]
fn mistakes_are_reported_with_their_place_and_the_next_step() {
    let state = tempfile::tempdir().unwrap();
    let cases = trycmd::TestCases::new();
    cases.case("tests/cli/*.trycmd");
    // No engine and no state of anybody's.
    cases.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    cases.env("XDG_STATE_HOME", state.path().display().to_string());
    cases.env("KUBECONFIG", "/nonexistent/kubeconfig");
    cases.env("NO_COLOR", "1");
    cases.run();
    nothing_begun(state.path());
}

fn nothing_begun(state: &Path) {
    let begun: Vec<_> = std::fs::read_dir(state.join("meshproof")).into_iter().flatten().flatten().collect();
    assert!(begun.is_empty(), "{begun:?}");
}

/// Runs `meshproof run ARGS` in a project of its own, after `change`; it must begin nothing. Answers what it said.
fn refused(args: &[&str], environment: (&str, &str), as_nobody: bool, change: impl Fn(&Path)) -> String {
    let (state, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let project = folder.path().join("project");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/machine.in"), &project);
    change(&project);
    let mut command = Command::new(BINARY);
    if as_nobody && nix::unistd::geteuid().is_root() {
        // The binary and the project where every user can read them. Copied by another process: a test beside this one that
        // starts a program while a file is open here for writing would hand it on, and it could not be run ("text file busy").
        let binary = folder.path().join("meshproof");
        assert!(Command::new("cp").arg(BINARY).arg(&binary).status().unwrap().success());
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        command = Command::new(binary);
        command.uid(65534).gid(65534);
    }
    command.arg("run").args(args).arg("scenario.yaml").current_dir(&project);
    command.env("XDG_STATE_HOME", state.path()).env(environment.0, environment.1);
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{printed}");
    assert!(output.stdout.is_empty(), "standard output is for results");
    nothing_begun(state.path());
    assert!(!project.join("target").exists(), "there is nothing to report");
    printed
}

/// Replaces a text in a file that holds it.
fn replace(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{} has no {from}", file.display());
    std::fs::write(file, text.replace(from, to)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

const NOTHING: fn(&Path) = |_| {};

#[test]
fn an_engine_that_does_not_answer_is_reported_first() {
    let dead = ("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let printed = refused(&["--provider", "kind"], dead, false, NOTHING);
    let both = ["the container engine does not respond", "docker is missing"];
    assert!(both.iter().any(|what| printed.contains(what)) && printed.contains("help: "), "{printed}");
}

#[test]
fn netns_without_roots_rights_is_reported_first() {
    let printed = refused(&["--provider", "netns"], ("HOME", "/nonexistent"), true, NOTHING);
    assert!(printed.contains("rights: user ") && printed.contains("run the same command with sudo"), "{printed}");
}

#[test]
fn a_pair_that_istio_does_not_support_is_reported_at_its_place() {
    let printed = refused(&["--provider", "netns"], ("HOME", "/nonexistent"), false, |project| {
        replace(&project.join("versions.yaml"), "  kubernetes-minor: \"", "  kubernetes-minor: \"9");
        replace(&project.join("versions.yaml"), "\n  kubernetes: [v1.", "\n  kubernetes: [v1.9");
    });
    assert_eq!(printed.matches("does not support Kubernetes").count(), 2, "{printed}");
    assert!(printed.contains("[versions.yaml:") && printed.contains("help: `support` in this file"), "{printed}");
}

#[test]
fn a_port_that_is_in_use_is_reported_first() {
    // It is asked before the ports are looked at.
    if !Command::new("docker").arg("version").output().is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: no container engine answers");
        return;
    }
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let printed = refused(&["--provider", "kind"], ("HOME", "/nonexistent"), false, |project| {
        let mapping = format!("  - extraPortMappings: [{{ containerPort: 80, hostPort: {port} }}]");
        replace(&project.join("kind-configs/vpn/cluster2.yaml"), "  - role: control-plane", &mapping);
    });
    assert!(printed.contains(&format!("port {port} of this machine is in use")), "{printed}");
    assert!(printed.contains("[kind-configs/vpn/cluster2.yaml:10:"), "{printed}");
}
