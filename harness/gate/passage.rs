//! The wait itself: check after check, until istiod has read the change and every proxy holds what istiod intends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use tokio::sync::Mutex;

use super::change::{Change, DebugPage, Fate, Object, changed};
use super::holds::{self, Wanted};
use super::kubernetes::offered;
use super::proxies::{self, AffectedProxy, Pods, key_of};
use super::seen::Reader;
use super::{GateError, INTERVAL, ProxyReady, waited};
use crate::observe::held::Version;
use crate::observe::istiod::{Connected, ControlPlane};
use crate::provider::Cluster;
use crate::ui;
use crate::wait::{self, Poll};

/// How long an istiod that is to run may take to start: within what the whole snapshot has.
const START_LIMIT: Duration = Duration::from_secs(super::BEFORE_LIMIT.as_secs() * 3 / 4);

/// How often the pods are listed again while something is missing.
const RELIST: Duration = Duration::from_secs(1);

/// When the gate first says what it waits for, and how often again.
const REPORT: Duration = Duration::from_secs(5);

/// Everything as it was before the change.
pub(super) struct Snapshot {
    pub objects: Vec<Object>,
    endpoints: BTreeSet<String>,
    planes: Vec<Plane>,
}

/// One istiod with the proxies that are connected to it.
struct Plane {
    reader: Reader,
    proxies: BTreeMap<String, AffectedProxy>,
    /// The newest push that any of the proxies was part of before the change.
    newest: Option<Version>,
    /// Since when it has read the change.
    read: Option<Instant>,
}

/// The istiods that run, each as soon as one of its pods is ready.
async fn planes(clusters: &[Cluster]) -> Result<Vec<ControlPlane>, GateError> {
    let started = try_join_all(clusters.iter().map(started)).await?;
    Ok(started.into_iter().flatten().collect())
}

/// The istiod of `cluster` as soon as one of its pods is ready; `None`: the cluster is to run none.
pub(super) async fn started(cluster: &Cluster) -> Result<Option<ControlPlane>, GateError> {
    // The first check has no limit of its own: whoever set one for the whole snapshot says that nobody responds.
    match ready(cluster).await {
        Poll::Ready(plane) => Ok(plane),
        Poll::Failed(error) => Err(error),
        Poll::NotYet(_) => {
            wait::until("an istiod that is ready", START_LIMIT, INTERVAL, || ready(cluster)).await.map_err(waited)
        }
    }
}

async fn ready(cluster: &Cluster) -> Poll<Option<ControlPlane>, GateError> {
    match ControlPlane::of(cluster).await {
        Ok(Some(plane)) => Poll::Ready(Some(plane)),
        // It may just be starting: without it, what is applied would seem to concern nobody.
        Ok(None) => match ControlPlane::is_wanted(cluster).await {
            Ok(Some(true)) => Poll::NotYet(format!("{}: no istiod pod is ready", cluster.name)),
            Ok(_) => Poll::Ready(None),
            Err(error) => Poll::Failed(error.into()),
        },
        Err(error) => Poll::Failed(error.into()),
    }
}

/// Takes the snapshot.
pub(super) async fn snapshot(clusters: &[Cluster], change: Change) -> Result<Snapshot, GateError> {
    let objects = change.objects.into_iter().filter_map(|(cluster, object)| {
        let page = DebugPage::of(&object)?;
        Some((clusters.iter().find(|c| c.name == cluster)?, object, page))
    });
    let objects = objects.map(|(cluster, object, page)| Object::before(cluster, object, page));
    let objects = try_join_all(objects).await?;
    let mut snapshot = Snapshot { objects, endpoints: change.endpoints, planes: Vec::new() };
    // Endpoints need no comparison with before.
    if snapshot.objects.is_empty() {
        return Ok(snapshot);
    }
    let (pods, running) = tokio::try_join!(proxies::list(clusters), planes(clusters))?;
    for plane in running {
        let connected = plane.connected().await.map_err(|error| plane.error(error))?;
        let proxies = proxies::snapshots(&pods, &plane, &connected).await?;
        let versions = proxies.values().filter_map(|p| p.intended.as_ref()?.version.clone());
        let newest = versions.chain(connected.iter().filter_map(|(_, c)| c.newest())).max();
        snapshot.planes.push(Plane { reader: Reader::of(plane).await?, proxies, newest, read: None });
    }
    Ok(snapshot)
}

