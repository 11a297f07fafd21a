//! Who calls whom, over which control planes.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::facts::{Facts, label};
use super::live::Live;
use super::rung::{Answer, within};
use super::{DiagnoseError, Question, imports, names};
use crate::apply::Reason;
use crate::observe::pods::is_ending;
use crate::observe::pods::selects;
use crate::provider::{Cluster, PodAt};
use crate::workload::PodInfo;

/// Everything that the looks are about.
pub(super) struct Scene<'a> {
    pub question: &'a Question<'a>,
    /// The clusters, in the question's order.
    pub facts: Vec<Facts>,
    pub caller: Caller,
    /// Name and namespace of the service that is called; `None`: it is none of a cluster.
    pub service: Option<(String, String)>,
    /// Name and namespace of the service of another mesh that the host is imported from.
    pub exported: Option<(String, String)>,
    /// What proxies and control planes say, once somebody has asked.
    pub live: Live,
}

/// The calling workload.
pub(super) struct Caller {
    /// Which of the clusters it is in.
    cluster: usize,
    pub namespace: String,
    /// Its Deployment; the text says why it was not seen.
    pub deployment: Answer<Deployment>,
    /// Its pods that are not ending.
    pub pods: Vec<Pod>,
}

/// A pod behind the service.
#[derive(Clone, Copy)]
pub(super) struct Server<'a> {
    pub facts: &'a Facts,
    pub pod: &'a Pod,
}

impl Server<'_> {
    pub fn info(&self) -> PodInfo {
        PodInfo::of(self.pod)
    }
}

impl<'a> Scene<'a> {
    /// Reads from all API servers what every check needs.
    pub async fn set(question: &'a Question<'a>) -> Result<Self, DiagnoseError> {
        let from = question.from;
        let at = question.clusters.iter().position(|c| c.name == from.cluster);
        let at = at.ok_or_else(|| DiagnoseError::Unknown {
            what: "cluster",
            name: from.cluster.clone(),
            known: question.clusters.iter().map(|c| c.name.clone()).collect(),
        })?;
        let preferred = question.to.service("").map(|(_, namespace)| namespace).filter(|n| !n.is_empty());
        let found = find(&question.clusters[at], &from.name, question.namespace, preferred.as_deref()).await?;
        let namespace = match &found {
            Ok(deployment) => deployment.namespace().unwrap_or_default(),
            Err(_) => question.namespace.map(str::to_owned).or(preferred).unwrap_or_else(|| "default".to_owned()),
        };
        let service = question.to.service(&namespace);
        let exported = match service {
            Some(_) => None,
            None => imports::exported(question).await,
        };
        let of_cluster = service.clone().or_else(|| exported.clone());
        let (name, of) = of_cluster.unwrap_or_else(|| ("kubernetes".to_owned(), namespace.clone()));
        let facts = join_all(question.clusters.iter().map(|cluster| Facts::of(cluster, &name, &of)));
        let pods = pods_of(&question.clusters[at], &namespace, found.as_ref().ok());
        let (facts, pods) = tokio::join!(facts, pods);
        if question.topology.is_none() {
            names::check(&facts).await?;
        }
        let caller = Caller { cluster: at, namespace, deployment: found, pods };
        Ok(Self { question, facts, caller, service, exported, live: Live::default() })
    }

    /// A whole mesh, without a call: clusters that were asked already, of which there is at least one.
    pub fn of_mesh(question: &'a Question<'a>, facts: Vec<Facts>) -> Self {
        let (deployment, pods) = (Err("nothing is called".to_owned()), Vec::new());
        let caller = Caller { cluster: 0, namespace: "default".to_owned(), deployment, pods };
        Self { question, facts, caller, service: None, exported: None, live: Live::default() }
    }

    /// The caller's cluster.
    pub fn home(&self) -> &Facts {
        &self.facts[self.caller.cluster]
    }

    /// The other clusters.
    pub fn others(&self) -> impl Iterator<Item = &Facts> {
        self.facts.iter().filter(|f| f.name() != self.home().name())
    }

    /// Whether its workloads are machines outside Kubernetes that join another cluster.
    pub fn has_machines(&self, facts: &Facts) -> bool {
        self.question.topology.is_some_and(|topology| topology.joined_by(facts.name()).is_some())
    }

    pub fn named(&self, cluster: &str) -> Option<&Facts> {
        self.facts.iter().find(|f| f.name() == cluster)
    }

    /// The pod that calls: a ready one, or any.
    pub fn caller_pod(&self) -> Option<&Pod> {
        self.caller.pods.iter().find(|p| PodInfo::of(p).ready).or_else(|| self.caller.pods.first())
    }

    /// Whether the caller has a proxy; `None`: it has no pod.
    pub fn caller_meshed(&self) -> Option<bool> {
        self.caller_pod().map(|pod| PodInfo::of(pod).sidecar)
    }

    /// The network that a cluster's pods are in.
    pub fn network(&self, facts: &Facts) -> String {
        match self.question.topology.and_then(|t| t.cluster(facts.name())) {
            Some(spec) => spec.network.clone(),
            None => {
                let namespace = facts.system_namespace.as_ref().ok().and_then(Option::as_ref);
                namespace.and_then(|ns| ns.labels().get("topology.istio.io/network").cloned()).unwrap_or_default()
            }
        }
    }

    /// Ordered pairs of clusters whose pods reach each other directly.
    pub fn flat_pairs(&self) -> Vec<(&Facts, &Facts)> {
        let mut pairs = Vec::new();
        for a in &self.facts {
            let others = self.facts.iter().filter(|b| a.name() != b.name() && self.network(a) == self.network(b));
            pairs.extend(others.map(|b| (a, b)));
        }
        pairs
    }

