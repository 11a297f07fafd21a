//! The lower rungs of the ladder for a whole mesh: every cluster, and every ordered pair of clusters, without a call.
//!
//! What is asked of many clusters is asked of a few at a time, so that fifty of them are no more load than ten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::future::LocalBoxFuture;
use futures::stream::{self, StreamExt};
use futures::{FutureExt, join};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, ListParams};
use serde::Serialize;

use super::facts::Facts;
use super::rung::{Answer, Broken, Check, Checked, Rung, RungId, RungStatus, within};
use super::scene::Scene;
use super::servers::read_by;
use super::{Callee, Question, api_server, control_plane, gateway, injection, names, remote_secret, synced};
use crate::apply::Reason;
use crate::provider::Cluster;
use crate::source::WorkloadRef;

/// How many clusters, or pairs of them, are asked at a time.
const AT_ONCE: usize = 16;

/// A cluster of the mesh.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeshCluster {
    /// The context that it was given by.
    pub context: String,
    /// What the mesh calls it; the context where nobody says.
    pub name: String,
    /// Its network, by the label of the control plane's namespace.
    pub network: String,
    /// The cluster whose istiod serves its proxies.
    pub served_by: Option<String>,
    /// The version of its own istiod, by the image's tag.
    pub istiod: Option<String>,
}

/// One rung, of one cluster or of a pair.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeshRung {
    /// The cluster; of a pair, the one that uses the other.
    pub cluster: String,
    /// The other cluster of the pair.
    pub other: Option<String>,
    /// What was found.
    #[serde(flatten)]
    pub rung: Rung,
}

/// What was found in the whole mesh.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeshCheck {
    /// The clusters.
    pub clusters: Vec<MeshCluster>,
    /// Every rung of each of them and of each pair, lowest first.
    pub rungs: Vec<MeshRung>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl MeshCheck {
    /// Whether anything is broken.
    pub fn is_broken(&self) -> bool {
        self.rungs.iter().any(|r| r.rung.status == RungStatus::Broken)
    }

    /// Whether the control plane of every cluster was seen, and every pair of clusters that it reads.
    pub fn is_complete(&self) -> bool {
        let needed = [RungId::ControlPlane, RungId::ClusterSynced];
        let counts =
            |r: &MeshRung| needed.contains(&r.rung.rung) || r.rung.rung == RungId::ApiServer && r.other.is_none();
        !self.rungs.iter().any(|r| counts(r) && r.rung.status == RungStatus::Skipped)
    }
}

/// What is checked for one cluster or one pair.
type One<'a> = (RungId, &'a str, Option<&'a str>, LocalBoxFuture<'a, Vec<Check>>);

/// Checks the mesh of `clusters`, each named by its context. Changes nothing.
pub async fn check(clusters: Vec<Cluster>) -> MeshCheck {
    let started = Instant::now();
    let read: Vec<NamedCluster> = stream::iter(clusters).map(named).buffered(AT_ONCE).collect().await;
    let unnamed = read.iter().filter(|one| !one.is_known).map(|one| one.facts.name().to_owned());
    let unnamed: BTreeSet<String> = unnamed.collect();
    let contexts = read.iter().map(|one| (one.facts.name().to_owned(), one.context.clone())).collect();
    let given: Vec<Cluster> = read.iter().map(|one| one.facts.cluster.clone()).collect();
    let (contexts_given, facts): (Vec<String>, Vec<Facts>) =
        read.into_iter().map(|one| (one.context, one.facts)).unzip();
    let nobody = WorkloadRef { name: String::new(), cluster: String::new() };
    let (to, headers) = (Callee::of_nothing(), BTreeMap::new());
    let question = Question {
        clusters: &given,
        topology: None,
        from: &nobody,
        namespace: None,
        to: &to,
        headers: &headers,
        contexts: &contexts,
        expect: None,
    };
    let scene = Scene::of_mesh(&question, facts);
    let own = stream::iter(&scene.facts).map(own).buffered(AT_ONCE).collect::<Vec<_>>().await;
    let mut ones = of_clusters(&scene);
    ones.extend(of_pairs(&scene, &own, &unnamed));
    let rungs = stream::iter(ones).map(|(id, cluster, other, checks)| async move {
        let checked = Checked { expected: String::new(), command: None, parts: checks.await };
        let rung = checked.into_rung(id, super::name_of(id));
        MeshRung { cluster: cluster.to_owned(), other: other.map(str::to_owned), rung }
    });
    let mut rungs: Vec<MeshRung> = rungs.buffered(AT_ONCE).collect().await;
    rungs.sort_by_key(|r| r.rung.rung);
    let clusters = scene.facts.iter().zip(contexts_given).map(|(facts, context)| MeshCluster {
        context,
        name: facts.name().to_owned(),
        network: scene.network(facts),
        served_by: scene.primary(facts).filter(|_| facts.silent().is_none()).map(|primary| primary.name().to_owned()),
        istiod: facts.istiod_version(),
    });
    MeshCheck { clusters: clusters.collect(), rungs, seconds: started.elapsed().as_secs_f64() }
}

