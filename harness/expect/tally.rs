//! Counting what was seen, and saying it in words.

use std::collections::BTreeMap;

use super::seen::{CallSeen, Observations, Outcome};

/// The version that answered a call, if one did.
pub(super) fn version(call: &CallSeen) -> Option<&str> {
    match &call.outcome {
        Outcome::Reply { version, .. } => version.as_deref(),
        _ => None,
    }
}

/// The HTTP status of a call's reply, if it got one.
pub(super) fn status(call: &CallSeen) -> Option<u16> {
    match &call.outcome {
        Outcome::Reply { status, .. } => Some(*status),
        _ => None,
    }
}

/// How many calls each version answered.
pub(super) fn versions(seen: &Observations) -> BTreeMap<&str, u32> {
    count(seen.calls.iter().filter_map(version))
}

/// How many there are of each.
pub(super) fn count<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, u32> {
    let mut counts = BTreeMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

/// `v1 52, v2 48`; `nothing` when there is none.
pub(super) fn list<K: std::fmt::Display>(counts: &BTreeMap<K, u32>) -> String {
    if counts.is_empty() {
        return "nothing".into();
    }
    counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}

/// `v1 52, v2 48 of 100 calls on 1 connection`.
pub(super) fn by_version(seen: &Observations) -> String {
    let mut parts: Vec<String> = versions(seen).iter().map(|(version, count)| format!("{version} {count}")).collect();
    parts.extend(list_others(seen, |call| version(call).is_some()));
    format!("{} {}", parts.join(", "), of_calls(seen))
}

/// `200 (99), timed out (1) of 100 calls on 1 connection`: brackets, for a status is a number too.
pub(super) fn by_status(seen: &Observations) -> String {
    let word = |call: &CallSeen| status(call).map_or_else(|| ending(call), |status| status.to_string());
    let parts: Vec<String> =
        count(seen.calls.iter().map(word)).iter().map(|(what, count)| format!("{what} ({count})")).collect();
    format!("{} {}", parts.join(", "), of_calls(seen))
}

/// `of 100 calls on 1 connection`.
pub(super) fn of_calls(seen: &Observations) -> String {
    format!("of {} on {}", plural(seen.calls.len(), "call"), plural(seen.connections as usize, "connection"))
}

/// `1 call`, `2 calls`.
pub(super) fn plural(n: usize, thing: &str) -> String {
    let ending = if n == 1 {
        ""
    } else if thing.ends_with('y') {
        return format!("{n} {}ies", thing.trim_end_matches('y'));
    } else {
        "s"
    };
    format!("{n} {thing}{ending}")
}

/// The calls for which `holds` is false, by how they ended.
pub(super) fn list_others(seen: &Observations, holds: impl Fn(&CallSeen) -> bool) -> Vec<String> {
    let others = seen.calls.iter().filter(|call| !holds(call));
    count(others.map(ending)).iter().map(|(ending, count)| format!("{ending} {count}")).collect()
}

/// The pod that answered each of these replies, as far as it is known: by the servers' proxies' logs if they have a line for each,
/// otherwise by the replies themselves if each names one, otherwise by the lines that there are. (A pod has one name by its log, and
/// another by its reply: the two are never mixed.)
pub(super) fn instances(replies: &[&CallSeen]) -> Vec<Option<String>> {
    let logged = replies.iter().map(|call| call.server.as_ref().map(|at| format!("{}/{}", at.cluster, at.pod)));
    let logged: Vec<Option<String>> = logged.collect();
    let named = replies.iter().map(|call| match &call.outcome {
        Outcome::Reply { instance, .. } => instance.clone(),
        _ => None,
    });
    let named: Vec<Option<String>> = named.collect();
    if logged.iter().any(Option::is_none) && named.iter().all(Option::is_some) { named } else { logged }
}

/// How a call ended, in words that are the same for calls that ended alike.
pub(super) fn ending(call: &CallSeen) -> String {
    match &call.outcome {
        Outcome::Reply { status, version: Some(version), .. } => format!("{version} with status {status}"),
        Outcome::Reply { status, .. } => match flags(call) {
            Some(flags) => format!("status {status} without a version ({flags})"),
            None => format!("status {status} without a version"),
        },
        Outcome::Unresolved => "name not resolved".into(),
        Outcome::Refused(_) => "refused".into(),
        Outcome::TimedOut => "timed out".into(),
        Outcome::Failed(why) => format!("failed ({why})"),
    }
}

/// Envoy's response flags, where there are any.
fn flags(call: &CallSeen) -> Option<&str> {
    call.client_proxy.as_ref().map(|line| line.flags.as_str()).filter(|flags| !flags.is_empty() && *flags != "-")
}

/// `v1`, `v1 and v2`, `v1, v2 and v3`.
pub(super) fn and(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
