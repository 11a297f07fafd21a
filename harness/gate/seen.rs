//! Has istiod read the change? Its inputs are compared with what the API servers hold, per cluster that it reads.

use std::collections::BTreeSet;
use std::time::Duration;

use super::GateError;
use super::change::{DebugPage, Fate, Object};
use super::kubernetes::{Offered, OfferedService};
use crate::observe::AdminError;
use crate::observe::istiod::{ControlPlane, ReadCluster};
use crate::observe::mesh_config::not_in_force;
use crate::observe::registry::{RegisteredService, Shards};

/// A Service that istiod does not list within this time is one that it does not read (`discoverySelectors`); a field of MeshConfig
/// that was removed and is still in force then has that value by default.
const NOT_READ: Duration = Duration::from_secs(5);

/// Where istiod does not show that it has read an object, so much time passes instead: its watches bring changes within
/// milliseconds.
const UNSHOWN: Duration = Duration::from_secs(1);

/// One istiod, and what it reads.
pub(super) struct Reader {
    pub plane: ControlPlane,
    /// The cluster that it reads its configuration from.
    pub config_cluster: String,
    /// The clusters whose Services and endpoints it reads, by its own account.
    reads: Vec<ReadCluster>,
}

impl Reader {
    /// What the istiod says that it reads.
    pub async fn of(plane: ControlPlane) -> Result<Self, GateError> {
        let reads = plane.reads(0).await.map_err(|error| plane.error(error))?;
        let own = reads.iter().find(|r| r.secret_name.is_empty()).map(|r| r.id.clone());
        Ok(Self { config_cluster: own.unwrap_or_else(|| plane.cluster.name.clone()), plane, reads })
    }

    /// The clusters whose Services and endpoints it reads.
    pub fn clusters(&self) -> BTreeSet<&str> {
        self.reads.iter().map(|r| r.id.as_str()).collect()
    }

    /// Whether it reads the object at all.
    pub fn reads(&self, object: &Object) -> bool {
        let cluster = object.cluster.name.as_str();
        match object.page {
            DebugPage::Config | DebugPage::MeshConfig => cluster == self.config_cluster,
            DebugPage::Service | DebugPage::Unseen => self.clusters().contains(cluster),
        }
    }

    /// What it has not read yet, one line each. `waited`: since the change.
    pub async fn unread(
        &self,
        objects: &[Object],
        offered: &[Offered],
        waited: Duration,
    ) -> Result<Vec<String>, GateError> {
        let mut missing = Vec::new();
        if !offered.is_empty() {
            missing.extend(self.not_synced().await?);
        }
        for istiod in 0..self.plane.pods.len() {
            let unread = self.unread_by(istiod, objects, offered, waited).await;
            missing.extend(unread.map_err(|error| self.plane.error(error))?);
        }
        missing.dedup();
        Ok(missing)
    }

    /// Clusters that it has a remote secret for and has not synced.
    async fn not_synced(&self) -> Result<Vec<String>, GateError> {
        let synced = |name: &String| self.reads.iter().any(|r| r.id == *name && r.sync_status == "synced");
        let configured = self.plane.watched().await?;
        let missing = configured.iter().filter(|name| **name != self.plane.cluster.name && !synced(name));
        Ok(missing.map(|name| format!("istiod in {} has not synced {name}", self.plane.cluster.name)).collect())
    }