/// What the API server of a cluster says, under the name that the mesh has for it.
struct NamedCluster {
    context: String,
    facts: Facts,
    /// Whether the mesh says that name; else it is the context.
    is_known: bool,
}

async fn named(cluster: Cluster) -> NamedCluster {
    let context = cluster.name.clone();
    let mut facts = Facts::of(&cluster, "kubernetes", "default").await;
    let name = names::own_name(&facts).await;
    let is_known = name.is_some();
    facts.cluster.name = name.unwrap_or_else(|| context.clone());
    NamedCluster { context, facts, is_known }
}

/// What else a pair is compared by.
struct Own {
    /// The pods' ranges, by the nodes.
    pods: Answer<Vec<IpNet>>,
    /// The root that istiod has written into every namespace.
    root: Answer<Option<String>>,
}

async fn own(facts: &Facts) -> Own {
    if let Some(why) = facts.silent() {
        return Own { pods: Err(why.to_owned()), root: Err(why.to_owned()) };
    }
    let client = &facts.cluster.client;
    let (nodes, maps) = (Api::<Node>::all(client.clone()), Api::<ConfigMap>::namespaced(client.clone(), &facts.system));
    let all = ListParams::default();
    let nodes = within(format!("nodes of {}", facts.name()), async {
        nodes.list(&all).await.map_err(|e| Reason(&e).to_string())
    });
    let root = within(format!("ConfigMap {ROOT} of {}", facts.name()), async {
        maps.get_opt(ROOT).await.map_err(|e| Reason(&e).to_string())
    });
    let (nodes, root) = join!(nodes, root);
    let ranges = |nodes: kube::api::ObjectList<Node>| {
        let ranges = nodes.items.into_iter().filter_map(|node| node.spec?.pod_cidr?.parse().ok());
        ranges.collect::<Vec<IpNet>>()
    };
    let root_of = |map: Option<ConfigMap>| map.and_then(|map| map.data?.remove("root-cert.pem"));
    Own { pods: nodes.map(ranges), root: root.map(root_of) }
}

/// Where every istiod writes the root of its workloads' certificates (istio/istio `security/pkg/k8s`).
const ROOT: &str = "istio-ca-root-cert";

fn of_clusters<'a>(scene: &'a Scene<'a>) -> Vec<One<'a>> {
    let mut all: Vec<One<'a>> = Vec::new();
    let planes: BTreeSet<&str> = scene.planes().into_iter().map(Facts::name).collect();
    for facts in &scene.facts {
        all.push((
            RungId::ApiServer,
            facts.name(),
            None,
            async move { vec![api_server::own(scene, facts)] }.boxed_local(),
        ));
        if facts.silent().is_some() {
            continue;
        }
        if planes.contains(facts.name()) {
            let plane = async move { control_plane::of_one(scene, facts).await };
            all.push((RungId::ControlPlane, facts.name(), None, plane.boxed_local()));
        } else if scene.primary(facts).is_none() {
            let none = async move { vec![control_plane::nobody(scene, facts)] };
            all.push((RungId::ControlPlane, facts.name(), None, none.boxed_local()));
        }
        let hook = async move { vec![injection::webhook(scene, facts).await] };
        all.push((RungId::Injection, facts.name(), None, hook.boxed_local()));
    }
    all
}

