//! Brings objects into a cluster, and out of it: server-side apply through discovery.
//!
//! The field manager is [`MANAGER`] and conflicts are forced, so that what a file says is what the cluster holds. Definitions
//! and namespaces go first, then service accounts, programs last, everything of one rank at the same time.

use std::fmt;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use thiserror::Error;

use crate::provider::Cluster;
use crate::wait::{self, Poll, WaitError};
use kinds::ServedKind;

mod dry_run;
mod kinds;
pub mod manifest;
mod selection;
mod written;

pub use dry_run::{DryRun, Refusal, dry_run};
pub use manifest::{Manifest, Origin, parse};
pub use selection::Selector;
pub use written::{Written, read};

/// The field manager of everything that is applied.
pub const MANAGER: &str = "meshproof";

/// The label with the environment's identifier on everything that it owns.
pub const OWNER_LABEL: &str = "meshproof.dev/run";

/// How many requests to one API server are under way at once.
const AT_ONCE: usize = 8;

/// Why objects could not be brought into a cluster or out of it.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// A file is no YAML.
    #[error("{file}, document {document}: {source}")]
    Yaml {
        /// The file.
        file: String,
        /// The document, counted from 1.
        document: usize,
        /// What is wrong, with its position.
        source: Box<serde_saphyr::Error>,
    },
    /// A document is YAML, but no object.
    #[error("{origin}: not a Kubernetes object: {why}")]
    NotAnObject {
        /// Where it was written.
        origin: Origin,
        /// What is wrong.
        why: String,
    },
    /// An API version that cannot be one.
    #[error("`{api_version}` is not an API version (expected VERSION or GROUP/VERSION, such as v1 or apps/v1)")]
    ApiVersion {
        /// What was written.
        api_version: String,
    },
    /// The API server did not say which kinds it serves.
    #[error("cluster {cluster}: cannot list the kinds of {api_version}: {source}")]
    Discovery {
        /// The cluster.
        cluster: String,
        /// The API version.
        api_version: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The cluster serves no such kind.
    #[error(
        "cluster {cluster} has no kind {kind} in {api_version} (hint: `kubectl api-resources` lists what it has; is the \
         CustomResourceDefinition missing?)"
    )]
    UnknownKind {
        /// The cluster.
        cluster: String,
        /// The API version.
        api_version: String,
        /// The kind.
        kind: String,
    },
    /// A definition was applied, but the cluster does not serve its kind.
    #[error(transparent)]
    NotServed(Box<WaitError<ApplyError>>),
    /// What was deleted is still there.
    #[error(transparent)]
    NotGone(Box<WaitError<ApplyError>>),
    /// A webhook of istiod did not respond.
    #[error(
        "cluster {cluster}: cannot apply {object}: {reason}\nWhile istiod does not respond, an API server refuses objects \
         that istiod validates or injects (run: `kubectl -n istio-system get pods -l app=istiod`)"
    )]
    NotValidated {
        /// The cluster.
        cluster: String,
        /// `Kind namespace/name`, and where it was written.
        object: String,
        /// The API server's words.
        reason: String,
    },
    /// The API server refused the request, or did not respond.
    #[error("cluster {cluster}: cannot {verb} {object}, {origin}: {}", Reason(source))]
    Api {
        /// The cluster.
        cluster: String,
        /// What was tried: apply, delete, read.
        verb: &'static str,
        /// `Kind namespace/name`.
        object: String,
        /// Where the object was written.
        origin: Origin,
        /// What came back.
        source: Box<kube::Error>,
    },
}

/// An API server's answer without the debug form that kube adds to it.
pub struct Reason<'a>(pub &'a kube::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            kube::Error::Api(status) => write!(f, "{} (HTTP {})", status.message, status.code),
            other => write!(f, "{other}"),
        }
    }
}

/// The highest [`rank`].
const LAST_RANK: u8 = 3;

/// The order in which kinds are applied; they are deleted in the reverse order.
fn rank(kind: &str) -> u8 {
    match kind {
        "CustomResourceDefinition" | "Namespace" => 0,
        // Kubernetes deletes a token's secret whose account is not there yet.
        "ServiceAccount" => 1,
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Pod" | "Job" | "CronJob" => 3,
        _ => 2,
    }
}

