//! Objects of a control plane's configuration on their way into the proxies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use kube::ResourceExt;
use tokio::sync::Mutex;

use super::subsets::Subsets;
use super::{GateError, INTERVAL, ProxyReady, serving, waited};
use crate::observe::admin::Admin;
use crate::observe::held::{Held, Intended, Kind, Version, differences};
use crate::observe::istiod::{Connected, ControlPlane, short};
use crate::observe::{AdminError, ObjectRef, ObserveError, envoy, kube_error, pods};
use crate::provider::{Cluster, PodRef};
use crate::wait::{self, Poll};

/// istiod gathers changes for a while (`PILOT_DEBOUNCE_AFTER`: 25 ms in a mesh installed by meshproof, 100 ms by default) before it pushes. A change that leaves no mark of its
/// own in a proxy counts as pushed when a newer push exists and no further one has followed for this long.
const QUIET: Duration = Duration::from_millis(400);

/// How long a control plane that is to be there may take to start: within what all looks ahead of a change have.
const START_LIMIT: Duration = Duration::from_secs(super::BEFORE_LIMIT.as_secs() * 3 / 4);

/// How often the pods are listed again while something is missing.
const RELIST: Duration = Duration::from_secs(1);

/// A counter says that Envoy rejected something; its log is asked for the words when this much time has passed
/// without an acknowledgement. (istiod 1.28 and newer tell Envoy's words by themselves, at once.)
const SUSPICIOUS: Duration = Duration::from_secs(1);

/// What is held ahead of the change.
pub(super) struct Before {
    plane: ControlPlane,
    objects: Vec<(ObjectRef, Option<Stamp>)>,
    proxies: BTreeMap<String, Proxy>,
}

/// A version of an object: two with the same stamp mean the same to a control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    uid: String,
    generation: i64,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is what it was: nothing to wait for.
    Same,
    /// It was not there.
    Made,
    /// It was there, and is another now.
    Changed,
    /// Deleted.
    Removed,
}

/// One proxy.
struct Proxy {
    admin: Admin,
    /// What it would have been given ahead of the change; `None`: it was not connected then.
    intended: Option<Intended>,
    held: Held,
    /// Envoy's words about rejections, per type, and its counters.
    errors: BTreeMap<String, String>,
    rejections: BTreeMap<String, u64>,
    /// The version last seen, and since when.
    version: Option<(Version, Instant)>,
    ready: Option<ProxyReady>,
}

impl Proxy {
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
}

/// Takes down what the proxies of `cluster`'s control plane hold; `None`: it has no control plane.
pub(super) async fn before(
    clusters: &[Cluster],
    cluster: &Cluster,
    objects: Vec<ObjectRef>,
) -> Result<Option<Before>, GateError> {
    let Some(plane) = control_plane(cluster).await? else { return Ok(None) };
    let stamps = stamps(cluster, &objects).await?;
    let objects = objects.into_iter().zip(stamps.into_iter().map(|s| s.map(|(stamp, _)| stamp))).collect();
    let connected = plane.connected().await.map_err(|source| plane.error(source))?;
    let proxies = concerned(clusters, &plane, &connected).await?;
    let proxies = try_join_all(proxies.into_iter().map(|(key, mut proxy)| {
        let (plane, connected) = (&plane, &connected);
        async move {
            if let Some((istiod, sync)) = connected.iter().find(|(_, c)| key_of(c) == key) {
                let intended = plane.intended(*istiod, &sync.id).await;
                proxy.intended = Some(intended.map_err(|source| plane.error(source))?);
                proxy.errors = sync.sync.iter().map(|(name, s)| (name.clone(), s.last_error.clone())).collect();
            }
            proxy.held = envoy::held(&proxy.admin).await.map_err(proxy.admin_error())?.0;
            proxy.rejections = envoy::rejections(&proxy.admin).await.map_err(proxy.admin_error())?;
            Ok::<_, GateError>((key, proxy))
        }
    }));
    let proxies = proxies.await?.into_iter().collect();
    Ok(Some(Before { plane, objects, proxies }))
}

