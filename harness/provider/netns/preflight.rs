//! What this provider needs of the machine, tried in a temporary network namespace.

use crate::finding::Finding;
use crate::tool::Tool;

/// Each thing that a run will do to a namespace: what it is, and the command that tries it.
const TRIALS: [(&str, &str); 8] = [
    ("veth links", "ip link add name trial0 type veth peer name trial1"),
    ("bridges", "ip link add name trial2 type bridge"),
    ("forwarding", "test -w /proc/sys/net/ipv4/ip_forward"),
    (
        "address translation (kube-proxy)",
        "iptables -w -t nat -A POSTROUTING -m mark --mark 1 -j MASQUERADE --random-fully",
    ),
    (
        "load balancing (kube-proxy)",
        "iptables -w -t nat -A PREROUTING -m statistic --mode random --probability 0.5 -j ACCEPT",
    ),
    ("connection tracking (kube-proxy)", "iptables -w -t filter -A FORWARD -m conntrack --ctstate INVALID -j DROP"),
    (
        "interception (sidecars)",
        "iptables -w -t nat -A OUTPUT -p tcp -m owner --uid-owner 1337 -j REDIRECT --to-ports 15001",
    ),
    ("port lists (sidecars)", "iptables -w -t nat -A PREROUTING -p tcp -m multiport --dports 1,2 -j RETURN"),
];

/// Looks at everything but the programs, which `meshproof doctor` lists by itself. The topology's address
/// ranges and the host's routes cannot collide here: the host sees neither links nor routes.
pub async fn preflight() -> Vec<Finding> {
    if !nix::unistd::geteuid().is_root() {
        let found = format!("user {}", nix::unistd::geteuid());
        let why = "network namespaces, mounts and packet filters of pods need root's rights";
        return vec![Finding::bad("rights", found, why, "run the same command with sudo")];
    }
    vec![Finding::good("rights", "root"), namespaces().await]
}

async fn namespaces() -> Finding {
    let steps = TRIALS.map(|(what, command)| format!("echo {}; {command}", crate::tool::quote(what)));
    let script = format!("set -e; {}", steps.join("; "));
    let subject = "network namespaces";
    match Tool::new("unshare").args(["--net", "--", "sh", "-c", &script]).run_unchecked().await {
        Ok(output) if output.status.success() => Finding::good(subject, TRIALS.map(|(what, _)| what).join(", ")),
        Ok(output) => {
            let said = output.error_text();
            let Some((what, command)) = TRIALS.iter().find(|(what, _)| Some(*what) == output.text().lines().last())
            else {
                let why = "every node and every pod has one";
                return Finding::bad(
                    subject,
                    said,
                    why,
                    "give the machine or container CAP_SYS_ADMIN and CAP_NET_ADMIN",
                );
            };
            let why = format!("`{command}` fails in a fresh namespace");
            Finding::bad(
                subject,
                format!("no {what}: {said}"),
                why,
                "modprobe -a veth bridge nf_nat nf_conntrack xt_owner xt_statistic xt_multiport",
            )
        }
        Err(error) => {
            Finding::bad(subject, error.to_string(), "every node and every pod has one", "meshproof doctor --install")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    #[tokio::test]
    async fn says_what_is_missing_or_that_all_is_well() {
        let findings = preflight().await;
        if nix::unistd::geteuid().is_root() {
            assert_eq!(findings.len(), 2);
        } else {
            assert_eq!(findings[0].severity, Severity::Bad);
        }
        for finding in findings.iter().filter(|f| f.severity == Severity::Bad) {
            assert!(!finding.fix.is_empty() && !finding.why.is_empty(), "{finding:?}");
        }
    }
}
