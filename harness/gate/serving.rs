//! Endpoints on their way into the proxies.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::endpoints::{Gateway, Serving, difference, expected, serving};
use super::{GateError, INTERVAL, ProxyReady, waited};
use crate::observe::admin::Admin;
use crate::observe::held::{Held, Kind};
use crate::observe::istiod::{Connected, ControlPlane};
use crate::observe::{NAMESPACE, ObserveError, envoy, kube_error, pods};
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
    let began = Instant::now();
    let left = || limit.saturating_sub(began.elapsed());
    for cluster in clusters {
        // A control plane that is just starting would have no proxy yet, and so none that lacks anything.
        if runs_control_plane(cluster).await? {
            super::present(clusters, cluster, left()).await?;
        }
    }
    let planes = tokio::sync::Mutex::new(Vec::new());
    let look = || async {
        match look(clusters, namespaces, &mut *planes.lock().await, started).await {
            Ok(missing) if missing.is_empty() => Poll::Ready(()),
            Ok(missing) => Poll::NotYet(missing.join("\n")),
            Err(error) => Poll::Failed(error),
        }
    };
    wait::until("the proxies to have the endpoints", left(), INTERVAL, look).await.map_err(waited)?;
    let ready = |proxy: Proxy| {
        let (cluster, pod) = (proxy.admin.cluster.name.clone(), proxy.admin.pod);
        Some(ProxyReady { cluster, pod, seconds: proxy.ready?, changed: Vec::new() })
    };
    Ok(planes.into_inner().into_iter().flat_map(|p| p.proxies).filter_map(ready).collect())
}

/// Whether the cluster is to run a control plane, be its pods ready or not.
pub(super) async fn runs_control_plane(cluster: &Cluster) -> Result<bool, GateError> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let list = deployments.list(&ListParams::default().labels("app=istiod")).await;
    let list = list.map_err(kube_error(cluster, "list control planes"))?;
    Ok(list.items.iter().any(|d| d.spec.replicas != Some(0)))
}

/// Every control plane, and the ready proxies that are connected to it. Those that are `known` keep their connections.
async fn planes(clusters: &[Cluster], mut known: Vec<Plane>) -> Result<Vec<Plane>, GateError> {
    let meshed = try_join_all(clusters.iter().map(pods::with_proxy)).await?;
    let mut planes = Vec::new();
    for plane in try_join_all(clusters.iter().map(ControlPlane::of)).await?.into_iter().flatten() {
        let same = known.iter().position(|k| places(&k.plane) == places(&plane));
        let Plane { plane, proxies } = same.map_or(Plane { plane, proxies: Vec::new() }, |at| known.swap_remove(at));
        let connected = match plane.connected().await {
            Ok(connected) => connected,
            Err(source) => return Err(plane.error(source).into()),
        };
        let is_connected = |cluster: &Cluster, id: &str| {
            connected.iter().any(|(_, c): &(usize, Connected)| c.cluster == cluster.name && c.id == id)
        };
        let mut now = Vec::new();
        for (cluster, pods) in clusters.iter().zip(&meshed) {
            for pod in pods.iter().filter(|p| pods::is_ready(p) && is_connected(cluster, &pods::proxy_id(p))) {
                let pod_ref = PodRef { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() };
                now.push(Proxy { id: pods::proxy_id(pod), admin: envoy::of(cluster, pod_ref), ready: None });
            }
        }
        planes.push(Plane { plane, proxies: carried_over(proxies, now) });
    }
    Ok(planes)
}

/// Where the pods of a control plane are.
fn places(plane: &ControlPlane) -> Vec<String> {
    plane.pods.iter().map(Admin::place).collect()
}

/// The proxies that there are now, as they were known where they were: with their connections, and since when they are ready.
fn carried_over(mut known: Vec<Proxy>, now: Vec<Proxy>) -> Vec<Proxy> {
    let same = |proxy: Proxy| match known.iter().position(|k| k.admin.place() == proxy.admin.place()) {
        Some(at) => known.swap_remove(at),
        None => proxy,
    };
    now.into_iter().map(same).collect()
}

