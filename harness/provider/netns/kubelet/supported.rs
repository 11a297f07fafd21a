//! The fields of the pod spec that the kubelet supports: all others are refused by name.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;

/// What the kubelet does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Does what it says.
    Honoured,
    /// Accepted and not acted on: no mesh test depends on it. The text says why.
    Harmless(&'static str),
    /// Only these values are accepted.
    Only(&'static [&'static str]),
}
use Rule::{Harmless, Honoured, Only};

const NOT_ENFORCED: Rule = Harmless("not enforced");
const NO_SECCOMP: Rule = Harmless("no such filter is applied");

/// Fields of the pod, `spec.` left off.
const POD: &[(&str, Rule)] = &[
    ("affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution", Harmless("a preference")),
    ("affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution", Harmless("a preference")),
    ("affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution", Harmless("a preference")),
    ("automountServiceAccountToken", Harmless("the API server's admission acts on it")),
    ("dnsConfig", Honoured),
    ("dnsPolicy", Only(&["ClusterFirst", "None"])),
    ("enableServiceLinks", Honoured),
    ("hostAliases", Honoured),
    ("hostIPC", Only(&["false"])),
    ("hostNetwork", Only(&["false"])),
    ("hostPID", Only(&["false"])),
    ("hostUsers", Only(&["true"])),
    ("hostname", Honoured),
    ("imagePullSecrets", Harmless("the logins of `~/.docker/config.json` are used")),
    ("nodeName", Honoured),
    ("nodeSelector", Honoured),
    ("os.name", Only(&["linux"])),
    ("preemptionPolicy", Harmless("nothing is pre-empted")),
    ("priority", Harmless("nothing is pre-empted")),
    ("priorityClassName", Harmless("nothing is pre-empted")),
    ("restartPolicy", Honoured),
    ("schedulerName", Only(&["default-scheduler"])),
    ("securityContext.appArmorProfile", NO_SECCOMP),
    ("securityContext.fsGroup", Honoured),
    ("securityContext.fsGroupChangePolicy", Harmless("volumes are always new")),
    ("securityContext.runAsGroup", Honoured),
    ("securityContext.runAsNonRoot", Honoured),
    ("securityContext.runAsUser", Honoured),
    ("securityContext.seccompProfile", NO_SECCOMP),
    ("securityContext.supplementalGroups", Honoured),
    ("securityContext.supplementalGroupsPolicy", Only(&["Merge", "Strict"])),
    ("securityContext.sysctls[].name", Honoured),
    ("securityContext.sysctls[].value", Honoured),
    ("serviceAccount", Honoured),
    ("serviceAccountName", Honoured),
    ("setHostnameAsFQDN", Only(&["false"])),
    ("shareProcessNamespace", Only(&["false"])),
    ("subdomain", Honoured),
    ("terminationGracePeriodSeconds", Honoured),
    ("tolerations", Honoured),
    ("topologySpreadConstraints[].labelSelector", Harmless("a preference")),
    ("topologySpreadConstraints[].matchLabelKeys", Harmless("a preference")),
    ("topologySpreadConstraints[].maxSkew", Harmless("a preference")),
    ("topologySpreadConstraints[].topologyKey", Harmless("a preference")),
    ("topologySpreadConstraints[].whenUnsatisfiable", Only(&["ScheduleAnyway"])),
    ("volumes[].configMap", Honoured),
    ("volumes[].downwardAPI", Honoured),
    ("volumes[].emptyDir.medium", Only(&["", "Memory"])),
    ("volumes[].emptyDir.sizeLimit", NOT_ENFORCED),
    ("volumes[].name", Honoured),
    ("volumes[].projected.defaultMode", Honoured),
    ("volumes[].projected.sources[].configMap", Honoured),
    ("volumes[].projected.sources[].downwardAPI", Honoured),
    ("volumes[].projected.sources[].secret", Honoured),
    ("volumes[].projected.sources[].serviceAccountToken", Honoured),
    ("volumes[].secret", Honoured),
];