/// What came out of the wait.
#[derive(Default)]
pub(super) struct Passed {
    pub proxies: Vec<ProxyReady>,
    /// Proxies whose istiod does not read the changed objects, `CLUSTER/NAMESPACE/POD`.
    pub not_concerned: Vec<String>,
    /// The istiods, for their logs.
    pub planes: Vec<ControlPlane>,
    /// Objects that no istiod reads.
    pub unread: Vec<String>,
    pub objects: Vec<Object>,
}

/// Waits until istiod has read the change and every proxy concerned has it.
pub(super) async fn pass(
    clusters: &[Cluster],
    mut before: Snapshot,
    started: Instant,
    limit: Duration,
) -> Result<Passed, GateError> {
    changed(&mut before.objects).await?;
    let passage = Mutex::new(Passage { clusters, before, pods: None, started, reported: started });
    let check = || async {
        let mut passage = passage.lock().await;
        match passage.check().await {
            Ok(missing) if missing.is_empty() => Poll::Ready(()),
            Ok(missing) => {
                passage.report(&missing);
                Poll::NotYet(missing.join("\n"))
            }
            Err(error) => Poll::Failed(error),
        }
    };
    wait::until("the proxies to have the change", limit, INTERVAL, check).await.map_err(waited)?;
    Ok(passage.into_inner().passed())
}

/// The state of one wait.
struct Passage<'a> {
    clusters: &'a [Cluster],
    before: Snapshot,
    pods: Option<(Pods, Instant)>,
    started: Instant,
    reported: Instant,
}

impl Passage<'_> {
    /// What is missing, one line each.
    async fn check(&mut self) -> Result<Vec<String>, GateError> {
        let endpoints = &self.before.endpoints;
        let offers = match endpoints.is_empty() {
            true => Vec::new(),
            false => try_join_all(self.clusters.iter().map(|cluster| offered(cluster, endpoints))).await?,
        };
        let unsettled: Vec<String> = offers.iter().flat_map(|o| o.unsettled.clone()).collect();
        if !unsettled.is_empty() {
            return Ok(unsettled);
        }
        self.list().await?;
        let Some((pods, _)) = &self.pods else { return Ok(Vec::new()) };
        let (wanted, idle) = istiods(self.clusters).await?;
        let (mut missing, mut all_connected) = (Vec::new(), BTreeSet::new());
        let mut known: Vec<Plane> = std::mem::take(&mut self.before.planes);
        for cluster in self.clusters.iter().filter(|c| wanted.contains(&c.name)) {
            let at = known.iter().position(|p| p.reader.plane.cluster.name == cluster.name);
            let old = at.map(|at| known.remove(at));
            match plane(cluster, old).await {
                Err(missed) => missing.push(missed),
                Ok((mut plane, connected)) => {
                    all_connected.extend(connected.iter().map(|(_, c)| key_of(c)));
                    plane.proxies = proxies::of_istiod(pods, &connected, std::mem::take(&mut plane.proxies));
                    let objects = &mut self.before.objects;
                    let unread = plane.reader.unread(objects, &offers, self.started.elapsed()).await;
                    match unread {
                        Err(error) => missing.push(error.to_string()),
                        Ok(unread) if !unread.is_empty() => {
                            plane.read = None;
                            missing.extend(unread);
                            join_all(objects.iter_mut().map(Object::follow)).await;
                        }
                        Ok(_) => {
                            plane.read.get_or_insert_with(Instant::now);
                            missing.extend(
                                held(&mut plane, objects, &self.before.endpoints, &connected, self.started).await?,
                            );
                        }
                    }
                    self.before.planes.push(plane);
                }
            }
        }
        if !wanted.is_empty() {
            missing.extend(proxies::unconnected(pods, &all_connected, &wanted, &idle));
        }
        Ok(missing)
    }

    /// Lists the pods, now and then: they come and go while the gate waits.
    async fn list(&mut self) -> Result<(), GateError> {
        let fresh = self.pods.as_ref().is_some_and(|(_, at)| at.elapsed() < RELIST);
        if !fresh || !self.before.endpoints.is_empty() {
            self.pods = Some((proxies::list(self.clusters).await?, Instant::now()));
        }
        Ok(())
    }

    /// Says what is missing, if it is missing for long.
    fn report(&mut self, missing: &[String]) {
        const FEW: usize = 3;
        if self.reported.elapsed() < REPORT {
            return;
        }
        self.reported = Instant::now();
        let more = missing.len().saturating_sub(FEW);
        let shown = missing.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join("; ");
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        ui::say(format!("  waiting for proxies, {}: {shown}{more}", ui::seconds(self.started.elapsed())));
    }

    fn passed(self) -> Passed {
        let mut passed = Passed::default();
        let objects = self.before.objects;
        let changed = || objects.iter().filter(|o| o.fate() != Fate::Same);
        let planes = &self.before.planes;
        let unread = changed().filter(|o| !planes.iter().any(|p| p.reader.reads(o)));
        passed.unread = unread.map(ToString::to_string).collect();
        for plane in self.before.planes {
            let concerned =
                !self.before.endpoints.is_empty() || changed().count() == 0 || changed().any(|o| plane.reader.reads(o));
            for proxy in plane.proxies.into_values() {
                match proxy.ready {
                    Some(ready) if concerned => passed.proxies.push(ready),
                    _ => passed.not_concerned.push(proxy.admin.place()),
                }
            }
            passed.planes.push(plane.reader.plane);
        }
        passed.objects = objects;
        passed
    }
}

