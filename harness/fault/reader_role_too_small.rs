//! The account that control planes read the cluster with may not read enough.

use futures::FutureExt;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Api, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::kube_error;
use super::{Answer, Fault, FaultError, World, note, state, watchers};
use crate::diagnose::RungId;
use crate::istio::remote_secret;
use crate::provider::Cluster;

pub(super) struct ReaderRoleTooSmall;

/// The role that the charts give to the reader's account.
const ROLE: &str = "istio-reader-clusterrole-istio-system";
/// What the account may no longer read: without it there are services, but nothing behind them.
const RESOURCE: &str = "endpointslices";

#[derive(Serialize, Deserialize)]
struct Whole {
    rules: Vec<PolicyRule>,
    watchers: Vec<String>,
}

fn without_endpoints(rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let grants = |rule: &PolicyRule| rule.resources.iter().flatten().any(|r| r == RESOURCE);
    rules.iter().filter(|rule| !grants(rule)).cloned().collect()
}

async fn put(cluster: &Cluster, rules: &[PolicyRule]) -> Result<(), FaultError> {
    let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
    // A merge patch replaces the list as a whole, and leaves the fields' owner alone.
    let patched = roles.patch(ROLE, &PatchParams::default(), &Patch::Merge(json!({ "rules": rules }))).await;
    patched.map(drop).map_err(kube_error(cluster, "change the reader's role"))
}

impl Fault for ReaderRoleTooSmall {
    fn name(&self) -> &'static str {
        "reader-role-too-small"
    }

    fn breaks(&self) -> &'static str {
        "The account that control planes read this cluster with may not read EndpointSlices: they never have it in full."
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::RemoteSecret)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        watchers::could_exist(world, cluster)
    }

    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move {
            let watchers = watchers::of(world, cluster, self.name()).await?;
            let roles: Api<ClusterRole> = Api::all(cluster.client.clone());
            let role = roles.get(ROLE).await.map_err(kube_error(cluster, "read the reader's role"))?;
            note(&Whole { rules: role.rules.unwrap_or_default(), watchers })
        }
        .boxed_local()
    }

    /// A watch that is open stays open when a right goes, so the control planes must learn of the cluster anew.
    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, whole: &'a Value) -> Answer<'a, ()> {
        async move {
            let Whole { rules, watchers } = state(whole)?;
            watchers::forget(world, cluster, &watchers).await?;
            put(cluster, &without_endpoints(&rules)).await?;
            for watcher in &watchers {
                let watcher = world.cluster(watcher)?;
                remote_secret::restore(watcher, cluster, world.owner).await?;
                let tries = |status: Option<&str>| status.is_some_and(|s| s != "synced");
                watchers::status(watcher, &cluster.name, tries, "to try in vain to read").await?;
            }
            Ok(())
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, whole: &'a Value) -> Answer<'a, ()> {
        async move {
            let Whole { rules, watchers } = state(whole)?;
            put(cluster, &rules).await?;
            watchers::learn_after_failure(world, cluster, &watchers).await
        }
        .boxed_local()
    }
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