    async fn unread_by(
        &self,
        istiod: usize,
        objects: &[Object],
        offered: &[Offered],
        waited: Duration,
    ) -> Result<Vec<String>, AdminError> {
        let own: Vec<&Object> = objects.iter().filter(|o| self.reads(o) && o.fate() != Fate::Same).collect();
        let has = |page: DebugPage| own.iter().any(|o| o.page == page);
        let mut missing = Vec::new();
        let here = &self.plane.cluster.name;
        if has(DebugPage::Config) {
            let configs = self.plane.configs(istiod).await?;
            let unread = own
                .iter()
                .filter(|o| o.page == DebugPage::Config)
                .filter(|o| !configs.has(&o.reference, o.version().as_deref()));
            missing.extend(unread.map(|o| format!("istiod in {here} does not hold {} as applied yet", o.reference)));
        }
        if has(DebugPage::MeshConfig) {
            let mesh = self.plane.mesh_config(istiod).await?;
            for object in own.iter().filter(|o| o.page == DebugPage::MeshConfig) {
                let text =
                    object.object.as_ref().and_then(|o| o.data.pointer("/data/mesh")?.as_str().map(str::to_owned));
                // A field that was removed and keeps its value has Istio's own default.
                let before = object.mesh_config_before().filter(|_| waited < NOT_READ);
                if let Some(field) = text.and_then(|text| not_in_force(&text, before.as_deref(), &mesh)) {
                    missing.push(format!("istiod in {here} does not use `{field}` of {} yet", object.reference));
                }
            }
        }
        if waited < UNSHOWN && has(DebugPage::Unseen) {
            missing.push(format!("istiod in {here} shows nothing about {}", names(&own, DebugPage::Unseen)));
        }
        if has(DebugPage::Service) || !offered.is_empty() {
            let services = self.plane.services(istiod).await?;
            for object in own.iter().filter(|o| o.page == DebugPage::Service) {
                if !self.holds_service(object, &services, waited) {
                    missing.push(format!("istiod in {here} does not hold {object} as applied yet"));
                }
            }
            if !offered.is_empty() {
                let shards = self.plane.shards(istiod).await?;
                missing.extend(self.endpoints(&services, &shards, offered, waited));
            }
        }
        Ok(missing)
    }

    /// istiod shows the version of one Service only where it merges those of several clusters: that of its config cluster if
    /// there is one (`pilot/pkg/serviceregistry/aggregate/controller.go`).
    fn holds_service(&self, object: &Object, services: &[RegisteredService], waited: Duration) -> bool {
        let cluster = object.cluster.name.as_str();
        let known = services.iter().find(|s| s.is(&object.reference.namespace, &object.reference.name));
        match (known, object.version()) {
            (None, None) => true,
            (Some(known), None) => !known.clusters().contains(cluster),
            (Some(known), Some(version)) if known.resource_version == version => true,
            (Some(known), Some(_)) => {
                let alone = known.clusters().iter().all(|c| *c == cluster);
                cluster != self.config_cluster && !alone && waited >= UNSHOWN
            }
            (None, Some(_)) => waited >= NOT_READ,
        }
    }

    /// The endpoints that Kubernetes offers and istiod has not read, or the other way round.
    fn endpoints(
        &self,
        services: &[RegisteredService],
        shards: &Shards,
        offered: &[Offered],
        waited: Duration,
    ) -> Vec<String> {
        let reads = self.clusters();
        let here = &self.plane.cluster.name;
        let mut missing = Vec::new();
        for cluster in offered {
            let name = cluster.cluster.as_str();
            let is_read = reads.contains(name);
            for service in cluster.services.iter().filter(|s| is_read && s.has_address && waited < NOT_READ) {
                let known = services.iter().find(|s| s.is(&service.namespace, &service.name));
                if known.is_none_or(|known| !known.clusters().contains(name)) {
                    let (namespace, service) = (&service.namespace, &service.name);
                    missing.push(format!("istiod in {here} does not list {namespace}/{service} of {name} yet"));
                }
            }
            // A Service that is gone, or whose cluster is not read any more, leaves no endpoints.
            let of_namespaces = services.iter().filter(|s| cluster.namespaces.contains(&s.attributes.namespace));
            for known in of_namespaces.filter(|s| s.is_kubernetes() && !s.is_exported_to_nobody()) {
                let (namespace, service) = (&known.attributes.namespace, &known.attributes.name);
                let offered = cluster.services.iter().find(|s| s.namespace == *namespace && s.name == *service);
                let nothing = OfferedService::nothing(namespace, service);
                let wanted = offered.filter(|_| is_read).unwrap_or(&nothing);
                if let Some(what) = differs(wanted, name, known, shards) {
                    missing.push(format!("istiod in {here} {what}"));
                }
            }
        }
        missing
    }
}

