//! What of a kind config only kind itself does.

use super::Patches;
use super::fields::{Config, TextMap, Texts};
use super::labels::NODE_LABELS;
use super::patches::Setting;
use crate::source::Located;

/// Something that a kind config asks for and that only kind does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::topology) struct Beyond {
    /// The field: `networking.kubeProxyMode`.
    pub field: String,
    /// What it is set to, if that fits into a line.
    pub set_to: Option<String>,
}

/// All that differs from kind's defaults, with places. Labels of nodes are not among it: every provider has them.
pub(super) fn beyond(config: &Config, patches: &[Patches]) -> Vec<Located<Beyond>> {
    let mut all = Vec::new();
    let net = &config.networking;
    let mut add = |at: Located<()>, field: &str, value: Option<&str>| {
        all.push(at.with(Beyond { field: field.to_owned(), set_to: value.map(str::to_owned) }));
    };
    let plain = |value: &&Located<String>, default: &str| !value.is_empty() && value.as_str() != default;
    if let Some(mode) = net.kube_proxy_mode.as_ref().filter(|mode| plain(mode, "iptables")) {
        add(mode.with(()), "networking.kubeProxyMode", Some(mode));
    }
    if let Some(address) = net.api_server_address.as_ref().filter(|address| plain(address, "127.0.0.1")) {
        add(address.with(()), "networking.apiServerAddress", Some(address));
    }
    if let Some(port) = net.api_server_port.as_ref().filter(|port| port.value.0 > 0) {
        add(port.with(()), "networking.apiServerPort", Some(&port.value.0.to_string()));
    }
    let texts = |texts: &Texts| texts.iter().flatten().find(|text| !text.trim().is_empty()).map(|text| text.with(()));
    if let Some(at) = texts(&net.dns_search) {
        add(at, "networking.dnsSearch", None);
    }
    if let Some(gate) = config.feature_gates.keys().next() {
        add(gate.with(()), "featureGates", None);
    }
    let keys = |map: &TextMap| map.keys().next().map(|key| key.with(()));
    if let Some(at) = keys(&config.runtime_config) {
        add(at, "runtimeConfig", None);
    }
    if let Some(at) = texts(&config.containerd_config_patches) {
        add(at, "containerdConfigPatches", None);
    }
    if let Some(at) = texts(&config.containerd_config_patches_json6902) {
        add(at, "containerdConfigPatchesJSON6902", None);
    }
    for node in &config.nodes {
        if let Some(mount) = node.extra_mounts.first() {
            add(mount.with(()), "extraMounts", None);
        }
        if let Some(mapping) = node.extra_port_mappings.first() {
            add(mapping.with(()), "extraPortMappings", None);
        }
    }
    for setting in patches.iter().flat_map(Patches::all).filter(|setting| !honoured(setting)) {
        add(setting.at.clone(), &format!("{}: {}", setting.kind, setting.field()), None);
    }
    all
}

/// What a patch sets that is read (labels of nodes), is as it is anyway, or changes nothing that a mesh can notice. Ranges and
/// domains that differ are refused before (see `checks`).
fn honoured(setting: &Setting) -> bool {
    let labels = ["InitConfiguration", "JoinConfiguration"].iter().any(|kind| setting.is(kind, NODE_LABELS));
    let same = [
        ("ClusterConfiguration", "networking.dnsDomain"),
        ("ClusterConfiguration", "networking.podSubnet"),
        ("ClusterConfiguration", "networking.serviceSubnet"),
        ("ClusterConfiguration", "controllerManager.extraArgs.cluster-cidr"),
        ("ClusterConfiguration", "apiServer.extraArgs.service-cluster-ip-range"),
        ("ClusterConfiguration", "controllerManager.extraArgs.service-cluster-ip-range"),
        ("KubeletConfiguration", "clusterDomain"),
        ("KubeProxyConfiguration", "clusterCIDR"),
    ];
    let iptables = setting.is("KubeProxyConfiguration", "mode") && ["", "iptables"].contains(&setting.text().as_str());
    labels || iptables || setting.is_invisible() || same.iter().any(|(kind, field)| setting.is(kind, field))
}
