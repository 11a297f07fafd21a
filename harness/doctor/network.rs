//! Address ranges that this machine already uses: its routes and the container engine's networks.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::tool::Tool;
use crate::topology::HostRange;

/// The ranges that this machine routes, but for the default route.
pub fn host_routes() -> Vec<HostRange> {
    std::fs::read_to_string("/proc/net/route").map(|table| parse_routes(&table)).unwrap_or_default()
}

/// Parses `/proc/net/route`: addresses are hexadecimal in host byte order.
fn parse_routes(table: &str) -> Vec<HostRange> {
    table.lines().skip(1).filter_map(parse_route).collect()
}

fn parse_route(line: &str) -> Option<HostRange> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |field: usize| Some(Ipv4Addr::from(u32::from_str_radix(fields.get(field)?, 16).ok()?.swap_bytes()));
    let range = Ipv4Net::with_netmask(address(1)?, address(7)?).ok()?;
    (range.prefix_len() > 0).then(|| HostRange { range: range.into(), what: format!("route via {}", fields[0]) })
}

/// The ranges of the container engine's networks; none when no engine answers.
pub async fn docker_networks() -> Vec<HostRange> {
    let list =
        Tool::new("docker").args(["network", "ls", "--quiet"]).timeout(std::time::Duration::from_secs(5)).run().await;
    let Ok(ids) = list.map(|o| o.text()) else { return Vec::new() };
    if ids.is_empty() {
        return Vec::new();
    }
    let format = "{{.Name}}{{range .IPAM.Config}} {{.Subnet}}{{end}}";
    let inspect = Tool::new("docker").args(["network", "inspect", "--format", format]).args(ids.lines());
    inspect.run().await.map(|o| parse_networks(&o.text())).unwrap_or_default()
}

fn parse_networks(text: &str) -> Vec<HostRange> {
    let mut used = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        used.extend(
            words
                .filter_map(|w| w.parse().ok())
                .map(|range| HostRange { range, what: format!("Docker network {name}") }),
        );
    }
    used
}

/// Whether something on this machine listens on a TCP port.
pub fn port_taken(port: u16) -> bool {
    let all = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    all.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_the_default_route_is_left_out() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            tun0\t00000A0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(
            parse_routes(table),
            [HostRange { range: "10.10.0.0/16".parse().unwrap(), what: "route via tun0".into() }]
        );
    }

    #[test]
    fn a_port_is_taken_as_long_as_somebody_listens() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(port_taken(port));
        drop(listener);
        assert!(!port_taken(port));
    }

    #[test]
    fn networks_may_have_several_ranges_or_none() {
        let used = parse_networks("bridge 172.17.0.0/16\nhost\nkind fc00:f853::/64 172.18.0.0/16\n");
        let names: Vec<String> = used.iter().map(|u| format!("{} {}", u.what, u.range)).collect();
        assert_eq!(
            names,
            [
                "Docker network bridge 172.17.0.0/16",
                "Docker network kind fc00:f853::/64",
                "Docker network kind 172.18.0.0/16"
            ]
        );
    }
}
