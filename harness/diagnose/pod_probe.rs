//! One pod's network, looked at from its node: connections to other pods, past any proxy, and who connects to it.
//!
//! Nothing is made in a cluster for this. The programs run on the pod's node with the pod's network, as the group whose
//! connections sidecars leave alone, and connect to a port that sidecars do not catch. Everything is one script, so that both
//! ends of a call look at the same time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::rung::{Answer, within};
use crate::provider::{Cluster, PodAt};

/// The group whose connections a sidecar's packet filter leaves alone: the proxy's own
/// (istio/istio `tools/istio-iptables/pkg/capture/run.go`).
const PROXY_GROUP: &str = "1337";

/// How many connections are opened to each pod, some six packets each: enough that one packet in twenty is missed, and not so
/// many that they hinder each other.
const CONNECTIONS: usize = 20;

/// The pod itself. (Packets that the proxy's group sends to the pod's own other address are the sidecar's to catch.)
const ITSELF: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A connection whose answer took longer than this waited for a packet that was sent again (Linux waits 200 ms at least).
pub(super) const LATE: f64 = 0.19;

/// What connections to one pod came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reach {
    /// Per established connection: seconds until it did, and until it ended: by an answer, whatever the pod speaks, or with none.
    pub times: Vec<(f64, f64)>,
    /// Why others did not, in curl's words.
    pub errors: Vec<String>,
    /// Whether one was refused: the packets arrived, and the answer came back, but nothing listens.
    pub refused: bool,
    /// The shortest round trip of a packet that the kernel saw, in seconds; `None`: no connection stayed open.
    pub round_trip: Option<f64>,
}

/// What one pod's network showed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Probed {
    /// By the address that was called.
    pub reached: BTreeMap<IpAddr, Reach>,
    /// What as many connections at the same moment to its own port came to, which leave the pod by no way: when these wait, the
    /// machine is busy.
    pub itself: Reach,
    /// Whether it was watched who connects to its own port.
    pub watched: bool,
    /// Peers of the connections to that port.
    pub callers: Vec<IpAddr>,
    /// TCP segments that were sent again meanwhile, and that the other end had not.
    pub resent: u64,
}

/// Connects from the pod at `at` to each of `to`, and watches who connects to its own port `own`.
pub(super) async fn probe(cluster: &Cluster, at: &PodAt, own: u16, to: &[SocketAddr]) -> Answer<Probed> {
    let script = script(own, to);
    let what = format!("a test from the network of pod {}/{} in {}", at.pod.namespace, at.pod.name, cluster.name);
    let argv = ["setpriv", "--regid", PROXY_GROUP, "--clear-groups", "--", "bash", "-c", &script];
    let output = tokio::time::timeout(super::rung::PATIENCE * 2, cluster.pod_net_exec(at, &argv)).await;
    let output = output.map_err(|_| format!("{what}: no response"))?.map_err(|e| format!("{what}: {e}"))?;
    let text = output.text();
    if !text.contains("resent-after") {
        return Err(format!("{what}: {}", output.last_lines(1)));
    }
    let mut probed = parse(&text, own);
    let itself = probed.reached.remove(&ITSELF).unwrap_or_default();
    Ok(Probed { watched: true, itself, ..probed })
}

/// As [`probe`], from inside the pod's proxy, where nodes cannot be entered: who calls whom is not seen.
pub(super) async fn probe_from_inside(cluster: &Cluster, at: &PodAt, to: &[SocketAddr]) -> Answer<Probed> {
    let what = format!("a test from pod {}/{} in {}", at.pod.namespace, at.pod.name, cluster.name);
    let script = script_inside(to);
    let output = within(&what, cluster.exec(&at.pod, "istio-proxy", &["sh", "-c", &script], b"")).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !text.contains("call ") {
        return Err(format!(
            "{what}: {}",
            String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no curl in the container")
        ));
    }
    Ok(parse(&text, 0))
}

fn curl(to: SocketAddr) -> String {
    format!(
        "curl -s -o /dev/null -m 2 --no-keepalive -H 'Connection: close' -Z --parallel-immediate --parallel-max {CONNECTIONS} \
         -w 'call {} %{{time_connect}} %{{time_total}} %{{exitcode}} %{{errormsg}}\\n' 'http://{to}/healthz/ready?[1-{CONNECTIONS}]'",
        to.ip()
    )
}

/// All pods at the same moment: one after the other, the second silent one would be over the limit.
fn script_inside(to: &[SocketAddr]) -> String {
    let looks = to.iter().map(|address| format!("{} &\n{}", curl(*address), connect(*address, 2, "exit")));
    looks.chain(["wait".to_owned()]).collect::<Vec<_>>().join("\n")
}