fn names(objects: &[&Object], page: DebugPage) -> String {
    objects.iter().filter(|o| o.page == page).map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How istiod's endpoints of a Service in one cluster differ from those that Kubernetes offers.
fn differs(service: &OfferedService, cluster: &str, known: &RegisteredService, shards: &Shards) -> Option<String> {
    let healthy = shards.healthy(&known.hostname, &service.namespace, cluster);
    let name = format!("{}/{}", service.namespace, service.name);
    // Of a pod with addresses of both families istiod may know the first one only.
    let both = service.ready.iter().any(std::net::SocketAddr::is_ipv4);
    let wanted = || service.ready.iter().filter(|a| a.is_ipv4() || !both);
    if let Some(address) = wanted().find(|a| !healthy.contains_key(a)) {
        return Some(format!("has not read endpoint {address} of {name} in {cluster}"));
    }
    if let Some(address) = healthy.keys().find(|a| !service.ready.contains(a)) {
        return Some(format!("still holds endpoint {address} of {name} in {cluster}"));
    }
    // An address may have gone to another pod.
    let other = healthy.iter().find(|(address, endpoint)| {
        let labels = service.labels.get(&address.ip()).into_iter().flatten();
        let held = |key: &String| endpoint.labels.as_ref().and_then(|l| l.get(key));
        labels.filter(|(key, _)| !is_set_by_istiod(key)).any(|(key, value)| held(key) != Some(value))
    });
    other.map(|(address, _)| format!("has old labels of endpoint {address} of {name} in {cluster}"))
}

/// Labels that istiod sets on endpoints itself (`pilot/pkg/serviceregistry/util/label/label.go`).
fn is_set_by_istiod(label: &str) -> bool {
    label.starts_with("topology.")
        || label == "kubernetes.io/hostname"
        || label.starts_with("security.istio.io/tlsMode")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    const HOST: &str = "helloworld.app1.svc.cluster.local";

    /// As `/debug/endpointShardz` and `/debug/registryz` of Istio 1.31 wrote them, cut down.
    fn istiod(address: &str, health: i32, version: &str) -> (RegisteredService, Shards) {
        let service = json!({ "hostname": HOST, "ResourceVersion": "371",
            "Attributes": { "ServiceRegistry": "Kubernetes", "Name": "helloworld", "Namespace": "app1", "ExportTo": null },
            "clusterVIPs": { "Addresses": { "cluster1": ["10.110.87.215"], "cluster2": ["10.120.27.175"] } } });
        let shards = json!({ HOST: { "app1": { "Shards": { "Kubernetes/cluster2": [{
            "Labels": { "version": version, "topology.istio.io/cluster": "cluster2" }, "Addresses": [address], "EndpointPort": 5000,
            "HealthStatus": health }] }, "ServiceAccounts": {} } } });
        (serde_json::from_value(service).unwrap(), serde_json::from_value(shards).unwrap())
    }

    #[rstest]
    #[case::read("10.20.0.2", 1, "v2", None)]
    #[case::not_yet("10.20.0.9", 1, "v2", Some("has not read endpoint 10.20.0.2:5000 of app1/helloworld in cluster2"))]
    #[case::not_healthy_yet(
        "10.20.0.2",
        2,
        "v2",
        Some("has not read endpoint 10.20.0.2:5000 of app1/helloworld in cluster2")
    )]
    #[case::the_address_of_another_pod(
        "10.20.0.2",
        1,
        "v1",
        Some("has old labels of endpoint 10.20.0.2:5000 of app1/helloworld in cluster2")
    )]
    fn endpoints_that_istiod_has_read(
        #[case] address: &str,
        #[case] health: i32,
        #[case] version: &str,
        #[case] expected: Option<&str>,
    ) {
        let (known, shards) = istiod(address, health, version);
        let service = OfferedService {
            namespace: "app1".into(),
            name: "helloworld".into(),
            has_address: true,
            ready: BTreeSet::from(["10.20.0.2:5000".parse().unwrap()]),
            labels: [("10.20.0.2".parse().unwrap(), [("version".to_owned(), "v2".to_owned())].into())].into(),
        };
        assert_eq!(differs(&service, "cluster2", &known, &shards).as_deref(), expected);
        let gone = OfferedService::nothing("app1", "helloworld");
        let left = differs(&gone, "cluster2", &known, &shards);
        assert_eq!(left.is_some(), health == 1, "a cluster that is no longer read leaves no endpoints");
    }
}
