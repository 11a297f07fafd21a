//! What this provider needs of the clusters that it is given, as findings. It only looks.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};

use super::targets::{ClusterContext, Given};
use super::{facts, fix};
use crate::finding::Finding;
use crate::provider::ProviderError;
use crate::topology::{ClusterSpec, Topology};

/// Looks at every cluster of `topology`. `everything`: not only namespaces are to be made there, but whatever a mesh is made
/// of.
pub async fn preflight(given: &Given, topology: &Topology, everything: bool) -> Vec<Finding> {
    let targets = match given.targets(topology) {
        Ok(targets) => targets,
        Err(ProviderError::Refused { what, hint }) => {
            return vec![Finding::bad("contexts", what, "every cluster of the topology needs one", hint)];
        }
        Err(error) => {
            return vec![Finding::bad("contexts", error.to_string(), "they are needed to reach the clusters", "")];
        }
    };
    let pairs = topology.clusters.iter().zip(&targets);
    futures::future::join_all(pairs.map(|(spec, target)| look(spec, target, topology, everything))).await.concat()
}

async fn look(spec: &ClusterSpec, target: &ClusterContext, topology: &Topology, everything: bool) -> Vec<Finding> {
    let subject = |what: &str| format!("{} of {}", what, spec.name);
    let read = async {
        let client = target.client().await?;
        let facts = facts::read(&client, &spec.name).await?;
        Ok::<_, ProviderError>((client, facts))
    };
    let (client, facts) = match read.await {
        Ok(read) => read,
        Err(error) => {
            let fix = match &error {
                ProviderError::Kube { source, .. } if is_forbidden(source) => {
                    format!(
                        "use a context with a user who may; run: kubectl --context {} auth can-i --list",
                        target.context
                    )
                }
                _ => format!("run: kubectl --context {} get nodes", target.context),
            };
            return vec![Finding::bad(subject("API server"), error.to_string(), "scenarios run there", fix)];
        }
    };
    let mismatches = facts.mismatches(spec);
    let ranges = if !mismatches.is_empty() {
        let why = "routes, outbound ranges and expectations on endpoints use the topology's ranges";
        Finding::bad(subject("ranges"), mismatches.join("; "), why, fix(&topology.name))
    } else if facts.tells_pods() {
        Finding::good(subject("ranges"), format!("pods {}, services {}", spec.pods, spec.services))
    } else {
        Finding::warning(
            subject("ranges"),
            "its nodes have no pod CIDR, so the pods' range cannot be checked",
            "expectations on endpoints use the topology's ranges",
            format!("check that pod IPs are in {}: kubectl get pods -A -o wide", spec.pods),
        )
    };
    vec![
        Finding::good(subject("API server"), target.server()),
        ranges,
        rights(&client, &subject("rights"), everything).await,
    ]
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether this user may do what will be done.
async fn rights(client: &Client, subject: &str, everything: bool) -> Finding {
    let namespaces = ["create", "delete"].map(|verb| (verb, "", "namespaces"));
    let asked = if everything { vec![("*", "*", "*")] } else { namespaces.to_vec() };
    let mut refused = Vec::new();
    for (verb, group, resource) in &asked {
        let attributes = ResourceAttributes {
            verb: Some((*verb).into()),
            group: Some((*group).into()),
            resource: Some((*resource).into()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..<_>::default() };
        let review = SelfSubjectAccessReview { spec, ..<_>::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|s| s.allowed) => {}
            Ok(_) => refused.push(format!("may not {verb} {resource}")),
            Err(error) => refused.push(format!("cannot check whether {verb} {resource} is allowed: {error}")),
        }
    }
    if !refused.is_empty() {
        let why = if everything {
            "a mesh needs cluster-scoped objects"
        } else {
            "every scenario's workloads get their own namespaces"
        };
        let fix = "use a context with a user who is allowed to (cluster-admin, or a matching role)";
        return Finding::bad(subject, refused.join("; "), why, fix);
    }
    Finding::good(subject, if everything { "everything" } else { "create and delete namespaces" })
}
