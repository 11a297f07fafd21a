//! The endpoints of a DestinationRule's subsets in a proxy.
//!
//! A subset's labels are no part of its Envoy cluster, so an Envoy cluster that is in force says nothing about them: only
//! the endpoints do. Which those are follows from Kubernetes: of the service's endpoints that this very proxy holds, the
//! pods with the subset's labels. (What the service itself should have is the matter of [`super::serving`].)

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::Value;

use super::GateError;
use super::endpoints::{difference, in_full};
use crate::observe::held::{Held, Kind};
use crate::observe::pods::{is_ending, selects};
use crate::observe::{ObjectRef, kube_error};
use crate::provider::Cluster;

type Labels = BTreeMap<String, String>;

/// Host and name of a subset.
type Key = (String, String);

/// What a DestinationRule defines.
#[derive(Debug)]
struct Rule {
    /// Whether it is one of the change.
    changed: bool,
    subsets: Vec<(Key, Labels)>,
}

/// What the DestinationRules of a change say about endpoints.
#[derive(Debug, Default)]
pub(super) struct Subsets {
    /// By host and subset, the labels; only those that no other rule defines in another way.
    labels: BTreeMap<Key, Labels>,
    /// Labels and cluster of the pod at an address; none where several pods share it (the host's network).
    pods: BTreeMap<IpAddr, (Labels, String)>,
}

impl Subsets {
    /// Reads the rules among `changed` from `cluster`, and the pods of all clusters.
    pub async fn read(clusters: &[Cluster], cluster: &Cluster, changed: &[ObjectRef]) -> Result<Self, GateError> {
        let Some(kind) = changed.iter().find(|o| o.kind == "DestinationRule") else { return Ok(Self::default()) };
        let all = ObjectRef { namespace: String::new(), ..kind.clone() }.api(cluster);
        let rules = all.list(&ListParams::default()).await;
        let rules = rules.map_err(kube_error(cluster, "list the DestinationRules"))?.items;
        let rules = rules.iter().map(|rule| {
            let (namespace, name) = (rule.namespace().unwrap_or_default(), rule.name_any());
            let changed = changed.iter().any(|o| o.kind == kind.kind && o.namespace == namespace && o.name == name);
            Rule { changed, subsets: subsets(&namespace, rule.data.get("spec").unwrap_or(&Value::Null)) }
        });
        let labels = undisputed(&rules.collect::<Vec<_>>());
        if labels.is_empty() {
            return Ok(Self::default());
        }
        let pods = try_join_all(clusters.iter().map(|cluster| async move {
            let pods: Api<Pod> = Api::all(cluster.client.clone());
            let list = pods.list(&ListParams::default()).await.map_err(kube_error(cluster, "list pods"))?;
            Ok::<_, GateError>(list.items.into_iter().map(|pod| (cluster.name.clone(), pod)))
        }));
        Ok(Self { labels, pods: by_address(pods.await?.into_iter().flatten()) })
    }

    /// Whether there is nothing to compare.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The first subset whose endpoints, among those that `endpoints` has for the service, are not those with its labels.
    pub fn difference(&self, held: &Held, endpoints: &BTreeMap<String, BTreeSet<SocketAddr>>) -> Option<String> {
        let nothing = BTreeSet::new();
        held.iter().filter(|((kind, _), _)| *kind == Kind::Cluster).find_map(|((_, name), resource)| {
            let (port, subset, host) = parts(name)?;
            let labels = self.labels.get(&(host.to_owned(), subset.to_owned()))?;
            // Other types of Envoy clusters are given no endpoints: they resolve a name, or follow the caller's address.
            if !is_given_endpoints(&resource.text) {
                return None;
            }
            let whole = endpoints.get(&format!("outbound|{port}||{host}")).unwrap_or(&nothing);
            // An address that is no pod's (a gateway of another network) stands for pods that are not seen from here.
            let pod_at = |address: &SocketAddr| self.pods.get(&address.ip());
            let expected = whole.iter().filter_map(|a| {
                let (of_pod, cluster) = pod_at(a)?;
                selects(labels, of_pod).then(|| (*a, cluster.clone()))
            });
            let found = endpoints.get(name).unwrap_or(&nothing).iter().filter(|a| pod_at(a).is_some()).copied();
            difference(name, &expected.collect(), &found.collect())
        })
    }
}

/// Port, subset and host of an Envoy cluster of a subset: `outbound|5000|v2|helloworld.app1.svc.cluster.local`.
fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let mut parts = name.strip_prefix("outbound|")?.splitn(3, '|');
    let (port, subset, host) = (parts.next()?, parts.next()?, parts.next()?);
    (!subset.is_empty()).then_some((port, subset, host))
}

fn is_given_endpoints(cluster: &str) -> bool {
    let cluster: Value = serde_json::from_str(cluster).unwrap_or_default();
    cluster.get("type").and_then(Value::as_str) == Some("EDS")
}

/// The subsets that a rule's specification defines, by host and name.
fn subsets(namespace: &str, spec: &Value) -> Vec<(Key, Labels)> {
    let Some(host) = spec.get("host").and_then(Value::as_str) else { return Vec::new() };
    let host = in_full(host, namespace);
    let list = spec.get("subsets").and_then(Value::as_array).into_iter().flatten();
    let subsets = list.filter_map(|subset| {
        let name = subset.get("name")?.as_str()?.to_owned();
        let labels =
            subset.get("labels").map_or_else(|| Some(Labels::new()), |l| serde_json::from_value(l.clone()).ok())?;
        Some(((host.clone(), name), labels))
    });
    subsets.collect()
}

