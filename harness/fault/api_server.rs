//! The cluster's API server is not reachable, or does not respond.

use super::effect::{LIMIT, until};
use super::error::FaultError;
use super::nodes::{Rule, add_rules, can_be_entered, remove_rules, run, succeeds};
use super::record::{Fault, act, plan};
use super::world::At;
use super::{control_plane, watchers};
use crate::diagnose::RungId;
use crate::gate;
use crate::provider::Cluster;
use crate::wait::Poll;

const BASE: Fault = Fault {
    rung: Some(RungId::ApiServer),
    applies: |world, cluster| can_be_entered(cluster).and_then(|()| watchers::could_exist(world, cluster)),
    ..Fault::BASE
};

pub(super) const UNREACHABLE: Fault = Fault {
    name: "api-server-unreachable",
    breaks: "This cluster's API server drops what other clusters send: their control planes see no change here.",
    inject: |at, none| {
        act(at, none, |at, ()| async move {
            add_rules(at.cluster, &rules(at)).await?;
            answers(at, false).await
        })
    },
    clear: |at, none| {
        act(at, none, |at, ()| async move {
            remove_rules(at.cluster, &rules(at)).await?;
            answers(at, true).await
        })
    },
    ..BASE
};

pub(super) const PAUSED: Fault = Fault {
    name: "api-server-paused",
    breaks: "This cluster's API server is paused (SIGSTOP): it accepts connections but does not respond.",
    inject: |at, none| act(at, none, |at, ()| pause(at)),
    // On kind, the kubelet may have restarted it: then there is nothing to continue.
    clear: |at, none| {
        act(at, none, |at, ()| async move {
            signal(at.cluster, "CONT").await?;
            answers(at, true).await?;
            at.world.endpoints_settle().await
        })
    },
    ..BASE
};

/// istiod waits for a cluster that does not respond (half a minute: `PILOT_REMOTE_CLUSTER_TIMEOUT`) and then serves without it:
/// unlike one that was running, it has no endpoints of that cluster.
pub(super) const AWAY_AT_RESTART: Fault = Fault {
    name: "api-server-away-at-restart",
    breaks: "This cluster's API server drops what other clusters send, and their control planes are restarted: they serve without \
             its endpoints.",
    plan: |at| plan(at, watchers::of),
    inject: |at, state| {
        act(at, state, |at, watchers: Vec<String>| async move {
            add_rules(at.cluster, &rules(at)).await?;
            answers(at, false).await?;
            restart(at, &watchers).await
        })
    },
    clear: |at, state| {
        act(at, state, |at, watchers: Vec<String>| async move {
            remove_rules(at.cluster, &rules(at)).await?;
            answers(at, true).await?;
            watchers::learn_after_failure(at, &watchers).await
        })
    },
    ..BASE
};

/// Returns when the new istiods serve the proxies of all other clusters. Those of this one stay disconnected: without its API
/// server, an istiod cannot review their tokens.
async fn restart(at: At<'_>, watchers: &[String]) -> Result<(), FaultError> {
    for watcher in watchers {
        let watcher = at.world.cluster(watcher)?;
        let mut others = at.world.served(watcher);
        others.retain(|c| c.name != at.cluster.name);
        control_plane::end(watcher, &control_plane::pods(watcher).await?).await?;
        gate::connected(&others, watcher, LIMIT).await?;
    }
    Ok(())
}

/// Sends the signal `$0` to the API server of the node that this runs on, and prints how many there were. A node may share its
/// process table with others (on the netns provider, with the whole machine), but not its network.
const SIGNAL: &str = r#"
here=$(readlink /proc/self/ns/net) count=0
for pid in $(pgrep -x kube-apiserver); do
    [ "$(readlink "/proc/$pid/ns/net")" = "$here" ] || continue
    kill -s "$0" "$pid" && count=$((count + 1))
done
echo $count"#;

async fn signal(cluster: &Cluster, signal: &str) -> Result<usize, FaultError> {
    let mut all = 0;
    for node in &cluster.nodes {
        let count = run(cluster, &node.name, &["sh", "-c", SIGNAL, signal]).await?;
        all += count.trim().parse::<usize>().unwrap_or(0);
    }
    Ok(all)
}

async fn pause(at: At<'_>) -> Result<(), FaultError> {
    if signal(at.cluster, "STOP").await? == 0 {
        let what = format!("no process kube-apiserver was found on the nodes of {}", at.cluster.name);
        return Err(FaultError::NoEffect(what));
    }
    answers(at, false).await
}

/// Drops what other clusters' pods and nodes send to the API server's port.
fn rules(at: At<'_>) -> Vec<Rule> {
    let port = at.cluster.peer_api_server.rsplit(':').next().unwrap_or("6443").trim_end_matches('/');
    let sources = at.world.others(at.cluster).flat_map(|c| {
        let nodes = c.nodes.iter().map(|n| n.address.to_string());
        nodes.chain(std::iter::once(c.pods.to_string())).collect::<Vec<_>>()
    });
    sources.map(|from| Rule::new("filter", "INPUT", &format!("-p tcp -s {from} --dport {port} -j DROP"))).collect()
}

/// Waits until the API server answers, or does not answer, the nodes of all other clusters: a process that is paused may still
/// send what it had begun.
async fn answers(at: At<'_>, wanted: bool) -> Result<(), FaultError> {
    let url = format!("{}/livez", at.cluster.peer_api_server);
    for other in at.world.others(at.cluster) {
        let Some(node) = other.nodes.first() else { continue };
        let (word, still) = if wanted { ("answer", "it does not") } else { ("stop answering", "it still responds") };
        until(format!("{url} to {word} requests from node {} of {}", node.name, other.name), || async {
            match succeeds(other, &node.name, &["curl", "-sk", "-o", "/dev/null", "-m", "2", &url]).await {
                Ok(success) if success == wanted => Poll::Ready(()),
                Ok(_) => Poll::NotYet(still.to_owned()),
                Err(error) => Poll::Failed(error),
            }
        })
        .await?;
    }
    Ok(())
}
