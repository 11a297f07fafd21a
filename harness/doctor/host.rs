//! The machine itself: cores, memory, disk, inotify, cgroups.

use std::path::Path;

use crate::finding::Finding;
use crate::provider::ProviderName;

/// What two clusters of one node, with the mesh, need (measured: 3.1 GiB on kind, 1.6 GiB on netns).
const MEMORY_GIB_KIND: f64 = 4.0;
const MEMORY_GIB_NETNS: f64 = 2.0;

/// Go build cache, node image and containers of a run from packages (measured: 4.5 GB + 3 GB).
const DISK_GIB: f64 = 12.0;
/// Environments, logs and reports, when the supply is there.
const DISK_GIB_SUPPLIED: f64 = 2.0;

/// kind's "pod errors due to too many open files" page names these values for several clusters.
const INOTIFY_INSTANCES: u64 = 512;
const INOTIFY_WATCHES: u64 = 524_288;

/// Cores and memory.
pub fn capacity(provider: ProviderName) -> Vec<Finding> {
    let needed = if provider == ProviderName::Netns { MEMORY_GIB_NETNS } else { MEMORY_GIB_KIND };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_gib(&text));
    let mut findings = vec![if cores >= 2 {
        Finding::good("cores", format!("{cores}"))
    } else {
        Finding::warning(
            "cores",
            format!("{cores}"),
            "two clusters on one core take twice as long",
            "use a machine with 2 cores or more",
        )
    }];
    findings.push(match memory {
        Some(gib) if gib >= needed => Finding::good("free memory", format!("{gib:.1} GiB")),
        Some(gib) => Finding::bad(
            "free memory",
            format!("{gib:.1} GiB"),
            format!("two clusters with a mesh need {needed} GiB"),
            "stop other programs, or give the virtual machine more memory",
        ),
        None => Finding::warning(
            "free memory",
            "unknown (/proc/meminfo cannot be read)",
            format!("{needed} GiB are needed"),
            "",
        ),
    });
    findings
}

fn available_gib(meminfo: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0 / 1024.0)
}

/// Free disk space where the supply is kept; less is needed once it is there.
pub fn disk(folder: &Path, supplied: bool) -> Finding {
    let (needed, what) = if supplied {
        (DISK_GIB_SUPPLIED, "logs and environments")
    } else {
        (DISK_GIB, "a supply built from packages and two clusters")
    };
    let existing = folder.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(existing) {
        Ok(stat) => {
            let gib = stat.blocks_available() as f64 * stat.fragment_size() as f64 / f64::from(1u32 << 30);
            let found = format!("{gib:.0} GiB at {}", existing.display());
            if gib >= needed {
                Finding::good("free disk", found)
            } else {
                Finding::bad(
                    "free disk",
                    found,
                    format!("{what} need {needed} GiB"),
                    "free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
                )
            }
        }
        Err(error) => {
            Finding::warning("free disk", format!("unknown ({error})"), format!("{needed} GiB are needed"), "")
        }
    }
}

/// inotify limits: every kubelet and containerd uses several.
pub fn inotify() -> Finding {
    let read = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse().ok()
    };
    inotify_finding(read("max_user_instances"), read("max_user_watches"))
}

fn inotify_finding(instances: Option<u64>, watches: Option<u64>) -> Finding {
    let (Some(instances), Some(watches)) = (instances, watches) else {
        return Finding::good("inotify limits", "not on this system");
    };
    let found = format!("{instances} instances, {watches} watches");
    if instances >= INOTIFY_INSTANCES && watches >= INOTIFY_WATCHES {
        return Finding::good("inotify limits", found);
    }
    Finding::warning(
        "inotify limits",
        found,
        "a second kind cluster may fail with \"too many open files\"",
        format!(
            "sudo sysctl fs.inotify.max_user_instances={INOTIFY_INSTANCES} fs.inotify.max_user_watches={INOTIFY_WATCHES}"
        ),
    )
}

/// The cgroup version against the Kubernetes version: the kubelet of 1.35 and newer refuses
/// cgroup v1 unless configured otherwise (`failCgroupV1: false`).
pub fn cgroup(kubernetes_minor: u32) -> Finding {
    cgroup_finding(Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), kubernetes_minor)
}

fn cgroup_finding(v2: bool, kubernetes_minor: u32) -> Finding {
    match (v2, kubernetes_minor) {
        (true, _) => Finding::good("cgroups", "version 2"),
        (false, minor) if minor <= 34 => {
            Finding::good("cgroups", format!("version 1, which Kubernetes 1.{minor} still supports"))
        }
        (false, minor) => Finding::warning(
            "cgroups",
            format!("version 1, with Kubernetes 1.{minor}"),
            "the kubelet of 1.35 and newer starts there only with `failCgroupV1: false`, which the kind provider sets",
            "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or pin Kubernetes 1.34 in versions.yaml",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;
    use rstest::rstest;

    #[test]
    fn memory_is_read_in_gib() {
        let gib = available_gib("MemTotal: 1 kB\nMemAvailable:    2097152 kB\n").unwrap();
        assert!((gib - 2.0).abs() < 1e-9);
        assert_eq!(available_gib("MemTotal: 1 kB\n"), None);
    }

    #[rstest]
    #[case(Some(128), Some(524_288), Severity::Warning)]
    #[case(Some(512), Some(8_192), Severity::Warning)]
    #[case(Some(512), Some(524_288), Severity::Good)]
    #[case(None, None, Severity::Good)]
    fn inotify_limits(#[case] instances: Option<u64>, #[case] watches: Option<u64>, #[case] expected: Severity) {
        assert_eq!(inotify_finding(instances, watches).severity, expected);
    }

    #[rstest]
    #[case(true, 37, Severity::Good)]
    #[case(false, 34, Severity::Good)]
    #[case(false, 35, Severity::Warning)]
    fn cgroups(#[case] v2: bool, #[case] minor: u32, #[case] expected: Severity) {
        assert_eq!(cgroup_finding(v2, minor).severity, expected);
    }
}
