//! Kinds that every cluster of an environment serves: Kubernetes' own and Istio's. (Versions of them are for an API server to judge.)

/// API groups and their kinds.
///
/// Sources: the API reference of Kubernetes 1.34, and `manifests/charts/base/files/crd-all.gen.yaml` of Istio.
const KINDS: [(&str, &[&str]); 24] = [
    (
        "",
        &[
            "ConfigMap",
            "Endpoints",
            "Event",
            "LimitRange",
            "Namespace",
            "Node",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
            "Service",
            "ServiceAccount",
        ],
    ),
    ("apps", &["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]),
    ("batch", &["CronJob", "Job"]),
    ("autoscaling", &["HorizontalPodAutoscaler"]),
    ("policy", &["PodDisruptionBudget"]),
    ("networking.k8s.io", &["IPAddress", "Ingress", "IngressClass", "NetworkPolicy", "ServiceCIDR"]),
    ("discovery.k8s.io", &["EndpointSlice"]),
    ("events.k8s.io", &["Event"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]),
    (
        "storage.k8s.io",
        &["CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"],
    ),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("coordination.k8s.io", &["Lease", "LeaseCandidate"]),
    ("node.k8s.io", &["RuntimeClass"]),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["APIService"]),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("certificates.k8s.io", &["CertificateSigningRequest", "ClusterTrustBundle", "PodCertificateRequest"]),
    ("flowcontrol.apiserver.k8s.io", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("resource.k8s.io", &["DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice"]),
    (
        "networking.istio.io",
        &[
            "DestinationRule",
            "EnvoyFilter",
            "Gateway",
            "ProxyConfig",
            "ServiceEntry",
            "Sidecar",
            "VirtualService",
            "WorkloadEntry",
            "WorkloadGroup",
        ],
    ),
    ("security.istio.io", &["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"]),
    ("telemetry.istio.io", &["Telemetry"]),
    ("extensions.istio.io", &["TrafficExtension", "WasmPlugin"]),
    ("storagemigration.k8s.io", &["StorageVersionMigration"]),
];

/// The groups and kinds of definitions that `mesh` installs, by the option.
///
/// Sources: the modules `sigs.k8s.io/gateway-api` v1.6 and `sigs.k8s.io/mcs-api` v0.4.
const OPTIONAL: [(&str, &str, &[&str]); 2] = [
    (
        "gateway_api",
        "gateway.networking.k8s.io",
        &[
            "BackendTLSPolicy",
            "GRPCRoute",
            "Gateway",
            "GatewayClass",
            "HTTPRoute",
            "ListenerSet",
            "ReferenceGrant",
            "TCPRoute",
            "TLSRoute",
            "UDPRoute",
        ],
    ),
    ("mcs", "multicluster.x-k8s.io", &["ServiceExport", "ServiceImport"]),
];

/// The option of `mesh` that installs the definition of a kind.
pub(super) fn option_of(api_version: &str, kind: &str) -> Option<&'static str> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    OPTIONAL.iter().find(|(_, of, kinds)| *of == group && kinds.contains(&kind)).map(|(option, ..)| *option)
}

/// Kinds that lie in no namespace.
const CLUSTER_SCOPED: [&str; 27] = [
    "APIService",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterTrustBundle",
    "CustomResourceDefinition",
    "DeviceClass",
    "FlowSchema",
    "GatewayClass",
    "IPAddress",
    "IngressClass",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "ResourceSlice",
    "RuntimeClass",
    "ServiceCIDR",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingWebhookConfiguration",
];

/// Whether every cluster of an environment serves the kind in some version.
pub(super) fn is_served(api_version: &str, kind: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    KINDS.iter().any(|(of, kinds)| *of == group && kinds.contains(&kind))
}

/// Whether objects of the kind lie in a namespace, as far as it is known here.
pub(super) fn is_namespaced(api_version: &str, kind: &str) -> bool {
    (is_served(api_version, kind) || option_of(api_version, kind).is_some()) && !is_cluster_scoped(kind)
}

/// Whether a kind is known to lie in no namespace.
pub(super) fn is_cluster_scoped(kind: &str) -> bool {
    CLUSTER_SCOPED.contains(&kind) || kind.ends_with("PolicyBinding")
}

/// A kind as manifests write it, from any case: `deployment`.
pub(super) fn spelled(kind: &str) -> Option<&'static str> {
    all().find(|known| known.eq_ignore_ascii_case(kind))
}

/// All kinds that are known.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    let optional = OPTIONAL.iter().flat_map(|(_, _, kinds)| kinds.iter().copied());
    KINDS.iter().flat_map(|(_, kinds)| kinds.iter().copied()).chain(optional)
}

/// The API version of a kind that every cluster of an environment serves.
pub(super) fn api_version(kind: &str) -> Option<String> {
    let optional = OPTIONAL.iter().map(|(_, group, kinds)| (*group, *kinds));
    let mut groups = KINDS.iter().copied().chain(optional);
    let (group, _) = groups.find(|(_, kinds)| kinds.contains(&kind))?;
    let version = match kind {
        "EnvoyFilter" => "v1alpha3",
        "ProxyConfig" => "v1beta1",
        "WasmPlugin" | "TrafficExtension" => "v1alpha1",
        "HorizontalPodAutoscaler" => "v2",
        "ServiceExport" | "ServiceImport" => "v1alpha1",
        _ => "v1",
    };
    Some(if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") })
}

/// The kinds of a group, to be named where an unknown one is written.
pub(super) fn of_group(api_version: &str) -> &'static [&'static str] {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    KINDS.iter().find(|(of, _)| *of == group).map_or(&[], |(_, kinds)| kinds)
}
