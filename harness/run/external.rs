//! Existing clusters: what a run may create there, and how that is recorded.
//!
//! Namespaces that the run makes itself, labelled with its identifier, and whatever is inside them; with `--install-mesh`
//! also the mesh. All of it is in the journal before it exists. Everything else is refused by name, before anything is created.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::call_log::{self, CallLog};
use super::environment::Environment;
use super::foreign_mesh::{self, failed, object, same_mesh};
use super::kit::Kit;
use super::{Chosen, RunError};
use crate::apply::{Manifest, OWNER_LABEL};
use crate::fault;
use crate::istio::found::FoundMesh;
use crate::journal::EnvDir;
use crate::plan::{self, Action, PlannedChange};
use crate::provider::Cluster;
use crate::scenario::{MeshOptions, Scenario, Step};
use crate::topology::Topology;
use crate::workload::{self, WorkloadError};

/// What a scenario has in clusters that were not created here.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    /// How its calls are read.
    pub log: CallLog,
    /// The namespaces of its workloads.
    pub namespaces: BTreeSet<String>,
}

/// Creates the namespaces of a scenario, each in the journal first, or refuses the scenario.
///
/// # Errors
/// [`RunError::NotOurs`] with all that is refused, at once; or when a cluster does not answer.
pub(super) async fn claim(environment: &Environment, kit: &Kit, chosen: &Chosen) -> Result<Claimed, RunError> {
    let scenario = chosen.plan.scenario();
    let mut all = objects(environment, kit, chosen)?;
    let mut namespaces = namespaces(&all);
    let everywhere: BTreeSet<String> = namespaces.values().flatten().cloned().collect();
    let (mut refused, mut log) = (Vec::new(), CallLog::default());
    if let Some(found) = &environment.record.found_mesh {
        let written = foreign_mesh::written(&chosen.plan.loaded.source.text);
        refused = unfit(found, scenario, &chosen.plan.mesh, &written, &environment.topology);
        log = CallLog::choose(environment, scenario, found.unreadable_log(), &everywhere).await?;
        refused.extend(log.blind(scenario));
    }
    if log == CallLog::Added {
        // istiod reads EnvoyFilters where it reads everything else, whichever cluster the pods are in.
        for cluster in call_log::config_clusters(environment) {
            namespaces.entry(cluster.name.clone()).or_default().extend(everywhere.iter().cloned());
        }
    }
    for step in &chosen.plan.steps {
        if let Action::Change(PlannedChange { change: plan::Change::Apply { clusters, manifests, .. }, .. }) =
            &step.action
        {
            for cluster in clusters {
                all.entry(cluster.clone()).or_default().extend(manifests.iter().cloned());
            }
        }
    }
    refused.extend(strays(&all, &namespaces));
    for cluster in &environment.clusters {
        let here = namespaces.entry(cluster.name.clone()).or_default();
        here.insert(workload::inventory_namespace(&environment.record.id));
        for namespace in here.iter() {
            refused.extend(taken(cluster, namespace, &environment.record.id).await?);
        }
    }
    if !refused.is_empty() {
        return Err(RunError::NotOurs(refused));
    }
    for cluster in &environment.clusters {
        for namespace in namespaces.get(&cluster.name).into_iter().flatten() {
            make(&environment.dir, cluster, namespace).await?;
        }
    }
    Ok(Claimed { log, namespaces: everywhere })
}

/// The objects of a scenario's workloads, by cluster.
///
/// # Errors
/// When a manifest of the user's cannot be read.
pub(super) fn objects(
    environment: &Environment,
    kit: &Kit,
    chosen: &Chosen,
) -> Result<BTreeMap<String, Vec<Manifest>>, WorkloadError> {
    let names: Vec<&str> = environment.clusters.iter().map(|c| c.name.as_str()).collect();
    workload::objects(&names, &chosen.plan.loaded, &environment.mesh_of(&chosen.plan.mesh), &kit.workloads)
}

/// The namespaces among the objects, by cluster.
pub(super) fn namespaces(objects: &BTreeMap<String, Vec<Manifest>>) -> BTreeMap<String, BTreeSet<String>> {
    let of = |manifests: &Vec<Manifest>| {
        let namespaces = manifests.iter().filter(|m| m.kind() == "Namespace");
        namespaces.map(|m| m.name().to_owned()).collect()
    };
    objects.iter().map(|(cluster, manifests)| (cluster.clone(), of(manifests))).collect()
}

/// The objects that would be outside those namespaces.
fn strays(objects: &BTreeMap<String, Vec<Manifest>>, namespaces: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut strays = Vec::new();
    for (cluster, manifests) in objects {
        let inside = |m: &&Manifest| {
            let place = if m.kind() == "Namespace" { Some(m.name()) } else { m.namespace() };
            place.is_some_and(|place| namespaces.get(cluster).is_some_and(|own| own.contains(place)))
        };
        let outside = manifests.iter().filter(|m| !inside(m));
        strays.extend(outside.map(|m| {
            format!(
                "{} would be outside this run's namespaces in {cluster}, {} (hint: on existing clusters a run \
                 only changes the namespaces of its scenario's workloads)",
                m.label(),
                m.origin
            )
        }));
    }
    strays
}

