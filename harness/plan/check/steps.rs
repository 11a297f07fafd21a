//! The steps, one by one and in their order.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Checks, gateways};
use crate::apply::Manifest;
use crate::expect::Caller;
use crate::expect::{Protocol, USER};
use crate::scenario::url::{self, Place};
use crate::scenario::{
    Apply, Call, Clusters, Delete, FaultStep, Located, Method, Mtls, ObjectName, Restart, Scale, ServerWorkload, Span,
    Step, Token, WaitFor, WorkloadRef,
};
use crate::source::{EndpointsOf, known};
use crate::stats::MAX_CALLS;
use crate::workload_kind::{Client, SERVERS, WorkloadKind};

pub(super) fn check(checks: &mut Checks<'_>) {
    let steps = &checks.scenario().steps;
    if !steps.iter().any(|step| matches!(step.value, Step::Call(_))) {
        let what = if steps.is_empty() { "no steps" } else { "no step calls anything" };
        checks.wrong(steps, what, "a scenario needs a `call` with expectations");
    }
    let mut in_force: BTreeMap<(&str, &str), &Located<String>> = BTreeMap::new();
    let mut changed = false;
    for step in &**steps {
        match &step.value {
            Step::Call(call) => check_call(checks, call, changed),
            Step::Apply(apply) => check_apply(checks, apply),
            Step::Delete(delete) => check_delete(checks, delete),
            Step::Restart(restart) => check_restart(checks, restart),
            Step::WaitFor(wait) => check_wait_for(checks, wait),
            Step::Scale(scale) => check_scale(checks, scale),
            Step::Fault(fault) => {
                check_fault(checks, fault);
                if let Some(first) = in_force.insert((&fault.name, &fault.cluster), &fault.name) {
                    let what = format!("`{}` is already active in {}", fault.name.value, fault.cluster.value);
                    checks.conflict(first, &fault.name, what, "clear it first, or remove this step");
                }
            }
            Step::Clear(fault) => {
                check_fault(checks, fault);
                if in_force.remove(&(fault.name.as_str(), fault.cluster.as_str())).is_none() {
                    let faults = in_force.keys().map(|(name, cluster)| format!("{name} in {cluster}"));
                    let faults = faults.collect::<Vec<_>>().join(", ");
                    let help = if faults.is_empty() {
                        "no fault is active here".into()
                    } else {
                        format!("active here: {faults}")
                    };
                    let what = format!(
                        "nothing to clear: no earlier step injected `{}` in {}",
                        fault.name.value, fault.cluster.value
                    );
                    checks.wrong(&fault.name, what, help);
                }
            }
        }
        changed |= !matches!(step.value, Step::Call(_) | Step::WaitFor(_));
    }
}

fn check_clusters(checks: &mut Checks<'_>, clusters: &Located<Clusters>) {
    match &clusters.value {
        Clusters::One(name) => checks.mistakes.cluster(clusters, name),
        Clusters::Primaries => {}
        Clusters::Several(names) => {
            for (i, name) in names.iter().enumerate() {
                checks.cluster(name);
                if names[..i].iter().any(|earlier| earlier.value == name.value) {
                    checks.wrong(name, format!("`{}` is listed twice", name.value), "list each cluster once");
                }
            }
        }
    }
}

fn check_apply(checks: &mut Checks<'_>, apply: &Apply) {
    check_clusters(checks, &apply.cluster);
    let manifests = checks.manifests(apply.manifests());
    for text in manifests.iter().flat_map(addresses_of_entries) {
        check_placeholders(checks, &apply.file.with(text));
    }
}

/// What the addresses of WorkloadEntries and ServiceEntries are: they may hold placeholders.
fn addresses_of_entries(manifest: &Manifest) -> Vec<String> {
    let spec = &manifest.object.data["spec"];
    let endpoints = spec["endpoints"].as_array().into_iter().flatten();
    let addresses = match manifest.kind() {
        "WorkloadEntry" => vec![&spec["address"]],
        "ServiceEntry" => endpoints.map(|endpoint| &endpoint["address"]).collect(),
        _ => Vec::new(),
    };
    addresses.into_iter().filter_map(|address| address.as_str().map(str::to_owned)).collect()
}

fn check_delete(checks: &mut Checks<'_>, delete: &Delete) {
    check_clusters(checks, &delete.cluster);
    let which = "write `object: KIND/NAME`, or `file` with the objects";
    match (&delete.object, &delete.file) {
        (Some(object), Some(file)) => {
            checks.conflict(object, file, "`object` and `file` both say what is deleted", which);
        }
        (None, None) => checks.wrong(&delete.cluster, "what is to be deleted is missing", which),
        (Some(object), None) => check_object(checks, object),
        (None, Some(_)) => drop(delete.manifests().map(|manifests| checks.manifests(manifests))),
    }
    if let (Some(selector), None) = (&delete.selector, &delete.file) {
        checks.wrong(selector, "`selector` chooses objects of a `file`", "remove it, or name the file");
    }
}