/// Brings `manifests` into `cluster` and answers the objects as they are there, in the same order. With `owner`, each gets
/// [`OWNER_LABEL`] with that value. Namespaced objects without a namespace go to `default`, as with kubectl.
///
/// # Errors
/// [`ApplyError`], for the first object that the cluster refuses.
pub async fn apply(
    cluster: &Cluster,
    manifests: &[Manifest],
    owner: Option<&str>,
) -> Result<Vec<DynamicObject>, ApplyError> {
    let mut applied: Vec<(usize, DynamicObject)> = Vec::with_capacity(manifests.len());
    for wanted in 0..=LAST_RANK {
        let of_rank = manifests.iter().enumerate().filter(|(_, m)| rank(m.kind()) == wanted);
        let requests = of_rank.map(|(index, manifest)| async move {
            apply_one(cluster, manifest, owner).await.map(|object| (index, object))
        });
        applied.extend(stream::iter(requests).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?);
        if wanted == 0 {
            for (api_version, kind) in manifests.iter().filter(|m| is_definition(m)).flat_map(kinds::defines) {
                if kinds::find(cluster, &api_version, &kind).await?.is_none() {
                    kinds::await_served(cluster, &api_version, &kind).await?;
                }
            }
        }
    }
    applied.sort_by_key(|(index, _)| *index);
    Ok(applied.into_iter().map(|(_, object)| object).collect())
}

fn is_definition(manifest: &Manifest) -> bool {
    manifest.kind() == "CustomResourceDefinition"
}

async fn apply_one(cluster: &Cluster, manifest: &Manifest, owner: Option<&str>) -> Result<DynamicObject, ApplyError> {
    let mut object = manifest.object.clone();
    if let Some(owner) = owner {
        object.metadata.labels.get_or_insert_default().insert(OWNER_LABEL.into(), owner.into());
    }
    let kind = kinds::resolve(cluster, manifest.api_version(), manifest.kind()).await?;
    let (api, params) = (api(cluster, &kind, manifest.namespace()), PatchParams::apply(MANAGER).force());
    let (api, params, object) = (&api, &params, &object);
    let started = Instant::now();
    let what = format!("cluster {} to accept {} ({})", cluster.name, manifest.kind(), manifest.api_version());
    let sent = wait::until(what, Duration::from_secs(10), Duration::from_millis(50), || async move {
        match api.patch(manifest.name(), params, &Patch::Apply(object)).await {
            Ok(applied) => Poll::Ready(applied),
            // Discovery lists a new kind a moment before its handler is in place.
            Err(error) if is_not_served(&error) => Poll::NotYet(Reason(&error).to_string()),
            // An istiod that was just replaced is back in a moment.
            Err(error) if is_not_validated(&error) && started.elapsed() < ISTIOD_LIMIT => {
                Poll::NotYet(Reason(&error).to_string())
            }
            Err(error) if is_not_validated(&error) => {
                let object = format!("{}, {}", manifest.label(), manifest.origin);
                let (cluster, reason) = (cluster.name.clone(), Reason(&error).to_string());
                Poll::Failed(ApplyError::NotValidated { cluster, object, reason })
            }
            Err(error) => Poll::Failed(api_error(cluster, "apply", manifest)(error)),
        }
    });
    sent.await.map_err(|error| match error {
        WaitError::Failed { source, .. } => source,
        late => ApplyError::NotServed(Box::new(late)),
    })
}

/// How long istiod's webhooks may not respond.
const ISTIOD_LIMIT: Duration = Duration::from_secs(5);

/// What an API server says when it cannot reach a webhook whose `failurePolicy` is `Fail`.
const NOT_CALLED: &str = "failed calling webhook";

fn is_not_validated(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(s) if s.code == 500 && s.message.contains(NOT_CALLED) && s.message.contains("istio"))
}

