//! The kind config of a cluster, fitted to this machine.
//!
//! The file of the topology stays what `kind create cluster --config` accepts as it is; what only
//! this machine needs is added to a copy of it.

use serde_json::{Value, json};

use crate::provider::ProviderError;

/// What a kind config has to be fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    /// The machine has CAP_SYS_RESOURCE to give.
    pub(super) sys_resource: bool,
    /// It has cgroup v2.
    pub(super) cgroup_v2: bool,
    /// The minor version of Kubernetes in the node image.
    pub(super) kubernetes_minor: u32,
}

/// From this minor on the kubelet refuses cgroup v1 unless configured otherwise.
const FAILS_ON_CGROUP_V1: u32 = 35;

/// The text for `kind create cluster --config -` (JSON, which is YAML).
pub(super) fn fitted(kind_config: &str, machine: Machine) -> Result<String, ProviderError> {
    let wrong = |what: String| ProviderError::Refused {
        what: format!("the kind config cannot be used: {what}"),
        hint: "`meshproof plan` checks the topology and shows the place".to_owned(),
    };
    let mut config: Value = serde_saphyr::from_str(kind_config).map_err(|e| wrong(e.to_string()))?;
    let Some(fields) = config.as_object_mut() else { return Err(wrong("it is not a mapping".to_owned())) };
    if !machine.sys_resource {
        let gates = fields.entry("featureGates").or_insert_with(|| json!({}));
        let gates = gates.as_object_mut().ok_or_else(|| wrong("featureGates is not a mapping".to_owned()))?;
        gates.insert("KubeletInUserNamespace".to_owned(), json!(true));
    }
    let mut patches = Vec::new();
    if !machine.cgroup_v2 && machine.kubernetes_minor >= FAILS_ON_CGROUP_V1 {
        patches.push("kind: KubeletConfiguration\nfailCgroupV1: false\n");
    }
    if !patches.is_empty() {
        let all = fields.entry("kubeadmConfigPatches").or_insert_with(|| json!([]));
        let all = all.as_array_mut().ok_or_else(|| wrong("kubeadmConfigPatches is not a list".to_owned()))?;
        all.extend(patches.into_iter().map(Value::from));
    }
    Ok(config.to_string())
}

/// Whether CAP_SYS_RESOURCE is in the capability bounding set of `status`, a text like `/proc/self/status`.
/// Where there is no such file the engine runs in a virtual machine of its own, which has it.
pub(super) fn has_sys_resource(status: Option<&str>) -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let bounding = status.and_then(|s| s.lines().find_map(|l| l.strip_prefix("CapBnd:")));
    bounding.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_none_or(|set| set >> CAP_SYS_RESOURCE & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const PLAIN: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}]\n";

    fn machine(sys_resource: bool, cgroup_v2: bool, kubernetes_minor: u32) -> Machine {
        Machine { sys_resource, cgroup_v2, kubernetes_minor }
    }

    #[test]
    fn an_ordinary_machine_changes_nothing() {
        let config: Value = serde_json::from_str(&fitted(PLAIN, machine(true, true, 37)).unwrap()).unwrap();
        assert_eq!(config, serde_saphyr::from_str::<Value>(PLAIN).unwrap());
    }

    #[rstest]
    #[case(false, true, 37, Some(true), 0)]
    #[case(true, false, 34, None, 0)]
    #[case(true, false, 35, None, 1)]
    #[case(false, false, 37, Some(true), 1)]
    fn what_the_machine_lacks_is_reported_to_the_kubelet(
        #[case] sys_resource: bool,
        #[case] cgroup_v2: bool,
        #[case] minor: u32,
        #[case] gate: Option<bool>,
        #[case] patches: usize,
    ) {
        let text = fitted(PLAIN, machine(sys_resource, cgroup_v2, minor)).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["featureGates"]["KubeletInUserNamespace"].as_bool(), gate, "{text}");
        assert_eq!(config["kubeadmConfigPatches"].as_array().map_or(0, Vec::len), patches, "{text}");
    }

    #[test]
    fn what_the_topology_says_stays() {
        let text = format!("{PLAIN}featureGates: {{A: false}}\nkubeadmConfigPatches: [\"kind: X\"]\n");
        let config: Value = serde_json::from_str(&fitted(&text, machine(false, false, 36)).unwrap()).unwrap();
        assert_eq!(config["featureGates"], json!({"A": false, "KubeletInUserNamespace": true}));
        assert_eq!(config["kubeadmConfigPatches"][0], "kind: X");
    }

    #[rstest]
    #[case(Some("CapEff:\t0\nCapBnd:\t000001fffeffffff\n"), false)]
    #[case(Some("CapBnd:\t000001ffffffffff\n"), true)]
    #[case(Some("nothing of the kind"), true)]
    #[case(None, true)]
    fn the_capability_is_looked_for(#[case] status: Option<&str>, #[case] expected: bool) {
        assert_eq!(has_sys_resource(status), expected);
    }
}
