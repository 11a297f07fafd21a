//! Control planes elsewhere do not know the cluster, or cannot read it.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::FaultError;
use super::objects;
use super::record::{Fault, act, plan};
use super::watchers;
use super::world::At;
use crate::diagnose::RungId;
use crate::istio::remote_secret::{self, Flaw};
use crate::provider::Cluster;

const BASE: Fault = Fault {
    rung: Some(RungId::RemoteSecret),
    applies: watchers::could_exist,
    plan: |at| plan(at, watchers::of),
    clear: |at, state| {
        act(at, state, |at, watchers: Vec<String>| async move { watchers::learn_after_failure(at, &watchers).await })
    },
    ..Fault::BASE
};

pub(super) const MISSING: Fault = Fault {
    name: "remote-secret-missing",
    breaks: "No control plane has the remote secret of this cluster: its endpoints leave every proxy elsewhere.",
    inject: |at, state| {
        act(at, state, |at, watchers: Vec<String>| async move { watchers::forget(at, &watchers).await })
    },
    clear: |at, state| act(at, state, |at, watchers: Vec<String>| async move { watchers::learn(at, &watchers).await }),
    ..BASE
};

pub(super) const WRONG_TOKEN: Fault = Fault {
    name: "remote-secret-token-wrong",
    breaks: "The token in this cluster's remote secret is refused, as an expired one is: no control plane elsewhere can read it.",
    inject: |at, state| act(at, state, |at, watchers| replace(at, watchers, Flaw::Token)),
    ..BASE
};

pub(super) const LOOPBACK: Fault = Fault {
    name: "remote-secret-server-loopback",
    breaks: "This cluster's remote secret says that its API server is at 127.0.0.1: no control plane elsewhere can read it.",
    inject: |at, state| act(at, state, |at, watchers| replace(at, watchers, Flaw::Server)),
    ..BASE
};

pub(super) const ROLE_TOO_SMALL: Fault = Fault {
    name: "reader-role-too-small",
    breaks: "The account that control planes read this cluster with may not read EndpointSlices: they never sync it.",
    plan: |at| plan(at, role),
    inject: |at, state| act(at, state, withdraw),
    clear: |at, state| {
        act(at, state, |at, granted: Granted| async move {
            grant(at.cluster, &granted.rules).await?;
            watchers::learn_after_failure(at, &granted.watchers).await
        })
    },
    ..BASE
};

/// Replaces the remote secrets by ones that do not work.
async fn replace(at: At<'_>, watchers: Vec<String>, flaw: Flaw) -> Result<(), FaultError> {
    watchers::forget(at, &watchers).await?;
    for watcher in &watchers {
        let watcher = at.world.cluster(watcher)?;
        remote_secret::flawed(watcher, at.cluster, at.world.owner, flaw).await?;
        watchers::fails_to_read(watcher, &at.cluster.name).await?;
    }
    Ok(())
}

/// The role that Istio's charts give to the reader's account.
const ROLE: &str = "istio-reader-clusterrole-istio-system";
/// What the account may no longer read: without it there are services, but no endpoints.
const RESOURCE: &str = "endpointslices";

#[derive(Serialize, Deserialize)]
struct Granted {
    rules: Vec<PolicyRule>,
    watchers: Vec<String>,
}

fn without_endpoints(rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let grants = |rule: &PolicyRule| rule.resources.iter().flatten().any(|r| r == RESOURCE);
    rules.iter().filter(|rule| !grants(rule)).cloned().collect()
}

async fn role(at: At<'_>) -> Result<Granted, FaultError> {
    let watchers = watchers::of(at).await?;
    let role = objects::cluster_wide::<ClusterRole>(at.cluster).get(ROLE).await?;
    Ok(Granted { rules: role.rules.unwrap_or_default(), watchers })
}

async fn grant(cluster: &Cluster, rules: &[PolicyRule]) -> Result<(), FaultError> {
    objects::cluster_wide::<ClusterRole>(cluster).merge(ROLE, json!({ "rules": rules })).await
}

/// A watch that is open stays open when a right is withdrawn, so the control planes must read the cluster again.
async fn withdraw(at: At<'_>, Granted { rules, watchers }: Granted) -> Result<(), FaultError> {
    watchers::forget(at, &watchers).await?;
    grant(at.cluster, &without_endpoints(&rules)).await?;
    for watcher in &watchers {
        let watcher = at.world.cluster(watcher)?;
        remote_secret::restore(watcher, at.cluster, at.world.owner).await?;
        watchers::fails_to_read(watcher, &at.cluster.name).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rule_for_endpoints_goes() {
        let rule = |resources: &[&str]| PolicyRule {
            resources: Some(resources.iter().map(|r| (*r).to_owned()).collect()),
            ..PolicyRule::default()
        };
        let rules = [rule(&["pods", "services"]), rule(&["endpointslices"])];
        assert_eq!(without_endpoints(&rules), rules[..1]);
    }
}
