//! Addresses in manifests that are known only when the clusters run: `address: "{v3.pod}"` in a WorkloadEntry or ServiceEntry.

use serde_json::Value;

use super::RunError;
use super::calls::Calls;
use crate::apply::Manifest;
use crate::scenario::url;

/// The manifests with the placeholders in their addresses filled in. A gateway's address has no port there.
pub(super) async fn filled(calls: &Calls<'_>, manifests: &[Manifest]) -> Result<Vec<Manifest>, RunError> {
    let mut filled = manifests.to_vec();
    for manifest in &mut filled {
        for address in addresses(manifest) {
            let Value::String(text) = address else { continue };
            if !url::placeholders(text).is_empty() {
                let found = calls.address(text).await?;
                *text = found.parse::<std::net::SocketAddr>().map_or(found, |socket| socket.ip().to_string());
            }
        }
    }
    Ok(filled)
}

/// The manifest with an example in place of each placeholder, for a dry run.
pub(super) fn exemplary(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    for address in addresses(&mut manifest) {
        if address.as_str().is_some_and(|text| !url::placeholders(text).is_empty()) {
            *address = Value::from("192.0.2.1");
        }
    }
    manifest
}

/// Where an object of Istio says an endpoint's address.
fn addresses(manifest: &mut Manifest) -> Vec<&mut Value> {
    let kind = manifest.kind().to_owned();
    let spec = manifest.object.data.get_mut("spec");
    match (kind.as_str(), spec) {
        ("WorkloadEntry", Some(spec)) => spec.get_mut("address").into_iter().collect(),
        ("ServiceEntry", Some(spec)) => {
            let endpoints = spec.get_mut("endpoints").and_then(Value::as_array_mut);
            endpoints.into_iter().flatten().filter_map(|endpoint| endpoint.get_mut("address")).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;

    #[test]
    fn addresses_of_entries_are_found() {
        let text = "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: a}, spec: {address: one}}\n---\n\
            {apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a}, spec: {endpoints: [{address: two}]}}\n\
            ---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, spec: {address: three}}";
        let mut manifests = apply::parse("f", text).unwrap();
        let found: Vec<String> = manifests.iter_mut().flat_map(addresses).map(|a| a.to_string()).collect();
        assert_eq!(found, ["\"one\"", "\"two\""]);
    }
}
