//! How much memory a cluster takes: all processes on its nodes and in its pods.
//!
//! Counted is the proportional set size (`Pss` of `/proc/PID/smaps_rollup`, proc(5)): pages that several processes share, the
//! programs themselves above all, count once over all of them. Resident sizes would count them once for each.

use super::{Cluster, ProviderError};

/// For a shell on a node: the sizes of all processes that it sees.
const SHOW: &str = "cat /proc/[0-9]*/smaps_rollup 2>/dev/null || true";

/// Bytes, where a node is a container with processes of its own.
pub(super) async fn in_containers(cluster: &Cluster) -> Result<u64, ProviderError> {
    let mut bytes = 0;
    for node in &cluster.nodes {
        bytes += pss(&cluster.node_exec(&node.name, &["sh", "-c", SHOW]).await?.text());
    }
    Ok(bytes)
}

/// Bytes that these processes of this machine take; those that have ended meanwhile take none.
pub(super) fn of_processes(pids: impl IntoIterator<Item = u32>) -> u64 {
    let rollup = |pid| std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    pids.into_iter().map(|pid| pss(&rollup(pid))).sum()
}

/// The sum of the lines `Pss:  1234 kB`, in bytes.
fn pss(text: &str) -> u64 {
    let sizes =
        text.lines().filter_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    sizes.sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_several_processes_add_up() {
        let two = "7f00-7fff ---p 0 00:00 0 [rollup]\nRss: 900 kB\nPss:    100 kB\nPss_Dirty: 7 kB\nPss:  24 kB\n";
        assert_eq!(pss(two), 124 * 1024);
        assert_eq!(pss(""), 0);
    }

    #[test]
    fn this_process_takes_some_and_one_that_is_gone_takes_none() {
        assert!(of_processes([std::process::id()]) > 1024 * 1024);
        assert_eq!(of_processes([u32::MAX]), 0);
    }
}
