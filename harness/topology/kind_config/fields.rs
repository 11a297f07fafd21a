//! The fields of a kind config (`kind.x-k8s.io/v1alpha4`), each as its Go type decodes it: a heading without content is an
//! empty value, a text is no number.
//!
//! Source: kind v0.33.0, `pkg/apis/config/v1alpha4/{types,yaml}.go`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::source::Located;

/// Texts with places; kind decodes an item without content as an empty text.
pub(super) type Texts = Vec<Option<Located<String>>>;
/// `key: value`; kind decodes a value without content as an empty text.
pub(super) type TextMap = BTreeMap<Located<String>, Option<Located<String>>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Config {
    pub kind: Located<String>,
    pub api_version: Located<String>,
    #[serde(default)]
    pub name: Option<Located<String>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub nodes: Vec<Located<NodeConfig>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub networking: Networking,
    #[serde(default, deserialize_with = "or_empty")]
    pub feature_gates: BTreeMap<Located<String>, Option<PlainBool>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub runtime_config: TextMap,
    #[serde(default, deserialize_with = "or_empty")]
    pub kubeadm_config_patches: Texts,
    #[serde(default, deserialize_with = "or_empty", rename = "kubeadmConfigPatchesJSON6902")]
    pub kubeadm_config_patches_json6902: Vec<Located<Json6902>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub containerd_config_patches: Texts,
    #[serde(default, deserialize_with = "or_empty", rename = "containerdConfigPatchesJSON6902")]
    pub containerd_config_patches_json6902: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct NodeConfig {
    #[serde(default)]
    pub role: Option<Located<String>>,
    #[serde(default)]
    pub image: Option<Located<String>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub labels: TextMap,
    #[serde(default, deserialize_with = "or_empty")]
    pub extra_mounts: Vec<Located<Mount>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub extra_port_mappings: Vec<Located<PortMapping>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub kubeadm_config_patches: Texts,
    #[serde(default, deserialize_with = "or_empty", rename = "kubeadmConfigPatchesJSON6902")]
    pub kubeadm_config_patches_json6902: Vec<Located<Json6902>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Networking {
    #[serde(default)]
    pub ip_family: Option<Located<String>>,
    #[serde(default)]
    pub api_server_port: Option<Located<PlainInt>>,
    #[serde(default)]
    pub api_server_address: Option<Located<String>>,
    #[serde(default)]
    pub pod_subnet: Option<Located<String>>,
    #[serde(default)]
    pub service_subnet: Option<Located<String>>,
    #[serde(default, deserialize_with = "or_empty", rename = "disableDefaultCNI")]
    pub disable_default_cni: PlainBool,
    #[serde(default)]
    pub kube_proxy_mode: Option<Located<String>>,
    #[serde(default, deserialize_with = "or_empty")]
    pub dns_search: Texts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Json6902 {
    #[serde(default, deserialize_with = "or_empty", rename = "group")]
    _group: String,
    #[serde(default, deserialize_with = "or_empty", rename = "version")]
    _version: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub kind: String,
    #[serde(default)]
    pub patch: Option<Located<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Mount {
    #[serde(default, deserialize_with = "or_empty", rename = "containerPath")]
    _container_path: String,
    #[serde(default, deserialize_with = "or_empty", rename = "hostPath")]
    _host_path: String,
    #[serde(default, rename = "readOnly")]
    _read_only: Option<PlainBool>,
    #[serde(default, rename = "selinuxRelabel")]
    _selinux_relabel: Option<PlainBool>,
    #[serde(default)]
    pub propagation: Option<Located<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PortMapping {
    #[serde(default)]
    pub container_port: Option<Located<PlainInt>>,
    #[serde(default)]
    pub host_port: Option<Located<PlainInt>>,
    #[serde(default)]
    pub listen_address: Option<Located<String>>,
    #[serde(default)]
    pub protocol: Option<Located<String>>,
}

/// A heading without content is an empty value.
fn or_empty<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// `true` or `false` without quotes: kind refuses `"true"`, which serde-saphyr would accept.
#[derive(Debug, Default)]
pub(super) struct PlainBool(pub bool);

impl<'de> Deserialize<'de> for PlainBool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Plain;
        impl Visitor<'_> for Plain {
            type Value = PlainBool;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false, without quotes")
            }
            fn visit_bool<E>(self, value: bool) -> Result<PlainBool, E> {
                Ok(PlainBool(value))
            }
        }
        deserializer.deserialize_any(Plain)
    }
}

/// A whole number without quotes: kind refuses `"80"`, which serde-saphyr would accept.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PlainInt(pub i32);

impl<'de> Deserialize<'de> for PlainInt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Plain;
        impl Visitor<'_> for Plain {
            type Value = PlainInt;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, without quotes")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<PlainInt, E> {
                i32::try_from(value).map(PlainInt).map_err(|_| E::custom(format!("{value} is out of range")))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<PlainInt, E> {
                i32::try_from(value).map(PlainInt).map_err(|_| E::custom(format!("{value} is out of range")))
            }
        }
        deserializer.deserialize_any(Plain)
    }
}
