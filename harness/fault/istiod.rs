//! A control plane that is away, or restarts.

use std::collections::BTreeSet;

use super::control_plane;
use super::error::FaultError;
use super::record::{Fault, act, plan};
use super::world::At;
use crate::diagnose::RungId;

pub(super) const DOWN: Fault = Fault {
    name: "istiod-down",
    breaks: "This cluster's control plane has no pods: proxies keep their configuration, and new pods cannot be injected.",
    rung: Some(RungId::ControlPlane),
    applies: |world, cluster| world.has_control_plane(cluster),
    plan: |at| plan(at, |at| async move { Ok(control_plane::replicas(at.cluster).await?.max(1)) }),
    inject: |at, replicas| act(at, replicas, |at, _: i32| scale_down(at)),
    clear: |at, replicas| act(at, replicas, scale_up),
    ..Fault::BASE
};

/// A mesh survives it.
pub(super) const RESTARTED: Fault = Fault {
    name: "istiod-restarted",
    breaks: "The pods of this cluster's control plane end, and new ones start: no call may be lost, and every proxy must reconnect.",
    rung: None,
    applies: |world, cluster| world.has_control_plane(cluster),
    plan: |at| plan(at, |at| async move { control_plane::pods(at.cluster).await }),
    // Returns when they are gone: the next step runs while the new ones start.
    inject: |at, pods| {
        act(at, pods, |at, pods: BTreeSet<String>| async move { control_plane::end(at.cluster, &pods).await })
    },
    clear: |at, pods| act(at, pods, |at, _: BTreeSet<String>| reconnected(at)),
    ..Fault::BASE
};

async fn scale_down(at: At<'_>) -> Result<(), FaultError> {
    control_plane::scale(at.cluster, 0).await?;
    control_plane::end(at.cluster, &control_plane::pods(at.cluster).await?).await
}

async fn scale_up(at: At<'_>, replicas: i32) -> Result<(), FaultError> {
    control_plane::scale(at.cluster, replicas).await?;
    reconnected(at).await
}

/// Waits until every proxy is connected again: they try in growing intervals, up to 15 s.
async fn reconnected(at: At<'_>) -> Result<(), FaultError> {
    at.world.connected(at.cluster).await?;
    at.world.endpoints_settle().await
}