    /// The cluster whose control plane serves this one's proxies.
    pub fn primary(&self, facts: &Facts) -> Option<&Facts> {
        if let Some(spec) = self.question.topology.and_then(|t| t.cluster(facts.name())) {
            return spec.served_by().and_then(|istiod| self.named(istiod));
        }
        if facts.has_plane() {
            return self.named(facts.name());
        }
        let namespace = facts.system_namespace.as_ref().ok().and_then(Option::as_ref);
        let annotation = namespace.and_then(|ns| ns.annotations().get("topology.istio.io/controlPlaneClusters"));
        let named = annotation.and_then(|names| names.split(',').find_map(|name| self.named(name.trim())));
        named.or_else(|| self.facts.iter().find(|f| f.has_plane()))
    }

    /// The cluster that the control plane of the caller reads its configuration from.
    pub fn config(&self) -> Option<&Facts> {
        let plane = self.primary(self.home())?;
        let istiod = self.question.topology.and_then(|t| t.cluster(plane.name()));
        istiod.and_then(|spec| spec.reads_config_from()).map_or(Some(plane), |name| self.named(name))
    }

    /// The clusters whose control planes matter, each once.
    pub fn planes(&self) -> Vec<&Facts> {
        let mut planes: Vec<&Facts> = Vec::new();
        for primary in self.facts.iter().filter_map(|f| self.primary(f)) {
            if !planes.iter().any(|p| p.name() == primary.name()) {
                planes.push(primary);
            }
        }
        planes
    }

    /// Name and namespace of the service that serves the call: the one that its host names, or that it is imported from.
    pub fn serving(&self) -> Option<&(String, String)> {
        self.service.as_ref().or(self.exported.as_ref())
    }

    /// Whether pods of that cluster can be behind the service: of one that is imported, the caller's own mesh has none.
    pub fn may_serve(&self, facts: &Facts) -> bool {
        self.exported.is_none() || imports::trusted(self.question).iter().any(|spec| spec.name == facts.name())
    }

    /// The service as the first cluster that has it, the caller's ahead, describes it.
    pub fn service_spec(&self) -> Option<&Service> {
        let all = std::iter::once(self.home()).chain(self.others()).filter(|facts| self.may_serve(facts));
        all.filter_map(|f| f.service.as_ref().ok()?.as_ref()).next()
    }

    /// The pods behind the service in every cluster; where a cluster has no such service, that of another cluster is used.
    pub fn servers(&self) -> Vec<Server<'_>> {
        let mut servers = Vec::new();
        for facts in self.facts.iter().filter(|facts| self.may_serve(facts)) {
            let own = facts.service.as_ref().ok().and_then(Option::as_ref);
            let spec = own.or_else(|| self.service_spec()).and_then(|s| s.spec.as_ref());
            let Some(selector) = spec.and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty()) else { continue };
            let pods = facts.pods.as_ref().map_or(&[][..], Vec::as_slice);
            let behind = pods.iter().filter(|p| !is_ending(p) && selects(selector, p.labels()));
            servers.extend(behind.map(|pod| Server { facts, pod }));
        }
        servers
    }

    /// The version label of the pod that has this address.
    pub fn version_at(&self, address: std::net::IpAddr) -> Option<String> {
        let servers = self.servers();
        let at = servers.iter().find(|s| s.info().ip == Some(address))?;
        label(at.pod, "version").map(str::to_owned)
    }
}

/// Where a pod is, once it is anywhere.
pub(super) fn place(pod: &Pod) -> Option<PodAt> {
    let info = PodInfo::of(pod);
    Some(PodAt { pod: info.reference(), node: info.node.clone()?, address: info.ip? })
}

/// The first container of a pod that is no sidecar.
pub(super) fn container(pod: &Pod) -> String {
    let names = pod.spec.iter().flat_map(|s| &s.containers).map(|c| c.name.as_str());
    names.into_iter().find(|c| *c != "istio-proxy").unwrap_or("istio-proxy").to_owned()
}

/// The Deployment of that name, in `namespace` or wherever it is; the outer error says that there is none.
async fn find(
    cluster: &Cluster,
    name: &str,
    namespace: Option<&str>,
    preferred: Option<&str>,
) -> Result<Answer<Deployment>, DiagnoseError> {
    let api: Api<Deployment> = match namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    };
    let all = ListParams::default();
    let listed = within(format!("deployments of {}", cluster.name), async {
        api.list(&all).await.map_err(|e| Reason(&e).to_string())
    });
    let mut all = match listed.await {
        Ok(listed) => listed.items,
        Err(why) => return Ok(Err(why)),
    };
    // The namespace of what is called is the likeliest one.
    all.sort_by_key(|d| d.namespace().as_deref() != preferred);
    let known = || all.iter().map(|d| format!("{}@{}", d.name_any(), cluster.name)).collect();
    let found = all.iter().find(|d| d.name_any() == name);
    let missing = || DiagnoseError::Unknown { what: "workload", name: name.to_owned(), known: known() };
    found.cloned().map(Ok).ok_or_else(missing)
}

async fn pods_of(cluster: &Cluster, namespace: &str, deployment: Option<&Deployment>) -> Vec<Pod> {
    let Some(labels) = deployment.and_then(|d| d.spec.selector.match_labels.clone()) else { return Vec::new() };
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let all = ListParams::default();
    let listed = within("pods", async { api.list(&all).await }).await;
    let pods = listed.map(|l| l.items).unwrap_or_default();
    pods.into_iter().filter(|p| !is_ending(p) && selects(&labels, p.labels())).collect()
}