fn check_object(checks: &mut Checks<'_>, object: &Located<ObjectName>) {
    if object.api_version().is_none() {
        let what = format!("unknown kind `{}`", object.kind);
        checks.wrong(object, what, known(&object.kind, "kinds", ObjectName::kinds()));
    }
}

fn check_restart(checks: &mut Checks<'_>, restart: &Restart) {
    checks.cluster(&restart.cluster);
    let which = "write `deployment: NAME`, or `pods` with a label selector";
    match (&restart.deployment, &restart.pods) {
        (Some(deployment), Some(pods)) => {
            checks.conflict(deployment, pods, "`deployment` and `pods` both say what is restarted", which);
        }
        (None, None) => checks.wrong(&restart.cluster, "what is to be restarted is missing", which),
        _ => {}
    }
}

fn check_wait_for(checks: &mut Checks<'_>, wait: &WaitFor) {
    checks.cluster(&wait.cluster);
    check_object(checks, &wait.object);
    if wait.until().is_none() {
        let help = "write one of `condition: Available`, `exists: true`, or `field` and `value`";
        checks.wrong(&wait.object, "what is to be waited for is missing, or there is more than one thing", help);
    }
    if let Some(timeout) = wait.timeout.as_ref().filter(|_| wait.timeout().is_zero()) {
        checks.wrong(timeout, "a wait that may take no time always fails", "expected a length of time such as 30s");
    }
}

fn check_fault(checks: &mut Checks<'_>, fault: &FaultStep) {
    checks.cluster(&fault.cluster);
    if !checks.faults.contains(&fault.name.as_str()) {
        let what = format!("unknown fault `{}`", fault.name.value);
        checks.wrong(&fault.name, what, known(&fault.name, "faults", checks.faults.iter().copied()));
    }
}

fn check_scale(checks: &mut Checks<'_>, scale: &Scale) {
    checks.cluster(&scale.cluster);
    let servers = checks.scenario().servers();
    let here: Vec<_> = servers.filter(|(_, server)| server.cluster.value == scale.cluster.value).collect();
    match here.iter().filter(|(_, server)| server.version.value == scale.version.value).count() {
        1 => {}
        0 => {
            let kinds = SERVERS.map(|kind| format!("`{}`", kind.name)).join(" or ");
            let what = format!("no {kinds} {} runs in {}", scale.version.value, scale.cluster.value);
            let help = known(&scale.version, "versions there", here.iter().map(|(_, server)| server.version.as_str()));
            checks.wrong(&scale.version, what, help);
        }
        _ => {
            let what = format!("several servers {} run in {}", scale.version.value, scale.cluster.value);
            checks.wrong(&scale.version, what, "`scale` is ambiguous: give them different versions");
        }
    }
}

fn check_call(checks: &mut Checks<'_>, call: &Call, changed: bool) {
    let caller = check_caller(checks, call);
    check_request(checks, call);
    gateways::check(checks, call);
    if let Some(already) = call.already.as_ref().filter(|already| already.value && !changed) {
        let help = "`already` waives the check that an expectation does not hold before a change: remove it";
        checks.wrong(already, "no step before this call changes anything", help);
    }
    if call.timeout().is_zero()
        && let Some(timeout) = &call.timeout
    {
        checks.wrong(timeout, "a request with no time always fails", "expected a length of time such as 5s");
    }
    if let Some(within) = call.within.as_ref().filter(|within| within.0.is_zero() || within.0 > MAX_WITHIN) {
        let help = format!(
            "expected a length of time up to {}, such as 30s; what holds at once needs no `within`",
            Span(MAX_WITHIN)
        );
        checks.wrong(within, format!("`within: {}` is out of range", within.value), help);
    }
    if let Some(warm_up) = call.warm_up.as_ref().filter(|calls| calls.value > MAX_CALLS) {
        checks.wrong(warm_up, format!("{} calls are too many", warm_up.value), format!("expected at most {MAX_CALLS}"));
    }
    let caller = Caller {
        sidecar: caller.is_none_or(|sidecar| sidecar),
        cluster: call.from.cluster.clone(),
        traced: checks.scenario().mesh.tracing.is_some(),
        mutual_tls: checks.scenario().mesh.mtls != Mtls::Disabled || checks.rules_about_mutual_tls(),
        timeout: call.timeout(),
        calls: call.calls.clone(),
        detect: call.detect.as_ref().map_or(Located::nowhere(call.detect()), |detect| detect.with(call.detect())),
        protocol: call.protocol(),
        headers_vary: call.headers.values().any(|value| value.contains(USER)),
    };
    call.expect.check(&call.expect.with(()), &caller, &mut checks.mistakes);
}

/// A wait that is longer than this ends no scenario soon enough to be of use.
const MAX_WITHIN: Duration = Duration::from_secs(600);