/// Opens one connection within so many seconds, and does `then` with it open; reports whether it was refused, which curl does not.
fn connect(to: SocketAddr, seconds: u8, then: &str) -> String {
    let (ip, port) = (to.ip(), to.port());
    format!(
        "LC_ALL=C timeout {seconds} bash -c 'exec 3<>/dev/tcp/{ip}/{port}; {then}' 2>&1 | grep -q refused && echo 'refused {ip}' &"
    )
}

fn script(own: u16, to: &[SocketAddr]) -> String {
    // What was sent again, and what of it the other end had already: a slow machine's doing, not the way's.
    let mut script = String::from(
        "count() { awk -v k=$2 '{ for (i = 2; i <= NF; i++) if ($i == k) { getline l; split(l, v); print v[i]; exit } }' $1; }\n\
         resent() { echo $(count /proc/net/snmp RetransSegs) $(count /proc/net/netstat TCPDSACKRecv); }\n\
         echo resent-before $(resent)\n",
    );
    let _ = writeln!(script, "(sleep 0.3; {}) &", curl((ITSELF, own).into()));
    for address in to {
        // One connection stays open long enough to be seen at the other end, and is made while there is no other.
        let _ = writeln!(script, "{}", connect(*address, 3, "sleep 2.5"));
        let _ = writeln!(script, "(sleep 0.3; {}) &", curl(*address));
    }
    let watch = format!("ss -Htn state established '( sport = :{own} )' | sed 's/^/peer /'");
    let _ = writeln!(script, "for i in $(seq 20); do\n{watch}");
    for address in to {
        let (ip, port) = (address.ip(), address.port());
        let _ = writeln!(
            script,
            "ss -Htni state established '( dst {ip} and dport = :{port} )' | grep -oE '(min)?rtt:[0-9.]+' | sed -E 's/(min)?rtt:/rtt {ip} /'"
        );
    }
    let _ = write!(script, "sleep 0.1; done\nwait\necho resent-after $(resent)\n");
    script
}

fn parse(text: &str, own: u16) -> Probed {
    let mut probed = Probed::default();
    let (mut before, mut after) = ((0, 0), (0, 0));
    let counts = |resent: &str, needless: &str| (resent.parse().unwrap_or(0), needless.parse().unwrap_or(0));
    let own = format!(":{own}");
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["resent-before", resent, needless] => before = counts(resent, needless),
            ["resent-after", resent, needless] => after = counts(resent, needless),
            ["peer", .., local, peer] if local.ends_with(&own) => {
                let address = peer.rsplit_once(':').map(|(ip, _)| ip.trim_matches(['[', ']']));
                let address = address.and_then(|ip| ip.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical());
                let new = |ip: &IpAddr| *ip != ITSELF && !probed.callers.contains(ip);
                let new = address.filter(new);
                probed.callers.extend(new);
            }
            ["refused", ip] => {
                let Ok(ip) = ip.parse() else { continue };
                probed.reached.entry(ip).or_default().refused = true;
            }
            ["rtt", ip, millis] => {
                let (Ok(ip), Ok(millis)) = (ip.parse(), millis.parse::<f64>()) else { continue };
                let reach: &mut Reach = probed.reached.entry(ip).or_default();
                reach.round_trip = Some(reach.round_trip.map_or(millis / 1e3, |known: f64| known.min(millis / 1e3)));
            }
            ["call", ip, connect, total, code, error @ ..] => {
                let Ok(ip) = ip.parse() else { continue };
                let reach: &mut Reach = probed.reached.entry(ip).or_default();
                match (connect.parse::<f64>(), total.parse(), *code) {
                    // A connection that was established and then failed does not count against the path, unless it took too long: the pod may not speak HTTP.
                    (Ok(connect), Ok(total), code) if code == "0" || connect > 0.0 => {
                        reach.times.push((connect, total))
                    }
                    _ => reach.errors.push(error.join(" ")),
                }
            }
            _ => {}
        }
    }
    let grown: (u64, u64) = (after.0 - before.0.min(after.0), after.1 - before.1.min(after.1));
    probed.resent = grown.0.saturating_sub(grown.1);
    probed
}

impl Reach {
    /// The time that the way itself takes, there and back, whatever else the machine does: the kernel's, or that of the
    /// fastest connection. `None`: no connection was established.
    pub fn way(&self) -> Option<f64> {
        let fastest = self.times.iter().map(|(connect, _)| *connect);
        fastest.chain(self.round_trip).min_by(f64::total_cmp)
    }

    /// Connections that did not come about, or waited so long that something may have been sent again.
    pub fn late(&self) -> usize {
        // What the way itself takes, there and back for connection and answer, is no waiting.
        let way = self.way().unwrap_or(0.0) * 2.0;
        self.times.iter().filter(|(_, total)| *total > way + LATE).count() + self.errors.len()
    }

