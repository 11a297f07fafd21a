//! The cluster's API server takes connections and answers nothing.

use futures::FutureExt;
use serde_json::Value;

use super::api_server_unreachable::check;
use super::nodes::{can_be_entered, run};
use super::{Answer, Fault, FaultError, World, watchers};
use crate::diagnose::RungId;
use crate::provider::Cluster;

pub(super) struct ApiServerPaused;

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

impl Fault for ApiServerPaused {
    fn name(&self) -> &'static str {
        "api-server-paused"
    }

    fn breaks(&self) -> &'static str {
        "This cluster's API server is stopped in its tracks (SIGSTOP): connections open, and nothing is answered."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::ApiServer)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        can_be_entered(cluster)?;
        watchers::could_exist(world, cluster)
    }

    fn plan<'a>(&'a self, _world: World<'a>, _cluster: &'a Cluster) -> Answer<'a, Value> {
        // The process is found by its name, also by who clears.
        async { Ok(Value::Null) }.boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            if signal(cluster, "STOP").await? == 0 {
                let what = format!("no process kube-apiserver was found on the nodes of {}", cluster.name);
                return Err(FaultError::NoEffect(what));
            }
            check(&world, cluster, false).await
        }
        .boxed_local()
    }

    /// On kind, the kubelet may meanwhile have put a new one in its place: then there is nothing to continue.
    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _state: &'a Value) -> Answer<'a, ()> {
        async move {
            signal(cluster, "CONT").await?;
            check(&world, cluster, true).await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }
}