fn of_pairs<'a>(scene: &'a Scene<'a>, own: &'a [Own], unnamed: &BTreeSet<String>) -> Vec<One<'a>> {
    let mut all: Vec<One<'a>> = Vec::new();
    let planes = scene.planes();
    for plane in planes.iter().copied().filter(|plane| plane.silent().is_none()) {
        for read in read_by(scene, plane).filter(|read| read.silent().is_none()) {
            let (from, to) = (plane.name(), Some(read.name()));
            if unnamed.contains(read.name()) {
                // A secret and a sync status are of a name.
                let why = "neither an istiod, nor the path of the webhook, nor a dry run of injection says what the mesh calls it";
                let unseen = async move { vec![Check::Unseen(why.to_owned())] };
                all.push((RungId::ClusterSynced, from, to, unseen.boxed_local()));
                continue;
            }
            all.push((RungId::RemoteSecret, from, to, remote_secret::one(scene, plane, read).boxed_local()));
            let reach = async move { vec![api_server::reach(scene, plane, read).await] };
            all.push((RungId::ApiServer, from, to, reach.boxed_local()));
            let synced = async move { synced::pair(scene, plane, read).await };
            all.push((RungId::ClusterSynced, from, to, synced.boxed_local()));
            if scene.network(plane) != scene.network(read) {
                let known = async move { vec![gateway::is_known(scene, plane, read).await] };
                all.push((RungId::Gateway, from, to, known.boxed_local()));
            }
        }
    }
    let answering: Vec<(&Facts, &Own)> = scene.facts.iter().zip(own).filter(|(f, _)| f.silent().is_none()).collect();
    for (at, (one, ones)) in answering.iter().enumerate() {
        for (two, twos) in answering[at + 1..].iter().filter(|(two, _)| two.name() != one.name()) {
            let (from, to) = (one.name(), Some(two.name()));
            if scene.network(one) == scene.network(two) {
                let check = overlap(scene, (one, &ones.pods), (two, &twos.pods));
                all.push((RungId::NodeRoute, from, to, async move { vec![check] }.boxed_local()));
            }
            let check = same_root(scene, (one, &ones.root), (two, &twos.root));
            all.push((RungId::Trust, from, to, async move { vec![check] }.boxed_local()));
        }
    }
    all
}

/// Pods of one network must have addresses of their own.
fn overlap(scene: &Scene<'_>, one: (&Facts, &Answer<Vec<IpNet>>), two: (&Facts, &Answer<Vec<IpNet>>)) -> Check {
    let (ones, twos) = match (one.1, two.1) {
        (Ok(ones), Ok(twos)) => (ones, twos),
        (Err(why), _) | (_, Err(why)) => return Check::Unseen(why.clone()),
    };
    if ones.is_empty() || twos.is_empty() {
        return Check::Unseen("nodes without a pod CIDR: the pods' ranges are not known".into());
    }
    let both = ones.iter().flat_map(|a| twos.iter().map(move |b| (a, b)));
    let mut both = both.filter(|(a, b)| a.contains(*b) || b.contains(*a));
    match both.next() {
        None => Check::Holds("their pods have different ranges".into()),
        Some((a, b)) => Check::from(Broken {
            expected: format!(
                "pods of {} and {} have different addresses: they share a network",
                one.0.name(),
                two.0.name()
            ),
            observed: format!("{} has pods in {a}, {} in {b}", one.0.name(), two.0.name()),
            command: scene
                .kubectl(&one.0.cluster, "get nodes -o custom-columns=NAME:.metadata.name,PODS:.spec.podCIDR"),
            fix: format!(
                "label namespace {} of each cluster with its own topology.istio.io/network and use gateways, or give one of \
                 them another pod CIDR",
                one.0.system
            ),
        }),
    }
}

/// Proxies of two clusters verify each other only by a common root.
fn same_root(
    scene: &Scene<'_>,
    one: (&Facts, &Answer<Option<String>>),
    two: (&Facts, &Answer<Option<String>>),
) -> Check {
    let (ones, twos) = match (one.1, two.1) {
        (Ok(Some(ones)), Ok(Some(twos))) => (ones, twos),
        (Err(why), _) | (_, Err(why)) => return Check::Unseen(why.clone()),
        (Ok(None), _) => return Check::Unseen(format!("{} has no ConfigMap {ROOT} in {}", one.0.name(), one.0.system)),
        (_, Ok(None)) => return Check::Unseen(format!("{} has no ConfigMap {ROOT} in {}", two.0.name(), two.0.system)),
    };
    // Each may hold several roots, while one replaces another.
    let certificates = |text: &str| -> BTreeSet<String> {
        let parts =
            text.split_inclusive("-----END CERTIFICATE-----").map(|pem| pem.split_whitespace().collect::<String>());
        parts.filter(|pem| !pem.is_empty()).collect()
    };
    let (ones, twos) = (certificates(ones), certificates(twos));
    if ones.intersection(&twos).next().is_some() {
        return Check::Holds("they have one root".into());
    }
    Check::from(Broken {
        expected: format!("proxies of {} and {} trust one root", one.0.name(), two.0.name()),
        observed: "ConfigMap istio-ca-root-cert holds different roots: mutual TLS between the clusters fails".into(),
        command: scene.kubectl(
            &two.0.cluster,
            &format!("-n {} get configmap {ROOT} -o 'jsonpath={{.data.root-cert\\.pem}}' | openssl x509 -noout -serial -subject", two.0.system),
        ),
        fix: "create a `cacerts` secret of one root in both clusters, and restart istiod (istio.io: Plug in CA Certificates)".into(),
    })
}