/// The control plane of `cluster` as soon as one of its pods is ready; `None`: it is to run none.
async fn control_plane(cluster: &Cluster) -> Result<Option<ControlPlane>, GateError> {
    // The first look has no limit of its own: that nobody answers is told by whoever set one for all looks ahead of a change.
    match started(cluster).await {
        Poll::Ready(plane) => Ok(plane),
        Poll::Failed(error) => Err(error),
        Poll::NotYet(_) => wait::until("a control plane that is ready", START_LIMIT, INTERVAL, || started(cluster))
            .await
            .map_err(waited),
    }
}

async fn started(cluster: &Cluster) -> Poll<Option<ControlPlane>, GateError> {
    match ControlPlane::of(cluster).await {
        Ok(Some(plane)) => Poll::Ready(Some(plane)),
        // It may just be starting: without it, what is applied would seem to concern nobody.
        Ok(None) => match serving::runs_control_plane(cluster).await {
            Ok(true) => Poll::NotYet(no_istiod(cluster)),
            Ok(false) => Poll::Ready(None),
            Err(error) => Poll::Failed(error),
        },
        Err(error) => Poll::Failed(error.into()),
    }
}

fn no_istiod(cluster: &Cluster) -> String {
    format!("{}: no istiod pod is ready", cluster.name)
}

/// `CLUSTER/POD.NAMESPACE`: pods of two clusters may have one name.
fn key(cluster: &str, id: &str) -> String {
    format!("{cluster}/{id}")
}

pub(super) fn key_of(connected: &Connected) -> String {
    key(&connected.cluster, &connected.id)
}

/// The proxies that must have the configuration of `plane`: all that are connected to it, and those that serve in
/// a cluster that only it can serve, whether they are connected or not.
async fn concerned(
    clusters: &[Cluster],
    plane: &ControlPlane,
    connected: &[(usize, Connected)],
) -> Result<BTreeMap<String, Proxy>, GateError> {
    let keys: BTreeSet<String> = connected.iter().map(|(_, c)| key_of(c)).collect();
    let watched = plane.watched().await?;
    let of_cluster = |cluster: &Cluster| {
        let (cluster, keys) = (cluster.clone(), &keys);
        let own = cluster.name == plane.cluster.name;
        async move {
            let served = own || ControlPlane::of(&cluster).await?.is_none();
            let pods = pods::with_proxy(&cluster).await?;
            let pods = pods.into_iter().filter(|pod| {
                keys.contains(&key(&cluster.name, &pods::proxy_id(pod))) || served && pods::is_ready(pod)
            });
            let proxies = pods.map(|pod| {
                let id = key(&cluster.name, &pods::proxy_id(&pod));
                let pod = PodRef { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() };
                (id, Proxy::new(&cluster, pod))
            });
            Ok::<_, GateError>(proxies.collect::<Vec<_>>())
        }
    };
    let all = clusters.iter().filter(|c| watched.contains(&c.name)).map(of_cluster);
    Ok(try_join_all(all).await?.into_iter().flatten().collect())
}

/// The proxies that `cluster`'s control plane serves and that are not connected to it or, if `in_step`, have not acknowledged all.
pub(super) async fn not_connected(
    clusters: &[Cluster],
    cluster: &Cluster,
    in_step: bool,
) -> Result<Vec<String>, GateError> {
    let Some(plane) = ControlPlane::of(cluster).await? else {
        return Ok(vec![no_istiod(cluster)]);
    };
    let connected = match plane.connected().await {
        Ok(connected) => connected,
        Err(error) => return Ok(vec![plane.error(error).to_string()]),
    };
    let proxies = concerned(clusters, &plane, &connected).await?;
    let missing = proxies.iter().filter_map(|(key, proxy)| {
        let what = match connected.iter().find(|(_, c)| key_of(c) == *key) {
            None => format!("not connected to the control plane in {}", cluster.name),
            Some((_, c)) if in_step && !c.waiting().is_empty() => {
                format!("has not acknowledged {}", c.waiting().join(", "))
            }
            Some(_) => return None,
        };
        Some(format!("{}: {what}", proxy.admin.place()))
    });
    Ok(missing.collect())
}