/// Whether the caller has a sidecar; `None` when it is not known.
fn check_caller(checks: &mut Checks<'_>, call: &Call) -> Option<bool> {
    let from = &call.from;
    let sleep = checks.sleeps().find(|sleep| sleep.name.value == from.name && sleep.cluster.value == from.cluster);
    if let Some(sleep) = sleep {
        return Some(sleep.sidecar);
    }
    let before = checks.mistakes.problems.len();
    checks.mistakes.cluster(from, &from.cluster);
    let others = checks.callers_of_the_users_own();
    if checks.mistakes.problems.len() == before && !others.contains(&from.value) {
        let sleeps = checks
            .sleeps()
            .map(|sleep| WorkloadRef { name: sleep.name.value.clone(), cluster: sleep.cluster.value.clone() });
        let clients: Vec<String> = sleeps.chain(others).map(|client| client.to_string()).collect();
        let help = known(&from.to_string(), "workloads", clients.iter().map(String::as_str));
        checks.wrong(from, format!("no workload is `{}`", from.value), help);
    }
    None
}

/// The names of clusters and versions in the placeholders of a text.
fn check_placeholders(checks: &mut Checks<'_>, text: &Located<String>) {
    for placeholder in url::placeholders(text) {
        // any other placeholder is a mistake of the text
        match placeholder.place {
            Some(Place::Api(cluster)) => checks.mistakes.cluster(text, cluster),
            Some(Place::Gateway(cluster)) => {
                checks.mistakes.endpoints(text, &EndpointsOf::Gateway(cluster.to_owned()));
            }
            Some(Place::Pod(version, cluster)) => {
                checks.mistakes.version(text, version);
                if let Some(cluster) = cluster {
                    checks.mistakes.cluster(text, cluster);
                }
            }
            None => {}
        }
    }
}

fn check_request(checks: &mut Checks<'_>, call: &Call) {
    if let Some((mistake, expected)) = url::mistake(&call.to) {
        checks.wrong(&call.to, mistake, expected);
    }
    check_protocol(checks, call);
    if let Some(resolve) = call.resolve.as_ref().filter(|resolve| !url::is_address(resolve)) {
        let help = "expected ADDRESS or ADDRESS:PORT, such as 10.20.0.5:5000 or {v2.pod}:5000";
        checks.wrong(resolve, format!("`{}` is not an address", resolve.value), help);
    }
    for text in [Some(&call.to), call.resolve.as_ref()].into_iter().flatten() {
        check_placeholders(checks, text);
    }
    if let (Some(method), Some(body)) = (&call.method, &call.body)
        && matches!(method.value, Method::Get | Method::Head)
    {
        let what = format!("a {} request has no body", method.value.word());
        checks.conflict(method, body, what, "remove `body`, or use `method: POST`");
    }
    if let Some(token) = &call.token {
        if call.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization")) {
            checks.wrong(token, "the call has a header `Authorization` already", "remove the header, or `token`");
        }
        if let Some(own) = Token::OWN_CLAIMS.iter().find(|own| token.claims.contains_key(**own)) {
            let help = "`issuer` sets iss; `expired: true` is a token whose time is over";
            checks.wrong(token, format!("the claim `{own}` is set by the run"), help);
        }
    }
    for (name, value) in &call.headers {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) || value.chars().any(|c| c.is_control() && c != '\t') {
            let what = format!("`{name}: {}` is not a header", value.escape_debug());
            checks.wrong(&call.from, what, "expected a name such as end-user, and a value on one line");
        }
    }
}

/// What a call may say depends on what it speaks.
fn check_protocol(checks: &mut Checks<'_>, call: &Call) {
    let protocol = call.protocol();
    let http = protocol == Protocol::Http;
    let only = |speaks: bool, what: &'static str| move |place: Located<()>| (!speaks).then_some((place, what));
    let of_curl = only(http, "it is for HTTP/1.1: http:// and https:// without `http2`");
    let written = [
        ("method", call.method.as_ref().map(|value| value.with(())).and_then(of_curl)),
        ("token", call.token.as_ref().map(|value| value.with(())).and_then(of_curl)),
        ("body", call.body.as_ref().map(|value| value.with(())).and_then(of_curl)),
        ("resolve", call.resolve.as_ref().map(|value| value.with(())).and_then(of_curl)),
        (
            "http2",
            call.http2
                .as_ref()
                .map(|value| value.with(()))
                .and_then(only(matches!(protocol, Protocol::Http | Protocol::Http2), "it is for http:// and https://")),
        ),
        (
            "server_first",
            call.server_first
                .as_ref()
                .map(|value| value.with(()))
                .and_then(only(protocol == Protocol::Tcp, "it is for tcp://")),
        ),
    ];
    for (key, place, help) in written.into_iter().filter_map(|(key, found)| found.map(|(at, help)| (key, at, help))) {
        checks.wrong(&place, format!("{} has no `{key}`", protocol.in_words()), help);
    }
    if protocol == Protocol::Tcp && !call.headers.is_empty() {
        checks.wrong(&call.to, "a TCP call has no headers", "remove `headers`, or call http://");
    }
    let has_curl_alone = |(kind, server): (&WorkloadKind, &ServerWorkload)| {
        kind.client == Client::Curl
            && server.cluster.value == call.from.cluster
            && kind.deployment(&server.version) == call.from.name
    };
    if !http && checks.scenario().servers().any(has_curl_alone) {
        let what = format!("`{}` cannot make {}", call.from.value, protocol.in_words());
        checks.wrong(&call.from, what, "call from a `sleep` or an `echo`");
    }
}
