//! Endpoints on their way into the proxies.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::admin::Admin;
use super::endpoints::{Gateway, Serving, difference, expected, serving};
use super::held::{Held, Kind};
use super::istiod::{Connected, ControlPlane};
use super::{GateError, INTERVAL, ProxyReady, envoy, kube_error, pods, waited};
use crate::mesh::NAMESPACE;
use crate::provider::{Cluster, PodRef};
use crate::wait::{self, Poll};

/// A control plane with the proxies that are connected to it.
struct Plane {
    plane: ControlPlane,
    proxies: Vec<Proxy>,
}

struct Proxy {
    id: String,
    admin: Admin,
    ready: Option<f64>,
}

/// Waits until every proxy of every control plane holds exactly the ready endpoints of the services of
/// `namespaces`, in all clusters that its control plane is told to watch.
pub(super) async fn after(
    clusters: &[Cluster],
    namespaces: &BTreeSet<String>,
    started: Instant,
    limit: Duration,
) -> Result<Vec<ProxyReady>, GateError> {
    for cluster in clusters {
        // A control plane that is just starting would have no proxy yet, and so none that lacks anything.
        if runs_control_plane(cluster).await? {
            super::present(clusters, cluster, limit.saturating_sub(started.elapsed())).await?;
        }
    }
    let planes = tokio::sync::Mutex::new(planes(clusters).await?);
    let look = || async {
        match look(clusters, namespaces, &mut planes.lock().await, started).await {
            Ok(missing) if missing.is_empty() => Poll::Ready(()),
            Ok(missing) => Poll::NotYet(missing.join("\n")),
            Err(error) => Poll::Failed(error),
        }
    };
    wait::until("the proxies to have the endpoints", limit, INTERVAL, look).await.map_err(waited)?;
    let ready = |proxy: Proxy| {
        let (cluster, pod) = (proxy.admin.cluster.name.clone(), proxy.admin.pod);
        Some(ProxyReady { cluster, pod, seconds: proxy.ready?, changed: Vec::new() })
    };
    Ok(planes.into_inner().into_iter().flat_map(|p| p.proxies).filter_map(ready).collect())
}

/// Whether the cluster is to run a control plane, be its pods ready or not.
async fn runs_control_plane(cluster: &Cluster) -> Result<bool, GateError> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let list = deployments.list(&ListParams::default().labels("app=istiod")).await;
    let list = list.map_err(kube_error(cluster, "list control planes"))?;
    Ok(list.items.iter().any(|d| d.spec.replicas != Some(0)))
}

/// Every control plane, and the ready proxies that are connected to it.
async fn planes(clusters: &[Cluster]) -> Result<Vec<Plane>, GateError> {
    let meshed = try_join_all(clusters.iter().map(pods::meshed)).await?;
    let mut planes = Vec::new();
    for plane in try_join_all(clusters.iter().map(ControlPlane::of)).await?.into_iter().flatten() {
        let connected = match plane.connected().await {
            Ok(connected) => connected,
            Err(source) => {
                let place = plane.pods.first().map(Admin::place).unwrap_or_default();
                return Err(GateError::Admin { place, source });
            }
        };
        let is_connected = |cluster: &Cluster, id: &str| {
            connected.iter().any(|(_, c): &(usize, Connected)| c.cluster == cluster.name && c.id == id)
        };
        let mut proxies = Vec::new();
        for (cluster, pods) in clusters.iter().zip(&meshed) {
            for pod in pods.iter().filter(|p| pods::is_ready(p) && is_connected(cluster, &pods::proxy_id(p))) {
                let pod_ref = PodRef { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() };
                proxies.push(Proxy { id: pods::proxy_id(pod), admin: envoy::of(cluster, pod_ref), ready: None });
            }
        }
        planes.push(Plane { plane, proxies });
    }
    Ok(planes)
}

async fn look(
    clusters: &[Cluster],
    namespaces: &BTreeSet<String>,
    planes: &mut [Plane],
    started: Instant,
) -> Result<Vec<String>, GateError> {
    let serving = try_join_all(clusters.iter().map(|cluster| serving(cluster, namespaces))).await?;
    let unsettled: Vec<String> = serving.iter().flat_map(|s| s.unsettled.clone()).collect();
    if !unsettled.is_empty() {
        return Ok(unsettled);
    }
    let mut missing = Vec::new();
    for Plane { plane, proxies } in planes {
        let watched = plane.watched().await?;
        let watched: Vec<&Serving> = serving.iter().filter(|s| watched.contains(&s.cluster)).collect();
        let one_network = watched.iter().all(|s| s.network == watched[0].network);
        let gateways: Vec<Gateway> = match (one_network, plane.pods.first()) {
            (false, Some(istiod)) => {
                istiod.json::<Option<_>>("/debug/networkz").await.ok().flatten().unwrap_or_default()
            }
            _ => Vec::new(),
        };
        for proxy in proxies.iter_mut().filter(|p| p.ready.is_none()) {
            let home = serving.iter().find(|s| s.cluster == proxy.admin.cluster.name);
            let network = home.map_or("", |s| s.network.as_str());
            match lacks(proxy, plane, &watched, network, &gateways).await {
                None => proxy.ready = Some(started.elapsed().as_secs_f64()),
                Some(what) => missing.push(format!("{}: {what}", proxy.admin.place())),
            }
        }
    }
    Ok(missing)
}

/// What the proxy lacks or has too much.
async fn lacks(
    proxy: &Proxy,
    plane: &ControlPlane,
    watched: &[&Serving],
    network: &str,
    gateways: &[Gateway],
) -> Option<String> {
    let held = match envoy::endpoints(&proxy.admin).await {
        Ok(held) => held,
        Err(error) => return Some(format!("its Envoy does not answer: {error}")),
    };
    let mut intended: Option<Held> = None;
    for (name, expected) in expected(watched, network, gateways) {
        let nothing = BTreeSet::new();
        let found = difference(&name, &expected, held.get(&name).unwrap_or(&nothing));
        let Some(found) = found else { continue };
        if held.contains_key(&name) {
            return Some(found);
        }
        // A service that a Sidecar object hides from this proxy is not in what istiod would send either.
        if intended.is_none() {
            intended = intended_by(plane, &proxy.id).await;
        }
        let hidden = intended.as_ref().is_some_and(|i| !i.contains_key(&(Kind::Cluster, name.clone())));
        if !hidden {
            return Some(found);
        }
    }
    None
}

async fn intended_by(plane: &ControlPlane, id: &str) -> Option<Held> {
    for istiod in 0..plane.pods.len() {
        if let Ok(intended) = plane.intended(istiod, id).await {
            return Some(intended.held);
        }
    }
    None
}