/// Stamp and resource version of each object; `None`: it is not there.
async fn stamps(cluster: &Cluster, objects: &[ObjectRef]) -> Result<Vec<Option<(Stamp, String)>>, GateError> {
    let one = |object: &ObjectRef| {
        let (api, name) = (object.api(cluster), object.name.clone());
        async move {
            // A kind that the cluster does not know yet (its definition comes with the change) has no objects.
            let found = match api.get_opt(&name).await {
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                found => found.map_err(kube_error(cluster, "read an object of the change"))?,
            };
            Ok::<_, GateError>(found.map(|o| {
                let version = o.resource_version().unwrap_or_default();
                let stamp = Stamp {
                    uid: o.uid().unwrap_or_default(),
                    generation: o.metadata.generation.unwrap_or_default(),
                    labels: o.labels().clone(),
                    annotations: o.annotations().clone(),
                };
                (stamp, version)
            }))
        }
    };
    try_join_all(objects.iter().map(one)).await
}

/// The state of one wait.
struct Gate<'a> {
    clusters: &'a [Cluster],
    plane: ControlPlane,
    /// Each object, and the resource version that istiod must hold (`None`: it must hold none).
    objects: Vec<(ObjectRef, Option<String>)>,
    /// What the versions are of.
    stamps: Vec<Option<Stamp>>,
    fates: Vec<(ObjectRef, Fate)>,
    subsets: Subsets,
    proxies: BTreeMap<String, Proxy>,
    started: Instant,
    listed: Instant,
    /// Since when istiod's store holds the objects.
    stored: Option<Instant>,
}

/// Waits until every proxy has the change.
pub(super) async fn after(
    clusters: &[Cluster],
    before: Before,
    started: Instant,
    limit: Duration,
) -> Result<Vec<ProxyReady>, GateError> {
    let refs: Vec<ObjectRef> = before.objects.iter().map(|(o, _)| o.clone()).collect();
    let now = stamps(&before.plane.cluster, &refs).await?;
    let fate = |old: &Option<Stamp>, new: &Option<(Stamp, String)>| match (old, new) {
        (Some(old), Some((new, _))) if old == new => Fate::Same,
        (None, Some(_)) => Fate::Made,
        (Some(_), Some(_)) => Fate::Changed,
        (Some(_), None) => Fate::Removed,
        (None, None) => Fate::Same,
    };
    let fates: Vec<_> = before.objects.iter().zip(&now).map(|((o, old), new)| (o.clone(), fate(old, new))).collect();
    let subsets = Subsets::read(clusters, &before.plane.cluster, &applied(&fates)).await?;
    let (stamps, versions): (Vec<_>, Vec<_>) = now.into_iter().map(Option::unzip).unzip();
    let objects = refs.into_iter().zip(versions).collect();
    let gate = Mutex::new(Gate {
        subsets,
        clusters,
        plane: before.plane,
        objects,
        stamps,
        fates,
        proxies: before.proxies,
        started,
        listed: Instant::now(),
        stored: None,
    });
    let look = || async {
        match gate.lock().await.look().await {
            Ok(missing) if missing.is_empty() => Poll::Ready(()),
            Ok(missing) => Poll::NotYet(missing.join("\n")),
            Err(error) => Poll::Failed(error),
        }
    };
    wait::until("the proxies to have the change", limit, INTERVAL, look).await.map_err(waited)?;
    Ok(gate.into_inner().proxies.into_values().filter_map(|p| p.ready).collect())
}

/// The objects that were made or changed.
fn applied(fates: &[(ObjectRef, Fate)]) -> Vec<ObjectRef> {
    fates
        .iter()
        .filter(|(_, fate)| matches!(fate, Fate::Made | Fate::Changed))
        .map(|(object, _)| object.clone())
        .collect()
}

/// The version to wait for: a newer one of the same stamp takes the place of the one that was read.
fn newer(wanted: &mut Option<String>, stamp: Option<&Stamp>, now: Option<(Stamp, String)>) {
    if let (Some(version), Some((same, newer))) = (wanted, now)
        && stamp == Some(&same)
    {
        *version = newer;
    }
}