/// Fields of `containers[]`, `initContainers[]` and `ephemeralContainers[]`.
const CONTAINER: &[(&str, Rule)] = &[
    ("args", Honoured),
    ("command", Honoured),
    ("env[].name", Honoured),
    ("env[].value", Honoured),
    ("env[].valueFrom.configMapKeyRef", Honoured),
    ("env[].valueFrom.fieldRef", Honoured),
    ("env[].valueFrom.resourceFieldRef", Honoured),
    ("env[].valueFrom.secretKeyRef", Honoured),
    ("envFrom", Honoured),
    ("image", Honoured),
    ("imagePullPolicy", Honoured),
    ("name", Honoured),
    ("ports[].containerPort", Honoured),
    ("ports[].name", Honoured),
    ("ports[].protocol", Honoured),
    ("resizePolicy", NOT_ENFORCED),
    ("resources.limits", NOT_ENFORCED),
    ("resources.requests", NOT_ENFORCED),
    ("restartPolicy", Only(&["Always"])),
    ("securityContext.allowPrivilegeEscalation", Honoured),
    ("securityContext.appArmorProfile", NO_SECCOMP),
    ("securityContext.capabilities", Honoured),
    ("securityContext.privileged", Only(&["false"])),
    ("securityContext.procMount", Only(&["Default"])),
    ("securityContext.readOnlyRootFilesystem", Honoured),
    ("securityContext.runAsGroup", Honoured),
    ("securityContext.runAsNonRoot", Honoured),
    ("securityContext.runAsUser", Honoured),
    ("securityContext.seccompProfile", NO_SECCOMP),
    ("stdin", Honoured),
    ("stdinOnce", Honoured),
    ("targetContainerName", Honoured),
    ("terminationMessagePath", Harmless("not read")),
    ("terminationMessagePolicy", Harmless("always as `FallbackToLogsOnError`")),
    ("tty", Honoured),
    ("volumeMounts[].mountPath", Honoured),
    ("volumeMounts[].mountPropagation", Only(&["None"])),
    ("volumeMounts[].name", Honoured),
    ("volumeMounts[].readOnly", Honoured),
    ("volumeMounts[].recursiveReadOnly", Only(&["Disabled"])),
    ("volumeMounts[].subPath", Honoured),
    ("workingDir", Honoured),
];

/// Fields of `livenessProbe`, `readinessProbe` and `startupProbe`.
const PROBE: &[(&str, Rule)] = &[
    ("exec.command", Honoured),
    ("failureThreshold", Honoured),
    ("httpGet.host", Honoured),
    ("httpGet.httpHeaders", Honoured),
    ("httpGet.path", Honoured),
    ("httpGet.port", Honoured),
    ("httpGet.scheme", Only(&["HTTP"])),
    ("initialDelaySeconds", Honoured),
    ("periodSeconds", Honoured),
    ("successThreshold", Honoured),
    ("tcpSocket.host", Honoured),
    ("tcpSocket.port", Honoured),
    ("timeoutSeconds", Honoured),
];

/// Fields of `lifecycle.postStart` and `lifecycle.preStop`.
const HOOK: &[(&str, Rule)] = &[
    ("exec.command", Honoured),
    ("httpGet.host", Honoured),
    ("httpGet.httpHeaders", Honoured),
    ("httpGet.path", Honoured),
    ("httpGet.port", Honoured),
    ("httpGet.scheme", Only(&["HTTP"])),
    ("sleep.seconds", Honoured),
];

/// A heading, the prefixes of its fields' paths, and the rule of each field.
pub type Table = (&'static str, Vec<&'static str>, &'static [(&'static str, Rule)]);

/// All tables.
pub fn tables() -> Vec<Table> {
    vec![
        ("the pod: `spec.`", vec!["spec."], POD),
        (
            "a container: `spec.containers[].`, `spec.initContainers[].`, `spec.ephemeralContainers[].`",
            vec!["spec.containers[].", "spec.initContainers[].", "spec.ephemeralContainers[]."],
            CONTAINER,
        ),
        (
            "a probe: `….livenessProbe.`, `….readinessProbe.`, `….startupProbe.`",
            vec![
                "spec.containers[].livenessProbe.",
                "spec.containers[].readinessProbe.",
                "spec.containers[].startupProbe.",
                "spec.initContainers[].livenessProbe.",
                "spec.initContainers[].readinessProbe.",
                "spec.initContainers[].startupProbe.",
            ],
            PROBE,
        ),
        (
            "a hook: `….lifecycle.postStart.`, `….lifecycle.preStop.`",
            vec![
                "spec.containers[].lifecycle.postStart.",
                "spec.containers[].lifecycle.preStop.",
                "spec.initContainers[].lifecycle.postStart.",
                "spec.initContainers[].lifecycle.preStop.",
            ],
            HOOK,
        ),
    ]
}

/// The fields that are not supported, each with its path and the accepted values.
/// Empty: the pod can be run.
pub fn refusals(spec: &PodSpec) -> Vec<String> {
    let rules: Vec<(String, Rule)> = tables()
        .into_iter()
        .flat_map(|(_, prefixes, rules)| {
            prefixes
                .into_iter()
                .flat_map(move |prefix| rules.iter().map(move |(path, rule)| (format!("{prefix}{path}"), *rule)))
        })
        .collect();
    let mut refused = Vec::new();
    match serde_json::to_value(spec) {
        Ok(value) => walk(&rules, &value, "spec", "spec", &mut refused),
        Err(error) => refused.push(format!("spec: {error}")),
    }
    sysctls(spec, &mut refused);
    refused
}