    /// Connections that were established or ended late. A refused connection does not count as waiting.
    pub fn waited(&self) -> usize {
        self.late() - self.errors.iter().filter(|e| !e.contains("timed out")).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "resent-before 7 3
call 10.20.0.5 0.000412 0.001903 0 
call 10.20.0.5 1.021412 1.031903 0 
call 10.20.0.5 0.000000 2.000903 28 Connection timed out after 2000 milliseconds
peer 0      0      10.10.0.2:15021   10.20.0.5:35690 
peer 0      0      [::ffff:10.10.0.2]:15021   [::ffff:172.20.0.3]:35691 
peer 0      0      10.10.0.2:15021   10.20.0.5:35690 
peer 0      0      127.0.0.1:15021   127.0.0.1:35692 
peer 0      0      10.10.0.2:5000   10.20.0.9:35690 
rtt 10.20.0.5 0.31
rtt 10.20.0.5 0.252
resent-after 10 4";

    #[test]
    fn both_ends_are_read_from_one_script() {
        let probed = parse(SAID, 15021);
        let callers: Vec<String> = probed.callers.iter().map(ToString::to_string).collect();
        assert_eq!((callers, probed.resent), (vec!["10.20.0.5".to_owned(), "172.20.0.3".to_owned()], 2));
        let reach = &probed.reached[&"10.20.0.5".parse::<IpAddr>().unwrap()];
        assert_eq!(reach.times, [(0.000412, 0.001903), (1.021412, 1.031903)]);
        assert_eq!(reach.errors, ["Connection timed out after 2000 milliseconds"]);
        assert_eq!((reach.way(), reach.late(), reach.waited()), (Some(0.000252), 2, 2));
    }

    #[test]
    fn a_long_way_is_not_a_late_answer() {
        let reach = Reach { times: vec![(0.3, 0.605), (0.3, 0.602)], ..Reach::default() };
        assert_eq!(reach.late(), 0);
    }

    /// The script itself, in a network namespace of its own, against a port where nothing listens.
    #[tokio::test]
    async fn the_script_runs_and_tells_of_a_refused_connection() {
        let script = script(9, &["127.0.0.2:9".parse().unwrap()]);
        let output = crate::tool::Tool::new("bash").args(["-c", &script]).run().await.unwrap();
        let probed = parse(&output.text(), 9);
        for address in ["127.0.0.1", "127.0.0.2"] {
            let reach = &probed.reached[&address.parse::<IpAddr>().unwrap()];
            assert_eq!((reach.times.len(), reach.errors.len()), (0, CONNECTIONS), "{}", output.text());
            assert_eq!((reach.late(), reach.waited()), (CONNECTIONS, 0));
        }
        assert!(probed.reached[&"127.0.0.2".parse::<IpAddr>().unwrap()].refused, "{}", output.text());
    }

    #[test]
    fn a_connection_that_stood_counts_whatever_the_pod_speaks() {
        let said = "call 10.20.0.5 0.000412 0.001903 1 Received HTTP/0.9 when not allowed\n\
                    call 10.20.0.5 0.000412 2.000100 28 Operation timed out after 2000 milliseconds with 0 bytes received\n\
                    call 10.20.0.5 0.000000 0.000100 7 Failed to connect to 10.20.0.5 port 9 after 0 ms\n";
        let reach = &parse(said, 15021).reached[&"10.20.0.5".parse::<IpAddr>().unwrap()];
        assert_eq!((reach.times.len(), reach.errors.len(), reach.way()), (2, 1, Some(0.000412)));
    }

    /// Two pods that take connections and never answer, and one that refuses them: all within the time of one.
    #[tokio::test]
    async fn a_look_from_inside_is_at_all_pods_at_once() {
        let silent = [std::net::TcpListener::bind("127.0.0.1:0"), std::net::TcpListener::bind("127.0.0.2:0")];
        let mut to: Vec<SocketAddr> = silent.iter().map(|l| l.as_ref().unwrap().local_addr().unwrap()).collect();
        to.push("127.0.0.3:9".parse().unwrap());
        let output = crate::tool::Tool::new("sh").args(["-c", &script_inside(&to)]).run().await.unwrap();
        assert!(output.duration < super::super::rung::PATIENCE, "{:?}", output.duration);
        let probed = parse(&output.text(), 0);
        let seen = |ip: &str| &probed.reached[&ip.parse::<IpAddr>().unwrap()];
        assert_eq!((seen("127.0.0.1").times.len(), seen("127.0.0.2").times.len()), (CONNECTIONS, CONNECTIONS));
        assert_eq!((seen("127.0.0.3").times.len(), seen("127.0.0.3").refused), (0, true), "{}", output.text());
    }
}