/// The clusters that are to run istiod, and those whose istiod is scaled to zero.
async fn istiods(clusters: &[Cluster]) -> Result<(BTreeSet<String>, BTreeSet<String>), GateError> {
    let wanted = try_join_all(clusters.iter().map(ControlPlane::is_wanted)).await?;
    let of = |state| {
        let with_state = clusters.iter().zip(&wanted).filter(move |(_, wanted)| **wanted == Some(state));
        with_state.map(|(cluster, _)| cluster.name.clone()).collect()
    };
    Ok((of(true), of(false)))
}

/// The istiod of a cluster as it is now, with what was known of it; or what is missing.
async fn plane(cluster: &Cluster, old: Option<Plane>) -> Result<(Plane, Vec<(usize, Connected)>), String> {
    let now = match ControlPlane::of(cluster).await {
        Ok(Some(now)) => now,
        Ok(None) => return Err(format!("{}: no istiod pod is ready", cluster.name)),
        Err(error) => return Err(error.to_string()),
    };
    // One that was replaced is another istiod; one that is the same keeps its connections.
    let (kept, proxies, newest, read) = match old {
        Some(old) if old.reader.plane.places() == now.places() => {
            (Some(old.reader.plane), old.proxies, old.newest, old.read)
        }
        Some(old) => (None, old.proxies, old.newest, None),
        None => (None, BTreeMap::new(), None, None),
    };
    let reader = Reader::of(kept.unwrap_or(now)).await.map_err(|error| error.to_string())?;
    let connected = reader.plane.connected().await.map_err(|error| reader.plane.error(error).to_string())?;
    Ok((Plane { reader, proxies, newest, read }, connected))
}

/// What the proxies of one istiod are missing. One that has everything is checked again only together with the last one.
async fn held(
    plane: &mut Plane,
    objects: &[Object],
    endpoints: &BTreeSet<String>,
    connected: &[(usize, Connected)],
    started: Instant,
) -> Result<Vec<String>, GateError> {
    let reader = &plane.reader;
    let own: Vec<&Object> = objects.iter().filter(|o| reader.reads(o)).collect();
    let wanted = Wanted {
        plane: &reader.plane,
        objects: own,
        endpoints,
        read: plane.read.unwrap_or_else(Instant::now),
        newest: plane.newest.clone(),
        started,
    };
    let mut checks = Vec::new();
    for (key, proxy) in &mut plane.proxies {
        if let Some(connection) = connected.iter().find(|(_, c)| key_of(c) == *key) {
            checks.push((proxy, connection));
        }
    }
    let late: Vec<bool> = checks.iter().map(|(proxy, _)| proxy.ready.is_none()).collect();
    let any_late = late.iter().any(|late| *late);
    let (wanted, mut missing) = (&wanted, Vec::new());
    // First those that lacked something at the last check, then, once they have all, the others again.
    for again in [false, true] {
        let round = checks
            .iter_mut()
            .zip(&late)
            .filter(|(_, late)| **late != again)
            .map(|((proxy, connection), _)| one(proxy, wanted, connection));
        for found in join_all(round).await {
            missing.extend(found?);
        }
        if !missing.is_empty() && any_late {
            break;
        }
    }
    Ok(missing)
}

async fn one(
    proxy: &mut AffectedProxy,
    wanted: &Wanted<'_>,
    connected: &(usize, Connected),
) -> Result<Option<String>, GateError> {
    let missing = holds::check(proxy, wanted, connected).await?;
    if missing.is_some() {
        proxy.ready = None;
    }
    Ok(missing.map(|what| format!("{}: {what}", proxy.admin.place())))
}
