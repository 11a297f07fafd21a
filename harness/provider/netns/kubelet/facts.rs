//! What a pod may ask about itself: the values of `fieldRef` and `resourceFieldRef`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, PodSpec, ResourceFieldSelector};

use super::quantity;

/// A pod, where it runs, and its address.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The pod as the API server has it.
    pub pod: Pod,
    /// Its own address.
    pub pod_ip: IpAddr,
    /// Its node's address.
    pub host_ip: IpAddr,
    /// What the node offers to pods: the limit of a container that states none.
    pub allocatable: BTreeMap<String, String>,
}

impl Facts {
    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// What was asked for.
    pub fn spec(&self) -> PodSpec {
        self.pod.spec.clone().unwrap_or_default()
    }

    /// The host name inside: `spec.hostname`, or the pod's name cut to what a host name may hold.
    pub fn hostname(&self) -> String {
        let wanted = self.pod.spec.as_ref().and_then(|s| s.hostname.clone()).unwrap_or_else(|| self.name().to_owned());
        wanted.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
    }

    /// The value of a `fieldRef`.
    ///
    /// # Errors
    /// The path of a field that is not known.
    pub fn field(&self, selector: &ObjectFieldSelector) -> Result<String, String> {
        let meta = &self.pod.metadata;
        let spec = self.pod.spec.as_ref();
        let path = selector.field_path.as_str();
        if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
            let values = match map {
                "metadata.labels" => &meta.labels,
                "metadata.annotations" => &meta.annotations,
                _ => return Err(format!("fieldRef {path}: unknown (known: {KNOWN})")),
            };
            return Ok(values.as_ref().and_then(|v| v.get(key)).cloned().unwrap_or_default());
        }
        Ok(match path {
            "metadata.name" => self.name().to_owned(),
            "metadata.namespace" => self.namespace().to_owned(),
            "metadata.uid" => meta.uid.clone().unwrap_or_default(),
            "metadata.labels" => lines(meta.labels.as_ref()),
            "metadata.annotations" => lines(meta.annotations.as_ref()),
            "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
            "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
            "status.podIP" | "status.podIPs" => self.pod_ip.to_string(),
            "status.hostIP" | "status.hostIPs" => self.host_ip.to_string(),
            _ => return Err(format!("fieldRef {path}: unknown (known: {KNOWN})")),
        })
    }

    /// The value of a `resourceFieldRef` in `container`, or in the container that it names.
    ///
    /// # Errors
    /// A resource that is not known, or a container that is not there.
    pub fn resource(&self, selector: &ResourceFieldSelector, container: Option<&Container>) -> Result<String, String> {
        let spec = self.spec();
        let named = match &selector.container_name {
            Some(name) => {
                let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
                all.clone().find(|c| c.name == *name)
            }
            None => container,
        };
        let named = named.ok_or_else(|| format!("resourceFieldRef {}: no such container", selector.resource))?;
        let (kind, resource) = selector.resource.split_once('.').unwrap_or_default();
        let resources = named.resources.as_ref();
        let stated = match kind {
            "limits" => resources.and_then(|r| r.limits.as_ref()),
            "requests" => resources.and_then(|r| r.requests.as_ref()),
            _ => return Err(format!("resourceFieldRef {}: unknown (known: limits.…, requests.…)", selector.resource)),
        };
        let stated = stated.and_then(|values| values.get(resource)).map(|q| q.0.clone());
        // As the kubelet: a container without a limit has the whole node.
        let value = match (stated, kind) {
            (Some(value), _) => value,
            (None, "limits") => self.allocatable.get(resource).cloned().unwrap_or_else(|| "0".into()),
            (None, _) => "0".into(),
        };
        let divisor = selector.divisor.as_ref().map_or("1", |q| q.0.as_str());
        quantity::in_units_of(&value, divisor)
            .map(|v| v.to_string())
            .ok_or_else(|| format!("resourceFieldRef {}: {value} is not a quantity", selector.resource))
    }
}

