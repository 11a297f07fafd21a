//! An access log of the run's own: an EnvoyFilter that adds one to the proxies of a namespace, beside whatever log the mesh
//! is configured with.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::MeshError;
use crate::apply::Manifest;
use crate::observe::access_log;

/// The name of the EnvoyFilter in each namespace.
pub const NAME: &str = "meshproof-access-log";

/// Envoy's network filters that write access logs, and the types of their configuration: for HTTP, and for everything else.
const FILTERS: [(&str, &str); 2] = [
    ("envoy.filters.network.http_connection_manager", "http_connection_manager.v3.HttpConnectionManager"),
    ("envoy.filters.network.tcp_proxy", "tcp_proxy.v3.TcpProxy"),
];

/// The EnvoyFilter that makes every proxy in `namespace` log the fields of [`access_log::FIELDS`] to standard output.
///
/// A `MERGE` of Envoy's configuration appends to its lists, so a log that the mesh is configured with stays
/// (istio.io, reference of EnvoyFilter).
///
/// # Errors
/// Never, unless the object cannot be written as a manifest.
pub fn envoy_filter(namespace: &str) -> Result<Manifest, MeshError> {
    let fields: BTreeMap<&str, &str> = access_log::FIELDS.iter().copied().collect();
    let log = json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": { "json_format": fields },
        },
    }]);
    let patch = |(filter, config): (&str, &str)| {
        json!({
            "applyTo": "NETWORK_FILTER",
            "match": { "context": "ANY", "listener": { "filterChain": { "filter": { "name": filter } } } },
            "patch": { "operation": "MERGE", "value": { "name": filter, "typed_config": {
                "@type": format!("type.googleapis.com/envoy.extensions.filters.network.{config}"),
                "access_log": log,
            } } },
        })
    };
    let patches: Vec<Value> = FILTERS.into_iter().map(patch).collect();
    let object = json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": { "name": NAME, "namespace": namespace },
        "spec": { "configPatches": patches },
    });
    Ok(Manifest::made("access log of the run's namespaces", object)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_and_tcp_are_logged_with_every_field() {
        let filter = envoy_filter("app1").unwrap();
        assert_eq!(filter.label(), format!("EnvoyFilter app1/{NAME}"));
        let patches = filter.object.data["spec"]["configPatches"].as_array().unwrap();
        assert_eq!(patches.len(), 2);
        for patch in patches {
            let config = &patch["patch"]["value"]["typed_config"];
            let fields = config["access_log"][0]["typed_config"]["log_format"]["json_format"].as_object().unwrap();
            assert_eq!(fields.len(), access_log::FIELDS.len());
        }
    }
}