/// The subsets of the changed rules, without those that any rule defines in another way: which one counts depends on who calls.
fn undisputed(rules: &[Rule]) -> BTreeMap<Key, Labels> {
    let all = || rules.iter().flat_map(|rule| &rule.subsets);
    let changed = rules.iter().filter(|rule| rule.changed).flat_map(|rule| &rule.subsets);
    changed.filter(|(key, labels)| all().all(|(k, l)| k != key || l == labels)).cloned().collect()
}

fn by_address(pods: impl Iterator<Item = (String, Pod)>) -> BTreeMap<IpAddr, (Labels, String)> {
    let mut found: BTreeMap<IpAddr, Vec<(Labels, String)>> = BTreeMap::new();
    for (cluster, pod) in pods {
        let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()?.parse().ok());
        if let Some(ip) = ip.filter(|_| !is_ending(&pod)) {
            found.entry(ip).or_default().push((pod.labels().clone(), cluster));
        }
    }
    found.into_iter().filter_map(|(ip, mut at)| if at.len() == 1 { Some((ip, at.pop()?)) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::held::Resource;
    use rstest::rstest;
    use serde_json::json;

    const HOST: &str = "helloworld.app1.svc.cluster.local";

    fn rule(changed: bool, host: &str, version: &str) -> Rule {
        let spec = json!({ "host": host, "subsets": [{ "name": "v2", "labels": { "version": version } }] });
        Rule { changed, subsets: subsets("app1", &spec) }
    }

    /// What is wrong with a proxy that holds the service at .1 (v1) and .2 (v2), and these in its subset v2.
    fn wrong(version: &str, kind: &str, subset: &[&str]) -> Option<String> {
        let pod = |ip: &str, version: &str| {
            let pod = json!({ "metadata": { "labels": { "app": "helloworld", "version": version } }, "status": { "podIP": ip } });
            ("c1".to_owned(), serde_json::from_value(pod).unwrap())
        };
        // Two pods share .9: nobody can tell whose it is.
        let pods = [pod("10.0.0.1", "v1"), pod("10.0.0.2", "v2"), pod("10.0.0.9", "v1"), pod("10.0.0.9", "v2")];
        let subsets = Subsets { labels: undisputed(&[rule(true, HOST, version)]), pods: by_address(pods.into_iter()) };
        let text = json!({ "type": kind }).to_string();
        let resource = || Resource { hash: String::new(), text: text.clone(), made_from: Vec::new() };
        let (whole, name) = (format!("outbound|5000||{HOST}"), format!("outbound|5000|v2|{HOST}"));
        let held = [&whole, &name].map(|n| ((Kind::Cluster, n.clone()), resource())).into_iter().collect();
        let addresses = |list: &[&str]| list.iter().map(|a| format!("10.0.0.{a}:5000").parse().unwrap()).collect();
        let endpoints = BTreeMap::from([(whole, addresses(&["1", "2", "9"])), (name, addresses(subset))]);
        subsets.difference(&held, &endpoints)
    }

    #[rstest]
    #[case::those_with_the_label("v2", "EDS", &["2"], None)]
    #[case::labels_that_no_pod_has("v9", "EDS", &[], None)]
    #[case::still_those_of_the_rule_before("v9", "EDS", &["2"], Some("still holds endpoint 10.0.0.2:5000"))]
    #[case::not_yet_there("v2", "EDS", &[], Some("lacks endpoint 10.0.0.2:5000 (c1)"))]
    #[case::whose_it_is_cannot_be_told("v2", "EDS", &["2", "9"], None)]
    #[case::no_endpoints_are_given("v2", "ORIGINAL_DST", &[], None)]
    fn a_subset_holds_the_pods_with_its_labels(
        #[case] version: &str,
        #[case] kind: &str,
        #[case] subset: &[&str],
        #[case] expected: Option<&str>,
    ) {
        let expected = expected.map(|what| format!("outbound|5000|v2|{HOST} {what}"));
        assert_eq!(wrong(version, kind, subset), expected);
    }

    #[rstest]
    #[case::one_rule(&[rule(true, HOST, "v2")], 1)]
    #[case::a_short_name(&[rule(true, "helloworld", "v2"), rule(false, HOST, "v2")], 1)]
    #[case::another_says_otherwise(&[rule(true, HOST, "v2"), rule(false, "helloworld", "v9")], 0)]
    #[case::two_of_ours_differ(&[rule(true, HOST, "v2"), rule(true, HOST, "v9")], 0)]
    #[case::of_others_only(&[rule(false, HOST, "v2")], 0)]
    #[case::of_another_host(&[rule(true, HOST, "v2"), rule(false, "other", "v9")], 1)]
    fn only_what_no_rule_disputes_is_known(#[case] rules: &[Rule], #[case] expected: usize) {
        assert_eq!(undisputed(rules).len(), expected);
    }

    #[rstest]
    #[case::of_a_subset("outbound|5000|v2|helloworld.app1.svc.cluster.local", Some(("5000", "v2", HOST)))]
    #[case::of_the_service("outbound|5000||helloworld.app1.svc.cluster.local", None)]
    #[case::of_the_pod_itself("inbound|5000||", None)]
    #[case::of_envoy("xds-grpc", None)]
    fn names_of_subsets(#[case] name: &str, #[case] expected: Option<(&str, &str, &str)>) {
        assert_eq!(parts(name), expected);
    }
}
