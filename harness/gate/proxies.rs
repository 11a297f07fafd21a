//! Which proxies are concerned, and what each held before the change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{GateError, ProxyReady};
use crate::observe::admin::Admin;
use crate::observe::held::{Held, Intended, Version};
use crate::observe::istiod::{Connected, ControlPlane};
use crate::observe::{AdminError, ObserveError, envoy, pods};
use crate::provider::{Cluster, PodRef};

/// One proxy.
pub(super) struct AffectedProxy {
    pub admin: Admin,
    /// What istiod intended for it before the change; `None`: it was not connected then.
    pub intended: Option<Intended>,
    pub held: Held,
    /// Envoy's words about rejections, per type, and its counters.
    pub errors: BTreeMap<String, String>,
    pub rejections: BTreeMap<String, u64>,
    /// The version of the last push that it was part of, since when, and how many checks have found it.
    pub version: Option<(Version, Instant, u32)>,
    pub ready: Option<ProxyReady>,
}

impl AffectedProxy {
    fn new(cluster: &Cluster, pod: PodRef) -> Self {
        Self {
            admin: envoy::of(cluster, pod),
            intended: None,
            held: Held::new(),
            errors: BTreeMap::new(),
            rejections: BTreeMap::new(),
            version: None,
            ready: None,
        }
    }

    fn admin_error(&self) -> impl FnOnce(AdminError) -> GateError {
        let place = self.admin.place();
        move |source| ObserveError::Admin { place, source }.into()
    }

    /// Takes a snapshot before the change.
    async fn snapshot(
        &mut self,
        plane: &ControlPlane,
        connected: Option<&(usize, Connected)>,
    ) -> Result<(), GateError> {
        if let Some((istiod, sync)) = connected {
            let intended = plane.intended(*istiod, &sync.connection).await;
            self.intended = Some(intended.map_err(|source| plane.error(source))?);
            self.errors = sync.sync.iter().map(|(name, s)| (name.clone(), s.last_error.clone())).collect();
        }
        self.held = envoy::held(&self.admin).await.map_err(self.admin_error())?.0;
        self.rejections = envoy::rejections(&self.admin).await.map_err(self.admin_error())?;
        Ok(())
    }
}

/// `CLUSTER/POD.NAMESPACE`: pods of two clusters may have one name.
pub(super) fn key(cluster: &str, id: &str) -> String {
    format!("{cluster}/{id}")
}

pub(super) fn key_of(connected: &Connected) -> String {
    key(&connected.cluster, &connected.id)
}

/// The pods with a proxy, by [`key`], of all clusters.
pub(super) type Pods = BTreeMap<String, (Cluster, Pod)>;

/// Lists the pods with a proxy.
pub(super) async fn list(clusters: &[Cluster]) -> Result<Pods, GateError> {
    let all = try_join_all(clusters.iter().map(pods::with_proxy)).await?;
    let of_cluster = |(cluster, pods): (&Cluster, Vec<Pod>)| {
        let cluster = cluster.clone();
        let key = move |pod: &Pod, cluster: &Cluster| {
            key(pods::mesh_cluster(pod).unwrap_or(&cluster.name), &pods::proxy_id(pod))
        };
        pods.into_iter().map(move |pod| (key(&pod, &cluster), (cluster.clone(), pod)))
    };
    Ok(clusters.iter().zip(all).flat_map(of_cluster).collect())
}

/// The proxies that are connected to an istiod; those that are known stay as they are.
pub(super) fn of_istiod(
    pods: &Pods,
    connected: &[(usize, Connected)],
    mut known: BTreeMap<String, AffectedProxy>,
) -> BTreeMap<String, AffectedProxy> {
    let keys: BTreeSet<String> = connected.iter().map(|(_, c)| key_of(c)).collect();
    let here = pods.iter().filter(|(key, _)| keys.contains(*key));
    let proxies = here.map(|(key, (cluster, pod))| {
        let proxy = known.remove(key).unwrap_or_else(|| AffectedProxy::new(cluster, reference(pod)));
        (key.clone(), proxy)
    });
    proxies.collect()
}

fn reference(pod: &Pod) -> PodRef {
    PodRef { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() }
}

/// Takes snapshots of all proxies that are connected to an istiod.
pub(super) async fn snapshots(
    pods: &Pods,
    plane: &ControlPlane,
    connected: &[(usize, Connected)],
) -> Result<BTreeMap<String, AffectedProxy>, GateError> {
    let proxies = of_istiod(pods, connected, BTreeMap::new());
    let each = proxies.into_iter().map(|(key, mut proxy)| async move {
        proxy.snapshot(plane, connected.iter().find(|(_, c)| key_of(c) == key)).await?;
        Ok::<_, GateError>((key, proxy))
    });
    Ok(try_join_all(each).await?.into_iter().collect())
}

/// The ready proxies that no istiod serves, one line each. `wanted`: the clusters that are to run istiod; `idle`: those whose
/// istiod is scaled to zero, so that nobody can serve their proxies.
pub(super) fn unconnected(
    pods: &Pods,
    connected: &BTreeSet<String>,
    wanted: &BTreeSet<String>,
    idle: &BTreeSet<String>,
) -> Vec<String> {
    let missing = pods.iter().filter(|(key, (cluster, pod))| {
        !connected.contains(*key) && pods::is_ready(pod) && !idle.contains(&cluster.name)
    });
    let by = wanted.iter().map(String::as_str).collect::<Vec<_>>().join(" or ");
    let place = |cluster: &Cluster, pod: &Pod| {
        format!("{}/{}/{}", cluster.name, pod.namespace().unwrap_or_default(), pod.name_any())
    };
    missing.map(|(_, (cluster, pod))| format!("{}: not connected to istiod in {by}", place(cluster, pod))).collect()
}
