//! The ConfigMaps and Secrets that a pod names.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret};
use kube::{Api, Client};

/// A kind of object that holds data for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ConfigMap.
    ConfigMap,
    /// Secret.
    Secret,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        })
    }
}

/// An object's kind and name.
pub type Named = (Kind, String);

/// The data of the objects that exist.
#[derive(Debug, Clone, Default)]
pub struct Objects(pub BTreeMap<Named, BTreeMap<String, Vec<u8>>>);

impl Objects {
    /// Reads the named objects of a namespace afresh. Those that do not exist are left out.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn read(client: &Client, namespace: &str, named: &BTreeSet<Named>) -> Result<Self, kube::Error> {
        let reads = named.iter().map(|(kind, name)| async move {
            let data = match kind {
                Kind::ConfigMap => {
                    Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await?.map(of_configmap)
                }
                Kind::Secret => {
                    Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await?.map(of_secret)
                }
            };
            Ok::<_, kube::Error>(data.map(|data| ((*kind, name.clone()), data)))
        });
        let found = futures::future::try_join_all(reads).await?;
        Ok(Self(found.into_iter().flatten().collect()))
    }

    /// The data of one object; `None`: it does not exist.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        self.0.get(&(kind, name.to_owned()))
    }
}

fn of_configmap(object: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    let binary = object.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    text.chain(binary).collect()
}

fn of_secret(object: Secret) -> BTreeMap<String, Vec<u8>> {
    object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
}

/// The objects that the volumes of a pod name.
pub fn of_volumes(spec: &PodSpec) -> BTreeSet<Named> {
    let mut named = BTreeSet::new();
    for volume in spec.volumes.iter().flatten() {
        named.extend(volume.config_map.as_ref().map(|v| (Kind::ConfigMap, v.name.clone())));
        named.extend(volume.secret.as_ref().and_then(|v| v.secret_name.clone()).map(|name| (Kind::Secret, name)));
        for source in volume.projected.iter().filter_map(|p| p.sources.as_ref()).flatten() {
            named.extend(source.config_map.as_ref().map(|v| (Kind::ConfigMap, v.name.clone())));
            named.extend(source.secret.as_ref().map(|v| (Kind::Secret, v.name.clone())));
        }
    }
    named
}

/// The objects that the environment of a pod's containers names.
pub fn of_environment(spec: &PodSpec) -> BTreeSet<Named> {
    let mut named = BTreeSet::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for from in container.env_from.iter().flatten() {
            named.extend(from.config_map_ref.as_ref().map(|r| (Kind::ConfigMap, r.name.clone())));
            named.extend(from.secret_ref.as_ref().map(|r| (Kind::Secret, r.name.clone())));
        }
        for from in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            named.extend(from.config_map_key_ref.as_ref().map(|r| (Kind::ConfigMap, r.name.clone())));
            named.extend(from.secret_key_ref.as_ref().map(|r| (Kind::Secret, r.name.clone())));
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_that_names_an_object_is_found() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s1"}}]}],
            "containers": [{
                "name": "c",
                "envFrom": [{"configMapRef": {"name": "c1"}}],
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}
                ]
            }],
            "volumes": [
                {"name": "a", "configMap": {"name": "c3"}},
                {"name": "b", "secret": {"secretName": "s3"}},
                {"name": "c", "projected": {"sources": [{"configMap": {"name": "c4"}}, {"secret": {"name": "s4"}}]}}
            ]
        }))
        .unwrap();
        let names = |named: BTreeSet<Named>| named.iter().map(|(_, n)| n.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!(names(of_environment(&spec)), "c1 c2 s1 s2");
        assert_eq!(names(of_volumes(&spec)), "c3 c4 s3 s4");
    }
}
