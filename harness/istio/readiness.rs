//! Waiting for a Deployment of the mesh, and giving up early when its pods cannot start.

use std::time::Duration;

use futures::try_join;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

use super::{MeshError, NAMESPACE};
use crate::observe::readiness::{Readiness, readiness};
use crate::provider::Cluster;
use crate::wait::{self, Poll};

/// Waits until the Deployment `name` of the mesh's namespace is ready; its pods have the label `app=APP`.
///
/// # Errors
/// [`MeshError::NotStarting`] with what its pods say, or the time is over.
pub(super) async fn deployment_ready(
    cluster: &Cluster,
    name: &str,
    app: &str,
    limit: Duration,
) -> Result<(), MeshError> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let selector = ListParams::default().labels(&format!("app={app}"));
    let (deployments, pods, selector) = (&deployments, &pods, &selector);
    let what = format!("Deployment {NAMESPACE}/{name} in cluster {}", cluster.name);
    wait::until(what, limit, Duration::from_millis(100), || async move {
        let (deployment, pods) = match try_join!(deployments.get_opt(name), pods.list(selector)) {
            Ok((Some(deployment), pods)) => (deployment, pods.items),
            Ok((None, _)) => return Poll::NotYet(format!("Deployment {NAMESPACE}/{name}")),
            Err(error) => return Poll::Failed(MeshError::kube(cluster, "read a Deployment of the mesh", error)),
        };
        let failed = |why| {
            let (cluster, name) = (cluster.name.clone(), name.to_owned());
            Poll::Failed(MeshError::NotStarting { cluster, name, why })
        };
        match readiness(&deployment, &pods) {
            Readiness::Ready => Poll::Ready(()),
            Readiness::NotYet(why) => Poll::NotYet(why),
            Readiness::Never(why) => failed(why),
        }
    })
    .await?;
    Ok(())
}