/// Why a scenario cannot be judged on an existing mesh.
fn unfit(
    found: &FoundMesh,
    scenario: &Scenario,
    mesh: &MeshOptions,
    written: &BTreeSet<String>,
    topology: &Topology,
) -> Vec<String> {
    let mut why: Vec<String> =
        same_mesh(found, mesh, written, topology).err().map(|e| e.to_string()).into_iter().collect();
    for step in scenario.steps.iter() {
        if let Step::Fault(fault) = &step.value
            && !fault::stays_inside(&fault.name.value)
        {
            why.push(format!(
                "line {}: fault {} changes more than this run's namespaces (hint: `--install-mesh`, or the kind or netns provider)",
                step.line, fault.name.value
            ));
        }
    }
    why
}

/// Why a namespace is not ours to use; `None` when it is, or is not there.
async fn taken(cluster: &Cluster, name: &str, owner: &str) -> Result<Option<String>, RunError> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let Some(found) = api.get_opt(name).await.map_err(failed(cluster, format!("read namespace {name}")))? else {
        return Ok(None);
    };
    Ok(match found.labels().get(OWNER_LABEL).map(String::as_str) {
        Some(label) if label == owner && found.metadata.deletion_timestamp.is_none() => None,
        Some(label) => Some(format!(
            "namespace {name} of {} belongs to the meshproof environment {label} (hint: run `meshproof down {label}` where it \
             was created)",
            cluster.name
        )),
        None => Some(format!(
            "namespace {name} of {} already exists and was not created by meshproof (hint: use another \
             `namespace:` in the scenario, or remove it manually)",
            cluster.name
        )),
    })
}

/// Makes a namespace, unless it is there. (Never takes one over: whoever makes it first has it.)
async fn make(env: &EnvDir, cluster: &Cluster, name: &str) -> Result<(), RunError> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    if api.get_opt(name).await.map_err(failed(cluster, format!("read namespace {name}")))?.is_some() {
        return Ok(());
    }
    env.own(&object(env, cluster, "v1", "Namespace", None, name))?;
    let namespace = json!({ "metadata": { "name": name, "labels": { OWNER_LABEL: env.id() } } });
    let what = || failed(cluster, format!("create namespace {name}"));
    let namespace = serde_json::from_value(namespace).map_err(|e| what()(kube::Error::SerdeError(e)))?;
    api.create(&PostParams::default(), &namespace).await.map_err(what())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;
    use crate::istio::found::FoundIstiod;
    use rstest::rstest;

    fn objects(text: &str) -> BTreeMap<String, Vec<Manifest>> {
        BTreeMap::from([("cluster1".to_owned(), apply::parse("f.yaml", text).unwrap())])
    }

    const OWN: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: app1}\n---\n";

    #[rstest]
    #[case::inside("{apiVersion: v1, kind: Service, metadata: {name: s, namespace: app1}}", None)]
    #[case::elsewhere(
        "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: istio-system}}",
        Some("Service istio-system/s")
    )]
    #[case::the_default_namespace("{apiVersion: v1, kind: Service, metadata: {name: s}}", Some("Service s"))]
    #[case::of_the_whole_cluster(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: r}}",
        Some("ClusterRole r")
    )]
    fn what_is_outside_the_runs_namespaces_is_named(#[case] object: &str, #[case] expected: Option<&str>) {
        let objects = objects(&format!("{OWN}{object}\n"));
        let found = strays(&objects, &namespaces(&objects));
        assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
        let start = expected.map(|e| format!("{e} would be outside this run's namespaces in cluster1, f.yaml:4"));
        assert!(start.is_none_or(|start| found[0].starts_with(&start)), "{found:?}");
    }

    #[test]
    fn a_namespace_of_another_cluster_is_not_enough() {
        let own = namespaces(&objects(OWN));
        let other = BTreeMap::from([(
            "cluster2".to_owned(),
            apply::parse("f.yaml", "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: app1}}").unwrap(),
        )]);
        assert_eq!(strays(&other, &own).len(), 1);
    }

    #[test]
    fn all_that_does_not_fit_a_mesh_that_is_there_is_reported() {
        let text = "
name: n
purpose: p
topology: vpn
mesh: { mtls: disabled }
workloads: [{ sleep: { cluster: cluster1 } }]
steps:
  - fault: { name: istiod-down, cluster: cluster1 }
  - call: { from: sleep@cluster1, to: http://x, expect: { mtls: false } }
  - call: { from: sleep@cluster1, to: http://x, expect: { only: v1 } }
";
        let scenario: Scenario = serde_saphyr::from_str(text).unwrap();
        let istiod = FoundIstiod {
            cluster: "cluster1".into(),
            version: "1.30.4".into(),
            mtls: crate::istio::options::Mtls::Strict,
            unreadable_log: Some("the access log is text".into()),
        };
        let found = FoundMesh { istiods: vec![istiod], sidecars: Vec::new() };
        let topology =
            Topology { name: "vpn".into(), purpose: String::new(), clusters: Vec::new(), istio: Default::default() };
        let mesh = MeshOptions { mtls: scenario.mesh.mtls, ..MeshOptions::default() };
        insta::assert_snapshot!(unfit(&found, &scenario, &mesh, &foreign_mesh::written(text), &topology).join("\n"));
    }
}
