//! Which endpoint each call went to, by the counters of the caller's proxy.
//!
//! Counters do not say which call went where. It follows only where nothing else is possible; otherwise nothing is said.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::expect::{Observations, Outcome, ProxyLine};
use crate::observe::counters::Requests;

/// Adds to each call the endpoint that it went to. `counted`: the requests that the caller's proxy sent meanwhile;
/// `pods`: the address of each pod that may have answered, by its name.
///
/// # Errors
/// When the counters and the replies do not say which call went where: retries, or several endpoints behind a gateway.
pub fn attribute(seen: &mut Observations, counted: &Requests, pods: &BTreeMap<String, IpAddr>) -> Result<(), String> {
    let mut left = counted.clone();
    let mut endpoints = vec![None; seen.calls.len()];
    // A reply that names its pod: the request went there if that pod got one.
    for (call, endpoint) in seen.calls.iter().zip(&mut endpoints) {
        let Outcome::Reply { instance: Some(instance), .. } = &call.outcome else { continue };
        let Some(ip) = pods.get(instance) else { continue };
        if let Some((address, count)) = left.iter_mut().find(|(address, count)| address.ip() == *ip && **count > 0) {
            *count -= 1;
            *endpoint = Some(*address);
        }
    }
    left.retain(|_, count| *count > 0);
    let is_reply = |outcome: &Outcome| matches!(outcome, Outcome::Reply { .. });
    let open = |endpoints: &[Option<_>]| {
        let calls = seen.calls.iter().zip(endpoints).enumerate();
        let open = calls.filter(|(_, (call, endpoint))| endpoint.is_none() && is_reply(&call.outcome));
        open.map(|(index, _)| index).collect::<Vec<usize>>()
    };
    let unanswered = seen.calls.iter().filter(|call| !is_reply(&call.outcome)).count() as u64;
    let rest = open(&endpoints);
    // A request to one pod is not answered by another; behind a gateway's address it may be any.
    let is_pod = |ip: IpAddr| pods.values().any(|pod| *pod == ip);
    let elsewhere = left.keys().any(|address| is_pod(address.ip()))
        && rest.iter().any(|index| matches!(&seen.calls[*index].outcome, Outcome::Reply { instance: Some(_), .. }));
    match (left.len(), rest.len() as u64) {
        // Every request has its reply; a call without a line went around the proxy.
        (0, _) => {}
        // Requests beyond the replies are those of calls without one.
        (_, 0) if left.values().sum::<u64>() <= unanswered => {}
        (1, replies) if !elsewhere && left.values().all(|count| (replies..=replies + unanswered).contains(count)) => {
            let endpoint = left.keys().next().copied();
            for index in rest {
                endpoints[index] = endpoint;
            }
        }
        _ => {
            let counts: Vec<String> = counted.iter().map(|(address, count)| format!("{address} {count}")).collect();
            return Err(format!("{}, for {} calls", counts.join(", "), seen.calls.len()));
        }
    }
    for (call, endpoint) in seen.calls.iter_mut().zip(endpoints) {
        let Outcome::Reply { status, .. } = call.outcome else { continue };
        call.client_proxy = endpoint.map(|endpoint| ProxyLine {
            upstream: Some(endpoint),
            status,
            flags: "-".into(),
            ..ProxyLine::default()
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expect::CallSeen;
    use rstest::rstest;
    use std::time::Duration;

    const PODS: [(&str, [u8; 4]); 2] = [("one", [10, 10, 0, 5]), ("two", [10, 20, 0, 5])];

    /// `?`: a reply that names no pod, `-`: no reply.
    fn seen(calls: &[&str]) -> Observations {
        let outcome = |name: &&str| match *name {
            "-" => Outcome::TimedOut,
            name => Outcome::Reply {
                status: 200,
                version: None,
                instance: (name != "?").then(|| name.to_owned()),
                body: None,
            },
        };
        let call = |name: &&str| CallSeen::new(outcome(name), Duration::ZERO);
        Observations {
            calls: calls.iter().map(call).collect(),
            connections: 1,
            took: Duration::ZERO,
            ..Observations::default()
        }
    }

    #[rstest]
    #[case::named(&["one", "two", "one"], &[("10.10.0.5:1", 2), ("10.20.0.5:1", 1)], Some("10.10.0.5 10.20.0.5 10.10.0.5"))]
    #[case::unnamed_at_one_endpoint(&["?", "?"], &[("10.20.0.9:1", 2)], Some("10.20.0.9 10.20.0.9"))]
    #[case::one_behind_a_gateway(&["one", "two"], &[("10.10.0.5:1", 1), ("172.18.0.9:15443", 1)], Some("10.10.0.5 172.18.0.9"))]
    #[case::around_the_proxy(&["one", "two"], &[], Some("- -"))]
    #[case::without_a_reply(&["one", "-"], &[("10.10.0.5:1", 2)], Some("10.10.0.5 -"))]
    #[case::a_retry(&["one", "one"], &[("10.10.0.5:1", 2), ("10.20.0.5:1", 1)], None)]
    #[case::unnamed_at_two_endpoints(&["?", "?"], &[("10.10.0.5:1", 1), ("10.20.0.5:1", 1)], None)]
    #[case::a_pod_that_got_no_request(&["one", "two"], &[("10.10.0.5:1", 2)], None)]
    fn a_call_s_endpoint_is_named_where_nothing_else_is_possible(
        #[case] calls: &[&str],
        #[case] counted: &[(&str, u64)],
        #[case] expected: Option<&str>,
    ) {
        let mut seen = seen(calls);
        let counted = counted.iter().map(|(at, count)| (at.parse().unwrap(), *count)).collect();
        let pods = PODS.into_iter().map(|(name, ip)| (name.to_owned(), IpAddr::from(ip))).collect();
        let done = attribute(&mut seen, &counted, &pods);
        let lines = seen.calls.iter().map(|call| match &call.client_proxy {
            Some(line) => line.upstream.unwrap().ip().to_string(),
            None => "-".into(),
        });
        let lines: Vec<String> = lines.collect();
        assert_eq!(done.is_ok().then(|| lines.join(" ")).as_deref(), expected, "{done:?}");
    }
}