impl Gate<'_> {
    /// Looks for newer versions of the objects, as long as they mean the same. istiod itself writes into the status of some (the
    /// addresses of a ServiceEntry: `pilot/pkg/controllers/ipallocate`), and then never holds the version that was applied.
    async fn follow(&mut self) {
        let refs: Vec<ObjectRef> = self.objects.iter().map(|(object, _)| object.clone()).collect();
        // One that does not answer is asked again by the next look.
        let Ok(now) = stamps(&self.plane.cluster, &refs).await else { return };
        for (((_, wanted), stamp), now) in self.objects.iter_mut().zip(&self.stamps).zip(now) {
            newer(wanted, stamp.as_ref(), now);
        }
    }

    /// What is missing, one line each.
    async fn look(&mut self) -> Result<Vec<String>, GateError> {
        if self.stored.is_none() {
            match self.plane.lacks(&self.objects).await {
                Err(error) => return Ok(vec![self.unanswered(error).await]),
                Ok(lacking) if !lacking.is_empty() => {
                    self.follow().await;
                    let what = lacking.join(", ");
                    return Ok(vec![format!(
                        "{}: istiod does not hold {what} as applied yet",
                        self.plane.cluster.name
                    )]);
                }
                Ok(_) => self.stored = Some(Instant::now()),
            }
        }
        let connected = match self.plane.connected().await {
            Ok(connected) => connected,
            Err(error) => return Ok(vec![self.unanswered(error).await]),
        };
        if self.listed.elapsed() > RELIST {
            self.list(&connected).await?;
        }
        let (plane, stored, fates, subsets, started) =
            (&self.plane, self.stored, &self.fates, &self.subsets, self.started);
        let open = self.proxies.iter_mut().filter(|(_, proxy)| proxy.ready.is_none());
        let looks = open.map(|(key, proxy)| {
            let connected = connected.iter().find(|(_, c)| key_of(c) == *key);
            async move {
                let missing = look_at(proxy, plane, connected, fates, subsets, stored, started).await?;
                Ok::<_, GateError>(missing.map(|what| format!("{}: {what}", proxy.admin.place())))
            }
        });
        join_all(looks).await.into_iter().filter_map(Result::transpose).collect()
    }

    /// An istiod that does not answer may have been replaced: the next look asks those that there are now.
    async fn unanswered(&mut self, error: AdminError) -> String {
        let said = self.plane.error(error).to_string();
        if let Ok(Some(plane)) = ControlPlane::of(&self.plane.cluster).await {
            self.plane = plane;
        }
        said
    }

    /// Forgets proxies whose pods are gone, and learns of new ones.
    async fn list(&mut self, connected: &[(usize, Connected)]) -> Result<(), GateError> {
        let mut now = concerned(self.clusters, &self.plane, connected).await?;
        self.proxies.retain(|key, _| now.contains_key(key));
        now.retain(|key, _| !self.proxies.contains_key(key));
        self.proxies.extend(now);
        self.subsets = Subsets::read(self.clusters, &self.plane.cluster, &applied(&self.fates)).await?;
        self.listed = Instant::now();
        Ok(())
    }
}

/// What one proxy lacks; `None`: nothing, which is then written down.
async fn look_at(
    proxy: &mut Proxy,
    plane: &ControlPlane,
    connected: Option<&(usize, Connected)>,
    fates: &[(ObjectRef, Fate)],
    subsets: &Subsets,
    stored: Option<Instant>,
    started: Instant,
) -> Result<Option<String>, GateError> {
    let Some((istiod, connected)) = connected else {
        return Ok(Some(format!("not connected to the control plane in {}", plane.cluster.name)));
    };
    rejected(proxy, connected)?;
    let intended = match plane.intended(*istiod, &connected.id).await {
        Ok(intended) => intended,
        Err(error) => return Ok(Some(format!("istiod does not tell what it would send: {error}"))),
    };
    if let Some(version) = intended.version.clone().or_else(|| connected.newest())
        && proxy.version.as_ref().is_none_or(|(known, _)| *known != version)
    {
        proxy.version = Some((version, Instant::now()));
    }
    let settled = stored
        .map_or(Duration::ZERO, |s| s.elapsed())
        .min(proxy.version.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed()))
        >= QUIET;
    let missing: Vec<String> = fates
        .iter()
        .filter(|(object, fate)| !pushed(object, *fate, fates, proxy.intended.as_ref(), &intended, settled))
        .map(|(object, _)| object.to_string())
        .collect();
    if !missing.is_empty() {
        return Ok(Some(format!("istiod has not pushed {}", missing.join(", "))));
    }
    let waiting = connected.waiting();
    if !waiting.is_empty() {
        if started.elapsed() > SUSPICIOUS {
            counted_rejection(proxy, started).await?;
        }
        return Ok(Some(format!("has not acknowledged {}", waiting.join(", "))));
    }
    let (held, refused) = match envoy::held(&proxy.admin).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Some(format!("its Envoy does not answer: {error}"))),
    };
    if let Some(refused) = refused.into_iter().next() {
        let kind = format!("listener {}", refused.name);
        return Err(GateError::Rejected { proxy: proxy.admin.place(), kind, words: refused.words });
    }
    let different = differences(&intended.held, &held);
    if !different.is_empty() {
        return Ok(Some(few(&different)));
    }
    if !subsets.is_empty() {
        match envoy::endpoints(&proxy.admin).await {
            Err(error) => return Ok(Some(format!("its Envoy does not answer: {error}"))),
            Ok(endpoints) => {
                if let Some(different) = subsets.difference(&held, &endpoints) {
                    return Ok(Some(different));
                }
            }
        }
    }
    let changed = differences(&held, &proxy.held).into_iter();
    proxy.ready = Some(ProxyReady {
        cluster: proxy.admin.cluster.name.clone(),
        pod: proxy.admin.pod.clone(),
        seconds: started.elapsed().as_secs_f64(),
        changed: changed.map(|d| d.split(" (").next().unwrap_or_default().to_owned()).collect(),
    });
    Ok(None)
}

