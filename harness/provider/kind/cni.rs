//! Addresses for pods where kind's own CNI is switched off: a bridge and host-local addresses per
//! node, and nothing that translates an address on its way to another pod.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::json;

use super::node;
use crate::provider::ProviderError;

const PATH: &str = "/etc/cni/net.d/10-meshproof.conflist";

/// Hands out `pods` on a node.
pub(super) async fn set(container: &str, pods: IpNet, mtu: Option<u32>) -> Result<(), ProviderError> {
    node::write(container, &[(PATH, conflist(pods, mtu).as_bytes(), 0o644)]).await
}

fn conflist(pods: IpNet, mtu: Option<u32>) -> String {
    let everything = if pods.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let mut bridge = json!({
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": pods }]], "routes": [{ "dst": everything }] },
    });
    if let Some(mtu) = mtu {
        bridge["mtu"] = json!(mtu);
    }
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    json!({ "cniVersion": "0.4.0", "name": "meshproof", "plugins": [bridge, portmap] }).to_string()
}

/// The part of a cluster's pod CIDR that Kubernetes gives to the first node that registers: the
/// first /24, or /64 (`kube-controller-manager --node-cidr-mask-size-ipv4`, `-ipv6`).
pub(super) fn of_first_node(cluster: IpNet) -> IpNet {
    match cluster {
        IpNet::V4(net) => Ipv4Net::new(net.network(), net.prefix_len().max(24)).map_or(cluster, IpNet::V4),
        IpNet::V6(net) => Ipv6Net::new(net.network(), net.prefix_len().max(64)).map_or(cluster, IpNet::V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("10.10.0.0/16", "10.10.0.0/24")]
    #[case("10.10.5.0/25", "10.10.5.0/25")]
    #[case("fd00:10::/56", "fd00:10::/64")]
    fn the_first_node_gets_the_first_part(#[case] cluster: &str, #[case] node: &str) {
        assert_eq!(of_first_node(cluster.parse().unwrap()), node.parse().unwrap());
    }

    #[test]
    fn no_address_is_translated_and_the_networks_mtu_is_kept() {
        let text = conflist("10.10.0.0/24".parse().unwrap(), Some(1400));
        let conflist: serde_json::Value = serde_json::from_str(&text).unwrap();
        let bridge = &conflist["plugins"][0];
        assert_eq!((&bridge["ipMasq"], &bridge["mtu"]), (&json!(false), &json!(1400)));
        assert_eq!(bridge["ipam"]["ranges"][0][0]["subnet"], "10.10.0.0/24");
    }
}