async fn look(
    clusters: &[Cluster],
    namespaces: &BTreeSet<String>,
    known: &mut Vec<Plane>,
    started: Instant,
) -> Result<Vec<String>, GateError> {
    let serving = try_join_all(clusters.iter().map(|cluster| serving(cluster, namespaces))).await?;
    let unsettled: Vec<String> = serving.iter().flat_map(|s| s.unsettled.clone()).collect();
    if !unsettled.is_empty() {
        return Ok(unsettled);
    }
    // Pods come and go while the gate waits: the look that passes is one at all proxies that there are then.
    *known = match planes(clusters, std::mem::take(known)).await {
        Ok(planes) => planes,
        Err(error @ GateError::Observe(ObserveError::Admin { .. })) => return Ok(vec![error.to_string()]),
        Err(error) => return Err(error),
    };
    let mut missing = Vec::new();
    for Plane { plane, proxies } in known {
        let (watched, plane) = (plane.watched().await?, &*plane);
        let watched: Vec<&Serving> = serving.iter().filter(|s| watched.contains(&s.cluster)).collect();
        let one_network = watched.iter().all(|s| s.network == watched[0].network);
        let gateways: Vec<Gateway> = match (one_network, plane.pods.first()) {
            (false, Some(istiod)) => {
                istiod.json::<Option<_>>("/debug/networkz").await.ok().flatten().unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let (serving, watched, gateways) = (&serving, &watched, &gateways);
        let looks = proxies.iter_mut().map(|proxy| async move {
            let home = serving.iter().find(|s| s.cluster == proxy.admin.cluster.name);
            let network = home.map_or("", |s| s.network.as_str());
            let lacks = lacks(proxy, plane, watched, network, gateways).await;
            seen(proxy, lacks, started.elapsed())
        });
        missing.extend(join_all(looks).await.into_iter().flatten());
    }
    Ok(missing)
}

/// Takes down what a look at a proxy found, and answers it: one that was ready may not be so any more.
fn seen(proxy: &mut Proxy, lacks: Option<String>, after: Duration) -> Option<String> {
    match lacks {
        None => {
            proxy.ready.get_or_insert(after.as_secs_f64());
            None
        }
        Some(what) => {
            proxy.ready = None;
            Some(format!("{}: {what}", proxy.admin.place()))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str, ready: Option<f64>) -> Proxy {
        let cluster = crate::apply::tests::served_by("cluster1", axum::Router::new());
        let pod = PodRef { namespace: "app1".into(), name: name.into() };
        Proxy { id: format!("{name}.app1"), admin: envoy::of(&cluster, pod), ready }
    }

    #[tokio::test]
    async fn a_proxy_is_ready_since_the_first_of_the_looks_that_found_nothing() {
        let mut proxy = proxy("p", None);
        assert_eq!(seen(&mut proxy, None, Duration::from_secs(1)), None);
        assert_eq!(seen(&mut proxy, None, Duration::from_secs(2)), None);
        assert_eq!(proxy.ready, Some(1.0));
        let lacks = seen(&mut proxy, Some("lacks endpoint x".into()), Duration::from_secs(3));
        assert_eq!((lacks.as_deref(), proxy.ready), (Some("cluster1/app1/p: lacks endpoint x"), None));
    }

    #[tokio::test]
    async fn proxies_that_come_while_the_gate_waits_are_looked_at_too() {
        let known = vec![proxy("stays", Some(1.0)), proxy("goes", Some(1.0))];
        let now = carried_over(known, vec![proxy("comes", None), proxy("stays", None)]);
        let now: Vec<_> = now.iter().map(|p| (p.admin.pod.name.as_str(), p.ready)).collect();
        assert_eq!(now, [("comes", None), ("stays", Some(1.0))]);
    }
}