const KNOWN: &str = "metadata.name, .namespace, .uid, .labels, .annotations, .labels['KEY'], .annotations['KEY'], \
                     spec.nodeName, spec.serviceAccountName, status.podIP, .podIPs, .hostIP, .hostIPs";

/// A map as the kubelet writes it into a file: `key="value"` lines, sorted.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    /// A pod of two containers, for the tests of this folder.
    pub(crate) fn facts() -> Facts {
        let pod = json!({
            "metadata": {
                "name": "web-1", "namespace": "app1", "uid": "u-1",
                "labels": {"app": "web", "b.c/d": "e"}, "annotations": {"note": "say \"hi\""}
            },
            "spec": {
                "nodeName": "n1", "serviceAccountName": "web",
                "containers": [
                    {"name": "web", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}},
                    {"name": "free"}
                ]
            }
        });
        Facts {
            pod: serde_json::from_value(pod).unwrap(),
            pod_ip: "10.10.0.5".parse().unwrap(),
            host_ip: "172.18.0.2".parse().unwrap(),
            allocatable: [("cpu".to_owned(), "2".to_owned()), ("memory".to_owned(), "24Gi".to_owned())].into(),
        }
    }

    #[rstest]
    #[case("metadata.name", "web-1")]
    #[case("metadata.namespace", "app1")]
    #[case("metadata.uid", "u-1")]
    #[case("metadata.labels['b.c/d']", "e")]
    #[case("metadata.labels['none']", "")]
    #[case("metadata.annotations['note']", "say \"hi\"")]
    #[case("metadata.labels", "app=\"web\"\nb.c/d=\"e\"")]
    #[case("metadata.annotations", "note=\"say \\\"hi\\\"\"")]
    #[case("spec.nodeName", "n1")]
    #[case("spec.serviceAccountName", "web")]
    #[case("status.podIP", "10.10.0.5")]
    #[case("status.podIPs", "10.10.0.5")]
    #[case("status.hostIP", "172.18.0.2")]
    fn field_references(#[case] path: &str, #[case] expected: &str) {
        let selector = ObjectFieldSelector { field_path: path.into(), ..Default::default() };
        assert_eq!(facts().field(&selector).unwrap(), expected);
    }

    #[rstest]
    #[case("spec.bogus")]
    #[case("spec.labels['a']")]
    fn unknown_fields_are_errors_that_list_the_known(#[case] path: &str) {
        let selector = ObjectFieldSelector { field_path: path.into(), ..Default::default() };
        assert!(facts().field(&selector).unwrap_err().contains("known: metadata.name"));
    }

    #[rstest]
    #[case::own_limit("web", None, "limits.cpu", "1", "2")]
    #[case::divided("web", None, "limits.memory", "1Mi", "1024")]
    #[case::of_another("free", Some("web"), "limits.cpu", "1m", "1500")]
    #[case::the_whole_node("free", None, "limits.cpu", "1", "2")]
    #[case::no_request("free", None, "requests.cpu", "1", "0")]
    fn resource_references(
        #[case] container: &str,
        #[case] named: Option<&str>,
        #[case] resource: &str,
        #[case] divisor: &str,
        #[case] expected: &str,
    ) {
        let facts = facts();
        let selector =
            serde_json::from_value(json!({"containerName": named, "resource": resource, "divisor": divisor})).unwrap();
        let spec = facts.spec();
        let container = spec.containers.iter().find(|c| c.name == container);
        assert_eq!(facts.resource(&selector, container).unwrap(), expected);
    }

    #[rstest]
    #[case("web-1", "web-1")]
    #[case(&"x".repeat(70), &"x".repeat(63))]
    #[case(&format!("{}-{}", "x".repeat(62), "y"), &"x".repeat(62))]
    fn host_names_fit(#[case] name: &str, #[case] expected: &str) {
        let mut facts = facts();
        facts.pod.metadata.name = Some(name.into());
        assert_eq!(facts.hostname(), expected);
    }
}
