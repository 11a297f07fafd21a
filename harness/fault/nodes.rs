//! Programs and packet filter rules on nodes.

use super::error::FaultError;
use super::world::World;
use crate::provider::{Cluster, PodAt};
use crate::workload::{self, PodInfo};

/// Fails where nothing can be run on the cluster's nodes.
pub(super) fn can_be_entered(cluster: &Cluster) -> Result<(), String> {
    if cluster.created_here() {
        return Ok(());
    }
    Err("its nodes cannot be entered: meshproof did not create the cluster".to_owned())
}

/// Runs `argv` on a node and answers what it printed.
pub(super) async fn run(cluster: &Cluster, node: &str, argv: &[&str]) -> Result<String, FaultError> {
    let output = cluster.node_exec(node, argv).await?;
    if output.status.success() {
        return Ok(output.text());
    }
    Err(FaultError::Node {
        cluster: cluster.name.clone(),
        node: node.to_owned(),
        command: argv.join(" "),
        why: output.last_lines(3),
    })
}

/// Whether `argv` succeeds on a node.
pub(super) async fn succeeds(cluster: &Cluster, node: &str, argv: &[&str]) -> Result<bool, FaultError> {
    Ok(cluster.node_exec(node, argv).await?.status.success())
}

/// Adds iptables rules at the head of their chains on every node, unless they are there.
pub(super) async fn add_rules(cluster: &Cluster, rules: &[Rule]) -> Result<(), FaultError> {
    for node in &cluster.nodes {
        for rule in rules {
            if !succeeds(cluster, &node.name, &rule.argv("-C")).await? {
                run(cluster, &node.name, &rule.argv("-I")).await?;
            }
        }
    }
    Ok(())
}

/// Removes iptables rules from every node, if they are there.
pub(super) async fn remove_rules(cluster: &Cluster, rules: &[Rule]) -> Result<(), FaultError> {
    for node in &cluster.nodes {
        for rule in rules {
            while succeeds(cluster, &node.name, &rule.argv("-C")).await? {
                run(cluster, &node.name, &rule.argv("-D")).await?;
            }
        }
    }
    Ok(())
}

/// Adds iptables rules in the network namespace of a pod, or removes them.
pub(super) async fn pod_rules(cluster: &Cluster, pod: &PodInfo, rules: &[Rule], add: bool) -> Result<(), FaultError> {
    let (Some(node), Some(address)) = (pod.node.clone(), pod.ip) else { return Ok(()) };
    let place = PodAt { pod: pod.reference(), node, address };
    for rule in rules {
        let there = cluster.pod_net_exec(&place, &rule.argv("-C")).await?.status.success();
        if there == add {
            continue;
        }
        let argv = rule.argv(if add { "-I" } else { "-D" });
        let output = cluster.pod_net_exec(&place, &argv).await?;
        if !output.status.success() {
            let (command, why) = (argv.join(" "), output.last_lines(3));
            return Err(FaultError::Node { cluster: cluster.name.clone(), node: place.node, command, why });
        }
    }
    Ok(())
}

/// Closes the connections that `filter` (of `ss`) selects among those of the workloads' pods. A kernel that cannot do this
/// (CONFIG_INET_DIAG_DESTROY) leaves them open.
pub(super) async fn close_sockets(world: &World<'_>, cluster: &Cluster, filter: &[&str]) -> Result<(), FaultError> {
    let argv: Vec<&str> = ["ss", "-K"].iter().chain(filter).copied().collect();
    for namespace in world.namespaces {
        for pod in workload::pods(cluster, namespace, "").await? {
            let (Some(node), Some(address)) = (pod.node.clone(), pod.ip) else { continue };
            cluster.pod_net_exec(&PodAt { pod: pod.reference(), node, address }, &argv).await?;
        }
    }
    Ok(())
}

/// An iptables rule.
pub(super) struct Rule {
    pub table: &'static str,
    pub chain: &'static str,
    /// Matches and target.
    pub words: Vec<String>,
}

impl Rule {
    /// One whose words are separated by spaces.
    pub fn new(table: &'static str, chain: &'static str, words: &str) -> Self {
        Self { table, chain, words: words.split(' ').map(str::to_owned).collect() }
    }

    fn argv(&self, command: &'static str) -> Vec<&str> {
        let mut argv = vec!["iptables", "-w", "-t", self.table, command, self.chain];
        argv.extend(self.words.iter().map(String::as_str));
        argv.extend(["-m", "comment", "--comment", "meshproof-fault"]);
        // iptables expects the target after all matches.
        if let Some(at) = argv.iter().position(|w| *w == "-j") {
            let target: Vec<&str> = argv.splice(at..at + 2, []).collect();
            argv.extend(target);
        }
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_follows_all_matches() {
        assert_eq!(
            Rule::new("filter", "INPUT", "-s 10.10.0.0/16 -j DROP").argv("-I").join(" "),
            "iptables -w -t filter -I INPUT -s 10.10.0.0/16 -m comment --comment meshproof-fault -j DROP"
        );
    }
}