/// The first few of many differences.
fn few(differences: &[String]) -> String {
    const FEW: usize = 4;
    let more = differences.len().saturating_sub(FEW);
    let shown = differences.iter().take(FEW).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// A rejection that istiod tells of and that was not there before.
fn rejected(proxy: &Proxy, connected: &Connected) -> Result<(), GateError> {
    for (name, sync) in &connected.sync {
        let known = proxy.errors.get(name).map_or("", String::as_str);
        if !sync.last_error.is_empty() && sync.last_error != known {
            let (kind, words) = (short(name).to_owned(), sync.last_error.clone());
            return Err(GateError::Rejected { proxy: proxy.admin.place(), kind, words });
        }
    }
    Ok(())
}

/// A rejection that Envoy's counters tell of.
async fn counted_rejection(proxy: &Proxy, started: Instant) -> Result<(), GateError> {
    let Ok(now) = envoy::rejections(&proxy.admin).await else { return Ok(()) };
    let grown = now.iter().find(|(name, count)| **count > proxy.rejections.get(*name).copied().unwrap_or(0));
    let Some((counter, _)) = grown else { return Ok(()) };
    let words = envoy::last_rejection(&proxy.admin, started.elapsed()).await;
    Err(GateError::Rejected {
        proxy: proxy.admin.place(),
        kind: counter.clone(),
        words: words.unwrap_or_else(|| "(nothing in its log)".to_owned()),
    })
}

/// Whether what istiod would send already rests on the changed object.
fn pushed(
    object: &ObjectRef,
    fate: Fate,
    all: &[(ObjectRef, Fate)],
    before: Option<&Intended>,
    now: &Intended,
    settled: bool,
) -> bool {
    if fate == Fate::Same {
        return true;
    }
    let old = before.and_then(|b| b.version.as_ref());
    if old.is_some() && now.version.as_ref() <= old {
        return false;
    }
    if settled {
        return true;
    }
    let others = |counts: fn(&ObjectRef) -> bool| all.iter().any(|(o, f)| *f != Fate::Same && o != object && counts(o));
    if leaves_mark(&object.kind) {
        let (was, is) = (marks(object, before.map(|b| &b.held)), marks(object, Some(&now.held)));
        return match fate {
            Fate::Same => true,
            Fate::Made => was.is_empty() && !is.is_empty(),
            Fate::Removed => !was.is_empty() && is.is_empty(),
            // What names it may name another object of the change as well, and be another for that one's sake.
            Fate::Changed => was != is && !others(|_| true),
        };
    }
    let alone = !others(|o| !leaves_mark(&o.kind));
    let inbound = (Kind::Listener, "virtualInbound".to_owned());
    let of = |held: &Held| held.get(&inbound).map(|r| r.hash.clone());
    object.kind == "PeerAuthentication" && alone && before.is_some_and(|b| of(&b.held) != of(&now.held))
}

/// Kinds that istiod names in what it makes of them (`metadata.filter_metadata.istio.config`).
fn leaves_mark(kind: &str) -> bool {
    matches!(kind, "VirtualService" | "DestinationRule")
}

/// The resources that name the object, with their content.
fn marks(object: &ObjectRef, held: Option<&Held>) -> BTreeSet<(Kind, String, String)> {
    let mut kebab = String::new();
    for (index, c) in object.kind.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    let path = format!("/namespaces/{}/{kebab}/{}", object.namespace, object.name);
    let naming = held.into_iter().flatten().filter(|(_, r)| r.made_from.iter().any(|p| p.ends_with(&path)));
    naming.map(|((kind, name), r)| (*kind, name.clone(), r.hash.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::held::Resource;
    use rstest::rstest;

    fn object(kind: &str) -> ObjectRef {
        ObjectRef {
            api_version: "networking.istio.io/v1".into(),
            kind: kind.into(),
            namespace: "app1".into(),
            name: "helloworld".into(),
        }
    }

    /// A dump at push `number` whose one resource names the VirtualService and says `content`.
    fn intended(number: u64, content: &str) -> Intended {
        let path = "/apis/networking.istio.io/v1/namespaces/app1/virtual-service/helloworld";
        let made_from = if content.is_empty() { Vec::new() } else { vec![path.to_owned()] };
        let route = Resource { hash: content.into(), text: content.into(), made_from };
        let inbound = Resource { hash: content.into(), text: content.into(), made_from: Vec::new() };
        Intended {
            version: Version::parse(&format!("2026-11-23T05:22:50Z/{number}")),
            held: Held::from([
                ((Kind::Route, "5000".to_owned()), route),
                ((Kind::Listener, "virtualInbound".to_owned()), inbound),
            ]),
        }
    }

    #[rstest]
    #[case::nothing_was_pushed("VirtualService", Fate::Changed, intended(18, "v1"), true, false)]
    #[case::its_mark_has_changed("VirtualService", Fate::Changed, intended(19, "v2"), false, true)]
    #[case::pushed_without_it("VirtualService", Fate::Changed, intended(19, "v1"), false, false)]
    #[case::pushed_long_ago_without_effect("VirtualService", Fate::Changed, intended(19, "v1"), true, true)]
    #[case::its_mark_is_gone("VirtualService", Fate::Removed, intended(19, ""), false, true)]
    #[case::its_mark_is_still_there("VirtualService", Fate::Removed, intended(19, "v1"), false, false)]
    #[case::the_inbound_listener_has_changed("PeerAuthentication", Fate::Made, intended(19, "v2"), false, true)]
    #[case::a_kind_without_a_mark("EnvoyFilter", Fate::Made, intended(19, "v2"), false, false)]
    #[case::a_kind_without_a_mark_settled("EnvoyFilter", Fate::Made, intended(19, "v2"), true, true)]
    #[case::unchanged("VirtualService", Fate::Same, intended(18, "v1"), false, true)]
    fn old_configuration_never_passes(
        #[case] kind: &str,
        #[case] fate: Fate,
        #[case] now: Intended,
        #[case] settled: bool,
        #[case] expected: bool,
    ) {
        let all = [(object(kind), fate)];
        let before = intended(18, "v1");
        assert_eq!(pushed(&all[0].0, fate, &all, Some(&before), &now, settled), expected);
    }

    #[test]
    fn two_changes_without_a_mark_do_not_vouch_for_each_other() {
        let all = [(object("PeerAuthentication"), Fate::Made), (object("EnvoyFilter"), Fate::Made)];
        let (before, now) = (intended(18, "v1"), intended(19, "v2"));
        assert!(!pushed(&all[0].0, Fate::Made, &all, Some(&before), &now, false));
    }

    fn stamp(generation: i64) -> Stamp {
        Stamp { uid: "u".into(), generation, labels: BTreeMap::new(), annotations: BTreeMap::new() }
    }

    #[rstest]
    #[case::its_status_was_written(Some("7"), Some((stamp(1), "9".into())), Some("9"))]
    #[case::somebody_changed_it(Some("7"), Some((stamp(2), "9".into())), Some("7"))]
    #[case::somebody_deleted_it(Some("7"), None, Some("7"))]
    #[case::it_is_to_be_gone(None, Some((stamp(1), "9".into())), None)]
    fn a_version_is_followed_as_long_as_it_means_the_same(
        #[case] wanted: Option<&str>,
        #[case] now: Option<(Stamp, String)>,
        #[case] expected: Option<&str>,
    ) {
        let mut wanted = wanted.map(str::to_owned);
        newer(&mut wanted, Some(&stamp(1)), now);
        assert_eq!(wanted.as_deref(), expected);
    }

    /// Two VirtualServices on one port share a resource: that it is another says nothing of either, that it names one does.
    #[rstest]
    #[case::it_may_be_the_others_change(Fate::Changed, Fate::Changed, "v1", "v2", false)]
    #[case::it_may_be_the_others_end(Fate::Changed, Fate::Removed, "v1", "v2", false)]
    #[case::the_other_one_is_what_it_was(Fate::Changed, Fate::Same, "v1", "v2", true)]
    #[case::its_name_has_come(Fate::Made, Fate::Made, "", "v1", true)]
    #[case::its_name_has_not_come(Fate::Made, Fate::Changed, "", "", false)]
    #[case::its_name_is_gone(Fate::Removed, Fate::Changed, "v1", "", true)]
    #[case::its_name_is_still_there(Fate::Removed, Fate::Removed, "v1", "v2", false)]
    fn changes_of_one_resource_do_not_vouch_for_each_other(
        #[case] fate: Fate,
        #[case] of_the_other: Fate,
        #[case] was: &str,
        #[case] is: &str,
        #[case] expected: bool,
    ) {
        let mut other = object("VirtualService");
        other.name = "other".into();
        let all = [(object("VirtualService"), fate), (other, of_the_other)];
        let (before, now) = (intended(18, was), intended(19, is));
        assert_eq!(pushed(&all[0].0, fate, &all, Some(&before), &now, false), expected);
    }

    #[test]
    fn a_virtual_service_of_another_namespace_is_another_one() {
        let mut other = object("VirtualService");
        other.namespace = "app2".into();
        let held = intended(18, "v1").held;
        assert_eq!(marks(&object("VirtualService"), Some(&held)).len(), 1);
        assert!(marks(&other, Some(&held)).is_empty());
    }

    /// A cluster with that many pods of a control plane, ready or not (`None`: no Deployment of one), after some looks.
    fn starting(replicas: Option<u32>, looks: u32) -> Cluster {
        use axum::Json;
        use axum::extract::Request;
        use axum::response::IntoResponse;
        use serde_json::json;
        let seen = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let list = |kind: &str, version: &str, items: Vec<serde_json::Value>| {
            Json(json!({ "kind": kind, "apiVersion": version, "metadata": {}, "items": items })).into_response()
        };
        let router = axum::Router::new().fallback(move |request: Request| async move {
            if request.uri().path().ends_with("/deployments") {
                let of = |replicas| json!({ "metadata": { "name": "istiod" }, "spec": { "replicas": replicas, "selector": {}, "template": {} } });
                return list("DeploymentList", "apps/v1", replicas.map(of).into_iter().collect());
            }
            let ready = seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= looks;
            let pod = json!({ "metadata": { "name": "istiod-1" },
                "status": { "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] } });
            list("PodList", "v1", replicas.filter(|replicas| *replicas > 0).map(|_| pod).into_iter().collect())
        });
        crate::apply::tests::served_by("cluster1", router)
    }

    #[rstest]
    #[case::it_runs(Some(1), 0, true)]
    #[case::it_is_starting(Some(1), 2, true)]
    #[case::it_is_to_have_no_pods(Some(0), 0, false)]
    #[case::there_is_none(None, 0, false)]
    #[tokio::test]
    async fn a_control_plane_that_starts_is_not_taken_for_none(
        #[case] replicas: Option<u32>,
        #[case] looks: u32,
        #[case] expected: bool,
    ) {
        let plane = control_plane(&starting(replicas, looks)).await.unwrap();
        assert_eq!(plane.is_some(), expected);
    }

    #[test]
    fn many_differences_are_told_in_few_words() {
        let differences: Vec<String> = (0..6).map(|n| format!("route {n} (old)")).collect();
        assert_eq!(few(&differences), "route 0 (old), route 1 (old), route 2 (old), route 3 (old) and 2 more");
    }
}