fn walk(rules: &[(String, Rule)], value: &Value, path: &str, pattern: &str, refused: &mut Vec<String>) {
    if let Some((_, rule)) = rules.iter().find(|(known, _)| known == pattern) {
        if let Only(accepted) = rule {
            let given = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !accepted.contains(&given.as_str()) {
                refused.push(format!("{path}: {value} (accepted: {})", accepted.join(", ")));
            }
        }
        return;
    }
    let inner =
        |sign: char| rules.iter().any(|(known, _)| known.strip_prefix(pattern).is_some_and(|r| r.starts_with(sign)));
    match value {
        Value::Object(fields) if inner('.') => {
            for (name, value) in fields {
                walk(rules, value, &format!("{path}.{name}"), &format!("{pattern}.{name}"), refused);
            }
        }
        Value::Array(items) if inner('[') => {
            for (index, value) in items.iter().enumerate() {
                walk(rules, value, &format!("{path}[{index}]"), &format!("{pattern}[]"), refused);
            }
        }
        _ => refused.push(path.to_owned()),
    }
}

/// Only the pod's own network settings can be set without touching the host's.
fn sysctls(spec: &PodSpec, refused: &mut Vec<String>) {
    let given = spec.security_context.iter().filter_map(|c| c.sysctls.as_ref()).flatten();
    for (index, sysctl) in given.enumerate() {
        if !sysctl.name.starts_with("net.") || sysctl.name.contains('/') {
            refused.push(format!("spec.securityContext.sysctls[{index}].name: {:?} (accepted: net.…)", sysctl.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn refused(mut spec: Value) -> Vec<String> {
        if spec.get("containers").is_none() {
            spec["containers"] = json!([]);
        }
        refusals(&serde_json::from_value(spec).unwrap())
    }

    #[rstest]
    #[case::host_network(json!({"hostNetwork": true}), "spec.hostNetwork: true (accepted: false)")]
    #[case::host_path(json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}), "spec.volumes[0].hostPath")]
    #[case::csi(json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "csi": {"driver": "x"}}]}), "spec.volumes[1].csi")]
    #[case::privileged(
        json!({"containers": [{"name": "a", "securityContext": {"privileged": true}}]}),
        "spec.containers[0].securityContext.privileged: true (accepted: false)"
    )]
    #[case::host_port(
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 1}]}]}),
        "spec.containers[0].ports[0].hostPort"
    )]
    #[case::probe_scheme(
        json!({"initContainers": [{"name": "a", "startupProbe": {"httpGet": {"port": 1, "scheme": "HTTPS"}}}], "containers": []}),
        "spec.initContainers[0].startupProbe.httpGet.scheme: \"HTTPS\" (accepted: HTTP)"
    )]
    #[case::grpc_probe(
        json!({"containers": [{"name": "a", "livenessProbe": {"grpc": {"port": 1}}}]}),
        "spec.containers[0].livenessProbe.grpc"
    )]
    #[case::required_affinity(
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    )]
    #[case::sysctl(
        json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}}),
        "spec.securityContext.sysctls[0].name: \"kernel.shm_rmid_forced\" (accepted: net.…)"
    )]
    #[case::ephemeral(
        json!({"ephemeralContainers": [{"name": "a", "securityContext": {"privileged": true}}]}),
        "spec.ephemeralContainers[0].securityContext.privileged: true (accepted: false)"
    )]
    fn what_is_not_supported_is_refused_by_its_path(#[case] spec: Value, #[case] expected: &str) {
        assert_eq!(refused(spec), [expected]);
    }

    #[test]
    fn all_refusals_are_reported_at_once() {
        assert_eq!(refused(json!({"hostPID": true, "runtimeClassName": "kata"})).len(), 2);
    }

    #[test]
    fn an_injected_pod_and_istiod_are_accepted() {
        for pod in [include_str!("testdata/injected.json"), include_str!("testdata/istiod.json")] {
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_str(pod).unwrap();
            assert_eq!(refusals(&pod.spec.unwrap()), Vec::<String>::new());
        }
    }

    #[test]
    fn every_field_is_in_the_documentation() {
        let mut table = String::new();
        for (title, _, rules) in tables() {
            table.push_str(&format!("\nFields of {title}\n\n| field | what happens |\n|---|---|\n"));
            for (path, rule) in rules {
                let what = match rule {
                    Honoured => "honoured".to_owned(),
                    Harmless(why) => format!("accepted, no effect: {why}"),
                    Only(values) => {
                        let named: Vec<_> = values
                            .iter()
                            .map(|v| if v.is_empty() { "empty".into() } else { format!("`{v}`") })
                            .collect();
                        format!("only {}", named.join(", "))
                    }
                };
                table.push_str(&format!("| `{path}` | {what} |\n"));
            }
        }
        let document = include_str!("../../../../docs/netns-pods.md");
        assert!(document.contains(&table), "docs/netns-pods.md must hold this table:\n{table}");
    }
}
