//! The control plane ends in the middle and comes back by itself: nothing may be lost meanwhile.

use std::collections::BTreeSet;

use futures::FutureExt;
use serde_json::Value;

use super::{Answer, Fault, LIMIT, World, control_plane, note, state};
use crate::diagnose::RungId;
use crate::gate;
use crate::provider::Cluster;

pub(super) struct IstiodRestarted;

impl Fault for IstiodRestarted {
    fn name(&self) -> &'static str {
        "istiod-restarted"
    }

    fn breaks(&self) -> &'static str {
        "The pods of this cluster's control plane end, and new ones start: no call may be lost, and no proxy may stay behind."
    }

    /// A mesh survives it.
    fn rung(&self) -> Option<RungId> {
        None
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        world.has_control_plane(cluster)
    }

    /// The pods that end.
    fn plan<'a>(&'a self, _world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move { note(&control_plane::pods(cluster).await?) }.boxed_local()
    }

    /// Returns when they are gone: what comes next happens while the new ones start.
    fn inject<'a>(&'a self, _world: World<'a>, cluster: &'a Cluster, pods: &'a Value) -> Answer<'a, ()> {
        async move { control_plane::end(cluster, &state::<BTreeSet<String>>(pods)?).await }.boxed_local()
    }

    /// Returns when the new ones serve all proxies.
    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, _pods: &'a Value) -> Answer<'a, ()> {
        async move {
            gate::connected(world.clusters, cluster, LIMIT).await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }
}
