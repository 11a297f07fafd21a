//! What a cluster without a control plane of its own needs to join the mesh of another one's.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::MeshInputs;
use crate::apply::Manifest;
use crate::topology::ClusterSpec;

/// Stands for the control plane's address until the clusters run (TEST-NET-1 of RFC 5737: nobody's).
const UNKNOWN_YET: &str = "192.0.2.1";

/// What istioctl installs in a remote cluster. One that holds the configuration of an external control plane (`config`) gets the CRDs'
/// validation and the account by which that control plane reads and writes it, too.
pub fn operator(spec: &ClusterSpec, config: bool, revision: Option<String>, inputs: &MeshInputs) -> Value {
    let mut operator = json!({
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "spec": {
            "profile": "remote",
            "revision": revision.unwrap_or_default(),
            "hub": inputs.hub,
            "tag": inputs.tag,
            "values": {
                "istiodRemote": { "injectionPath": format!("/inject/cluster/{}/net/{}", spec.name, spec.network) },
                "global": {
                    "meshID": spec.mesh.id,
                    "multiCluster": { "clusterName": spec.name },
                    "network": spec.network,
                    "remotePilotAddress": UNKNOWN_YET,
                },
            },
        },
    });
    if config {
        operator["spec"]["values"]["global"]["configCluster"] = json!(true);
    }
    operator
}

/// The manifests with the control plane's real address.
pub fn at_address(manifests: &[Manifest], control_plane: IpAddr) -> Vec<Manifest> {
    replaced(manifests, UNKNOWN_YET, control_plane)
}

/// The manifests with `address` wherever they say `unknown`.
pub(super) fn replaced(manifests: &[Manifest], unknown: &str, address: IpAddr) -> Vec<Manifest> {
    let mut manifests = manifests.to_vec();
    for manifest in &mut manifests {
        replace(&mut manifest.object.data, unknown, &address.to_string());
    }
    manifests
}

fn replace(value: &mut Value, unknown: &str, address: &str) {
    match value {
        Value::String(text) if text.contains(unknown) => *text = text.replace(unknown, address),
        Value::Array(items) => items.iter_mut().for_each(|v| replace(v, unknown, address)),
        Value::Object(fields) => fields.values_mut().for_each(|v| replace(v, unknown, address)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_filled_in_wherever_it_is_named() {
        let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "istiod" }, "endpoints": [{ "addresses": [UNKNOWN_YET] }],
            "note": format!("{{\"remotePilotAddress\": \"{UNKNOWN_YET}\"}}") });
        let manifest = Manifest::made("test", slice).unwrap();
        let placed = at_address(&[manifest], "172.18.0.3".parse().unwrap());
        assert_eq!(placed[0].object.data["endpoints"][0]["addresses"], json!(["172.18.0.3"]));
        assert_eq!(placed[0].object.data["note"], r#"{"remotePilotAddress": "172.18.0.3"}"#);
    }
}
