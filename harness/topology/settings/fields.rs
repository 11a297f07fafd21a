//! Fields of MeshConfig and of Istio's charts that the harness knows something about.

/// The part of Istio that fields are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// MeshConfig.
    Config,
    /// Chart values.
    Values,
}

/// Fields that the harness sets, and what to write instead or why they must stay. A name with a dot at its end means all
/// fields below it.
///
/// Sources: `istio::primary`, and `mesh/v1alpha1/config.proto` of Istio's API for the names.
pub(super) const OWNED: &[(Part, &str, &str)] = &[
    (Part::Config, "trustDomain", "set `trust_domain` in topology.yaml"),
    (Part::Config, "rootNamespace", "the mesh is installed in istio-system"),
    (Part::Config, "accessLogFile", "expectations are judged by the proxies' access logs"),
    (Part::Config, "accessLogEncoding", "expectations are judged by the proxies' access logs"),
    (Part::Config, "accessLogFormat", "expectations are judged by the proxies' access logs"),
    (Part::Config, "defaultProviders.accessLogging", "expectations are judged by the proxies' access logs"),
    (Part::Config, "defaultConfig.discoveryAddress", "the topology says which istiod serves which cluster"),
    (Part::Config, "defaultConfig.fileFlushInterval", "expectations are judged by the proxies' access logs"),
    (Part::Values, "meshConfig", "write it below `config`"),
    (Part::Values, "revision", "write `revision` beside `values`"),
    (Part::Values, "defaultRevision", "write `revision` beside `values`"),
    (Part::Values, "revisionTags", "the revision's webhook is the only one"),
    (Part::Values, "global.meshID", "set `mesh` of the clusters in topology.yaml"),
    (Part::Values, "global.multiCluster.clusterName", "the topology names the clusters"),
    (Part::Values, "global.network", "set `network` of the clusters in topology.yaml"),
    (Part::Values, "global.externalIstiod", "the topology says which istiod serves which cluster"),
    (Part::Values, "global.remotePilotAddress", "the topology says which istiod serves which cluster"),
    (Part::Values, "global.istioNamespace", "the mesh is installed in istio-system"),
    (Part::Values, "global.configCluster", "the topology says which istiod serves which cluster"),
    (Part::Values, "global.hub", "versions.yaml and `--istio` say what is installed"),
    (Part::Values, "global.tag", "versions.yaml and `--istio` say what is installed"),
    (Part::Values, "global.proxy.image", "versions.yaml and `--istio` say what is installed"),
    (Part::Values, "global.proxy.includeIPRanges", "write `outbound: all` or `outbound: clusters`"),
    (Part::Values, "pilot.enabled", "every control plane of the topology is installed"),
    (Part::Values, "pilot.hub", "versions.yaml and `--istio` say what is installed"),
    (Part::Values, "pilot.tag", "versions.yaml and `--istio` say what is installed"),
    (Part::Values, "pilot.image", "versions.yaml and `--istio` say what is installed"),
    (Part::Values, "gateways", "set `gateway` of the clusters in topology.yaml"),
    (Part::Values, "istiodRemote", "the topology says which istiod serves which cluster"),
];

/// Fields that a stock Envoy, without Istio's own filters, cannot have, and whether a value is one that it rejects.
pub(super) const NOT_STOCK: &[(Part, &str)] = &[
    (Part::Config, "defaultProviders.metrics"),
    (Part::Values, "telemetry.enabled"),
    (Part::Values, "pilot.env.PILOT_ENABLE_ALPN_FILTER"),
    (Part::Values, "pilot.env.PILOT_ENABLE_METADATA_EXCHANGE"),
];

/// The fields of MeshConfig: istiod ignores others without a word. Source: `mesh/v1alpha1/config.proto` of Istio's API 1.31.
pub(super) const CONFIG_FIELDS: [&str; 50] = [
    "accessLogEncoding",
    "accessLogFile",
    "accessLogFormat",
    "ca",
    "caCertificates",
    "certificates",
    "configSources",
    "connectTimeout",
    "defaultConfig",
    "defaultDestinationRuleExportTo",
    "defaultHttpRetryPolicy",
    "defaultProviders",
    "defaultServiceExportTo",
    "defaultTrafficPolicy",
    "defaultVirtualServiceExportTo",
    "disableEnvoyListenerLog",
    "discoverySelectors",
    "dnsRefreshRate",
    "enableAutoMtls",
    "enableEnvoyAccessLogService",
    "enablePrometheusMerge",
    "enableTracing",
    "extensionProviders",
    "h2UpgradePolicy",
    "hboneIdleTimeout",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "localityLbSetting",
    "meshMTLS",
    "outboundClusterStatName",
    "outboundTrafficPolicy",
    "pathNormalization",
    "protocolDetectionTimeout",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "rootNamespace",
    "serviceEntryVisibility",
    "serviceScopeConfigs",
    "serviceSettings",
    "tcpKeepalive",
    "tlsDefaults",
    "trustDomain",
    "trustDomainAliases",
    "verifyCertificateAtClient",
    "zoneAwareLbSetting",
];
