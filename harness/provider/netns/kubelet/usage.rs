//! What the node and its containers use of this machine, from `/proc`.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use jiff::Timestamp;

use super::KubeletNode;
use super::run::Run;
use super::state;
use super::status::Phase;

/// Processor time and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Nanoseconds on a processor since the start of those processes that still run.
    pub cpu: u64,
    /// Bytes that are resident.
    pub memory: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

/// A container that runs.
#[derive(Debug, Clone)]
pub struct ContainerUsage {
    /// Its name.
    pub name: String,
    /// Since when it runs.
    pub since: Timestamp,
    /// What it uses.
    pub usage: Usage,
}

/// A pod of which a container runs.
pub struct PodUsage {
    /// The pod.
    pub run: Arc<Run>,
    /// Its containers.
    pub containers: Vec<ContainerUsage>,
}

impl PodUsage {
    /// What all its containers use.
    pub fn total(&self) -> Usage {
        self.containers.iter().map(|c| c.usage).sum()
    }
}

/// What the containers of a node use now, the pods in the order of their names.
pub fn of(node: &KubeletNode) -> Vec<PodUsage> {
    let by_namespace = by_process_namespace();
    let mut pods: Vec<PodUsage> = node.pods.all().into_iter().map(|run| of_pod(run, &by_namespace)).collect();
    pods.retain(|pod| !pod.containers.is_empty());
    pods.sort_by(|a, b| (a.run.namespace(), a.run.name()).cmp(&(b.run.namespace(), b.run.name())));
    pods
}

fn of_pod(run: Arc<Run>, by_namespace: &HashMap<u64, Usage>) -> PodUsage {
    let running: Vec<(String, Timestamp)> = run
        .view
        .borrow()
        .containers()
        .filter_map(|c| match c.phase {
            Phase::Running { since } => Some((c.name.clone(), since)),
            _ => None,
        })
        .collect();
    let containers = running.into_iter().filter_map(|(name, since)| {
        let state = state::Container::read(&run.state_file(&name)).ok()?;
        let usage = by_namespace.get(&process_namespace(state.pid)?).copied().unwrap_or_default();
        Some(ContainerUsage { name, since, usage })
    });
    let containers = containers.collect();
    PodUsage { run, containers }
}

/// What the processes of each process namespace of this machine use.
fn by_process_namespace() -> HashMap<u64, Usage> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile uses nothing.
        let Some(namespace) = process_namespace(pid) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        *all.entry(namespace).or_default() += parse(&stat).unwrap_or_default();
    }
    all
}

fn process_namespace(pid: u32) -> Option<u64> {
    Some(std::fs::metadata(format!("/proc/{pid}/ns/pid")).ok()?.ino())
}

/// Fields 14 and 15 (`utime`, `stime`), 24 (`rss`, pages) of `/proc/PID/stat`: proc(5). A tick is 10 ms, a page 4 KiB on all
/// machines that this runs on.
fn parse(stat: &str) -> Option<Usage> {
    // The program's name, field 2, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Usage { cpu: (field(14)? + field(15)?) * 10_000_000, memory: field(24)? * 4096 })
}

/// What the whole machine uses: `/proc/stat`, `/proc/meminfo`.
pub fn machine() -> Usage {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).map(|t| t.parse::<u64>().unwrap_or(0));
    // user, nice, system; then idle and iowait, which are no use; irq, softirq.
    let used: u64 = ticks.enumerate().filter(|(index, _)| matches!(index, 0..=2 | 5 | 6)).map(|(_, t)| t).sum();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = |name: &str| {
        let value = memory.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("0");
        value.trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
    };
    Usage { cpu: used * 10_000_000, memory: line("MemTotal:").saturating_sub(line("MemAvailable:")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 1 0 99 1000 256 18446744073709551615 1 1";
        assert_eq!(parse(stat), Some(Usage { cpu: 3_000_000_000, memory: 1 << 20 }));
    }

    #[test]
    fn this_process_is_in_the_sum_of_its_namespace() {
        let own = process_namespace(std::process::id()).unwrap();
        assert!(by_process_namespace()[&own].memory > 1 << 20);
        assert!(machine().memory > 1 << 20 && machine().cpu > 0);
    }
}
