//! There is no control plane.

use futures::FutureExt;
use serde_json::Value;

use super::{Answer, Fault, LIMIT, World, control_plane, note, state};
use crate::diagnose::RungId;
use crate::gate;
use crate::provider::Cluster;

pub(super) struct IstiodDown;

impl Fault for IstiodDown {
    fn name(&self) -> &'static str {
        "istiod-down"
    }

    fn breaks(&self) -> &'static str {
        "This cluster's control plane has no pods: proxies keep what they have, and new pods cannot be injected."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::ControlPlane)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        world.has_control_plane(cluster)
    }

    /// How many pods it has.
    fn plan<'a>(&'a self, _world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move { note(&control_plane::replicas(cluster).await?.max(1)) }.boxed_local()
    }

    fn inject<'a>(&'a self, _world: World<'a>, cluster: &'a Cluster, _replicas: &'a Value) -> Answer<'a, ()> {
        async move {
            control_plane::scale(cluster, 0).await?;
            control_plane::end(cluster, &control_plane::pods(cluster).await?).await
        }
        .boxed_local()
    }

    /// Returns when every proxy is connected again: they try in growing intervals, up to 15 s.
    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, replicas: &'a Value) -> Answer<'a, ()> {
        async move {
            control_plane::scale(cluster, state(replicas)?).await?;
            gate::connected(world.clusters, cluster, LIMIT).await?;
            world.endpoints_settle().await
        }
        .boxed_local()
    }
}