/// "404 page not found": no handler at that path, as opposed to an object that is not there.
fn is_not_served(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(s) if s.code == 404 && s.details.as_ref().is_none_or(|d| d.name.is_empty()))
}

fn api(cluster: &Cluster, kind: &ServedKind, namespace: Option<&str>) -> Api<DynamicObject> {
    let client = cluster.client.clone();
    if kind.namespaced {
        Api::namespaced_with(client, namespace.unwrap_or("default"), &kind.resource)
    } else {
        Api::all_with(client, &kind.resource)
    }
}

fn api_error(cluster: &Cluster, verb: &'static str, manifest: &Manifest) -> impl FnOnce(kube::Error) -> ApplyError {
    let (cluster, object, origin) = (cluster.name.clone(), manifest.label(), manifest.origin.clone());
    move |source| ApplyError::Api { cluster, verb, object, origin, source: Box::new(source) }
}

/// How long what takes its time to go may take: a namespace goes when all that is in it has ended.
const GONE_LIMIT: Duration = Duration::from_secs(90);

/// Takes `manifests` out of `cluster`, programs first. What is not there is no error. Comes back when namespaces and definitions
/// are gone: nothing can be made in a namespace that is on its way out.
///
/// # Errors
/// [`ApplyError`], for the first object that cannot be deleted.
pub async fn delete(cluster: &Cluster, manifests: &[Manifest]) -> Result<(), ApplyError> {
    for wanted in (0..=LAST_RANK).rev() {
        let of_rank = manifests.iter().filter(|m| rank(m.kind()) == wanted);
        let requests = of_rank.map(|manifest| delete_one(cluster, manifest));
        stream::iter(requests).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    }
    Ok(())
}

async fn delete_one(cluster: &Cluster, manifest: &Manifest) -> Result<(), ApplyError> {
    // A kind that the cluster does not serve has no objects.
    let Some(kind) = kinds::find(cluster, manifest.api_version(), manifest.kind()).await? else { return Ok(()) };
    let deleted = api(cluster, &kind, manifest.namespace()).delete(manifest.name(), &DeleteParams::background()).await;
    match deleted {
        Ok(answer) if answer.is_left() && rank(manifest.kind()) == 0 => gone(cluster, manifest).await,
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(api_error(cluster, "delete", manifest)(source)),
    }
}

/// Waits until an object that is on its way out is gone.
async fn gone(cluster: &Cluster, manifest: &Manifest) -> Result<(), ApplyError> {
    let what = format!("{} to be deleted from cluster {}", manifest.label(), cluster.name);
    let waited = wait::until(what, GONE_LIMIT, Duration::from_millis(100), || async move {
        match get(cluster, manifest).await {
            Ok(None) => Poll::Ready(()),
            Ok(Some(left)) => Poll::NotYet(why_there(&left)),
            Err(error) => Poll::Failed(error),
        }
    });
    waited.await.map_err(|error| match error {
        WaitError::Failed { source, .. } => source,
        late => ApplyError::NotGone(Box::new(late)),
    })
}

/// What holds up an object that is to go: namespaces say so in their conditions.
fn why_there(left: &DynamicObject) -> String {
    let conditions = left.data["status"]["conditions"].as_array().into_iter().flatten();
    let holding = conditions.filter(|c| c["status"] == "True").filter_map(|c| c["message"].as_str());
    let holding: Vec<&str> = holding.filter(|message| !message.is_empty()).collect();
    if holding.is_empty() { "it still exists".into() } else { holding.join("; ") }
}

/// The object that `manifest` names, as it is in `cluster`; `None` when it is not there.
///
/// # Errors
/// [`ApplyError`] when the cluster does not answer.
pub async fn get(cluster: &Cluster, manifest: &Manifest) -> Result<Option<DynamicObject>, ApplyError> {
    let Some(kind) = kinds::find(cluster, manifest.api_version(), manifest.kind()).await? else { return Ok(None) };
    let found = api(cluster, &kind, manifest.namespace()).get_opt(manifest.name()).await;
    found.map_err(api_error(cluster, "read", manifest))
}

#[cfg(test)]
pub(crate) mod tests;
