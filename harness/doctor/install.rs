//! Missing packages of the operating system, and the command that installs them.

use std::path::Path;

use crate::finding::Finding;
use crate::tool::{Tool, ToolError};

/// A program that the harness runs, and the Debian package that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// The program.
    pub program: &'static str,
    /// The package.
    pub package: &'static str,
    /// What it is for.
    pub what_for: &'static str,
}

const fn needed(program: &'static str, package: &'static str, what_for: &'static str) -> Needed {
    Needed { program, package, what_for }
}

/// What the netns provider runs.
pub const FOR_NETNS: &[Needed] = &[
    needed("ip", "iproute2", "network namespaces and links"),
    needed("iptables", "iptables", "the sidecars' interception rules, inside the pods' namespaces"),
    needed("conntrack", "conntrack", "kube-proxy removes connections to endpoints that no longer exist"),
    needed("curl", "curl", "the client in the sleep workload"),
    needed("nsenter", "util-linux", "entering a pod's namespaces"),
];

/// What a scenario with `mesh: { tracing: zipkin }` runs.
pub const FOR_TRACING: &[Needed] = &[
    needed("java", "openjdk-17-jre-headless", "the Zipkin server on netns"),
    needed("mvn", "maven", "downloading the Zipkin server, once"),
];

/// What the kind provider runs.
pub const FOR_KIND: &[Needed] = &[needed("docker", "docker.io", "the container engine")];

/// What building a node image from packages runs.
pub const FOR_NODE_IMAGE: &[Needed] =
    &[needed("debootstrap", "debootstrap", "the base of a node image built from packages")];

/// Of `needed`, what is not on PATH.
pub fn missing(needed: &[Needed]) -> Vec<Needed> {
    needed.iter().copied().filter(|n| !on_path(n.program)).collect()
}

pub(super) fn on_path(program: &str) -> bool {
    // Root's PATH may lack the sbin folders under sudo; the tools below live there.
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let with_sbin = std::env::split_paths(&dirs).chain(["/usr/sbin".into(), "/sbin".into()]);
    with_sbin.into_iter().any(|dir| Path::new(&dir).join(program).is_file())
}

/// One finding about the programs of one provider.
pub fn programs(subject: &str, needed: &[Needed]) -> Finding {
    let missing = missing(needed);
    if missing.is_empty() {
        let names: Vec<&str> = needed.iter().map(|n| n.program).collect();
        return Finding::good(subject, names.join(", "));
    }
    let found: Vec<String> = missing.iter().map(|n| format!("{} is missing ({})", n.program, n.what_for)).collect();
    Finding::bad(subject, found.join("; "), "the provider needs them", "meshproof doctor --install".to_string())
}

/// The commands that install what is missing, as they will be run. Debian and its kin only.
pub fn commands(missing: &[Needed]) -> Vec<Tool> {
    if missing.is_empty() {
        return Vec::new();
    }
    let mut packages: Vec<&str> = missing.iter().map(|n| n.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let update = Tool::new("apt-get").args(["update", "--quiet"]);
    let install = Tool::new("apt-get")
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    vec![update, install]
}

/// Shows each command, then runs it.
///
/// # Errors
/// When one fails; those after it are not run.
pub async fn run(commands: Vec<Tool>) -> Result<(), ToolError> {
    for command in &commands {
        crate::ui::say(format!("this will be run: {}", command.command_line()));
    }
    for command in commands {
        let task = crate::ui::begin(command.command_line(), None);
        command.run().await?;
        task.done();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONSENSE: Needed = needed("no-such-program-at-all", "nonsense", "nothing");

    #[test]
    fn a_missing_program_names_its_purpose_and_what_fixes_it() {
        let finding = programs("programs", &[NONSENSE]);
        assert!(finding.found.contains("no-such-program-at-all is missing (nothing)"), "{finding:?}");
        assert_eq!(finding.fix, "meshproof doctor --install");
    }

    #[test]
    fn packages_are_installed_once_each_after_an_update() {
        let commands: Vec<String> = commands(&[NONSENSE, NONSENSE]).iter().map(Tool::command_line).collect();
        assert_eq!(
            commands,
            ["apt-get update --quiet", "apt-get install --yes --quiet --no-install-recommends nonsense"]
        );
        assert!(super::commands(&[]).is_empty());
    }
}
