//! A scenario on a topology: clusters, CIDRs, routes, versions, steps, calls and their power. Pure.
//!
//! `meshproof plan FILE` prints it; nothing is touched for that.

mod display;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use crate::scenario::{
    Call, EndpointsIn, Expect, LoadedScenario, MeshOptions, Mtls, Outbound, Span, Step, Tracing, Workload,
};
use crate::topology::{ClusterSpec, NodeRole, Topology};
use crate::verdict::{calls_needed, power};

/// What a run of a scenario will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: String,
    /// Its purpose.
    pub purpose: String,
    /// Its file.
    pub file: PathBuf,
    /// The topology's name.
    pub topology: String,
    /// What the topology is for.
    pub topology_purpose: String,
    /// The clusters, primaries first.
    pub clusters: Vec<ClusterPlan>,
    /// What each cluster's nodes are told about the others' pods.
    pub routes: Vec<RoutePlan>,
    /// How the mesh is installed.
    pub mesh: MeshPlan,
    /// What everything is made of, as far as it is known.
    pub versions: Vec<Part>,
    /// What runs in the clusters.
    pub workloads: Vec<WorkloadPlan>,
    /// What is done, in order.
    pub steps: Vec<StepPlan>,
}

/// A part and its version: `kubernetes`, `v1.34.4`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Which one.
    pub version: String,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterPlan {
    /// Its name.
    pub name: String,
    /// The cluster whose control plane it uses: its own name for a primary.
    pub control_plane: String,
    /// Its network.
    pub network: String,
    /// Whether it has an east-west gateway.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gateway: bool,
    /// The range of its pods.
    pub pods: IpNet,
    /// The range of its services.
    pub services: IpNet,
    /// How many of its nodes run the API server.
    pub control_plane_nodes: usize,
    /// How many others it has.
    pub workers: usize,
    /// `kindnet` or `static`.
    pub cni: crate::topology::Cni,
}

/// A route that every node of a cluster gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoutePlan {
    /// The cluster whose nodes get it.
    pub from: String,
    /// The addresses that it leads to.
    pub to: IpNet,
    /// The cluster whose nodes it leads through, each for the part that it hands out.
    pub via: String,
}

/// How the mesh is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MeshPlan {
    /// Mutual TLS between workloads.
    pub mtls: Mtls,
    /// The outbound ranges that sidecars capture; empty: all.
    pub captured: Vec<IpNet>,
    /// Whether sidecars answer DNS.
    pub dns_capture: bool,
    /// The server that traces go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// The trust domain of the workloads' identities.
    pub trust_domain: String,
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkloadPlan {
    /// Where it runs.
    pub cluster: String,
    /// In which namespace; `None`: its manifest says.
    pub namespace: Option<String>,
    /// What it is: `sleep`, `helloworld v1`, a file.
    pub what: String,
    /// How many pods, where the scenario says.
    pub pods: Option<u32>,
    /// Whether it joins the mesh.
    pub sidecar: bool,
    /// The clusters that get a stub of its service.
    pub stubs_in: Vec<String>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepPlan {
    /// Where it is written.
    pub line: usize,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Sends calls and judges them.
    Call(Box<CallPlan>),
    /// Applies a file.
    Apply {
        /// Where.
        cluster: String,
        /// What.
        file: PathBuf,
    },
    /// Changes how many pods a `helloworld` has.
    Scale {
        /// Which.
        version: String,
        /// Where.
        cluster: String,
        /// To how many.
        replicas: u32,
    },
    /// Breaks something.
    Fault {
        /// What.
        name: String,
        /// Where.
        cluster: String,
    },
    /// Clears it.
    Clear {
        /// What.
        name: String,
        /// Where.
        cluster: String,
    },
}

/// A series of calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallPlan {
    /// The caller.
    pub from: String,
    /// The URL, with its placeholders.
    pub to: String,
    /// Request headers, `name: value`.
    pub headers: Vec<String>,
    /// How many.
    pub calls: u32,
    /// Whether each opens a connection of its own.
    pub new_connections: bool,
    /// How long one may take.
    #[serde(serialize_with = "as_people_write_it")]
    pub timeout: Duration,
    /// The smallest deviation worth noticing, as a fraction of the calls.
    pub detect: f64,
    /// The chance to notice it.
    pub power: f64,
    /// Whether the expectation must not hold before the change ahead of the call.
    pub negative_control: bool,
    /// What is expected, one phrase each.
    pub expect: Vec<String>,
}

fn as_people_write_it<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    Span(*duration).serialize(serializer)
}

/// How many calls a step makes: as many as it says, or as its expectation needs.
pub fn calls_of(call: &Call) -> u32 {
    call.calls.as_ref().map_or_else(|| calls_needed(&call.expect, call.detect()), |calls| calls.value)
}

/// The plan of a scenario that was checked against its topology. `versions` are told as they are given.
pub fn plan(loaded: &LoadedScenario, topology: &Topology, versions: Vec<Part>) -> Plan {
    let scenario = &loaded.scenario;
    let mut changed = false;
    let mut steps = Vec::new();
    for step in &*scenario.steps {
        steps.push(StepPlan { line: step.line, action: action(step, topology, changed) });
        changed |= !matches!(step.value, Step::Call(_));
    }
    let routes = topology.routed_pairs().into_iter();
    Plan {
        scenario: scenario.name.value.clone(),
        purpose: scenario.purpose.value.clone(),
        file: loaded.path().to_path_buf(),
        topology: topology.name.clone(),
        topology_purpose: topology.purpose.clone(),
        clusters: topology.clusters.iter().map(cluster).collect(),
        routes: routes
            .map(|(from, to)| RoutePlan { from: from.name.clone(), to: to.pods, via: to.name.clone() })
            .collect(),
        mesh: mesh(&scenario.mesh, topology),
        versions,
        workloads: scenario.workloads.iter().map(|workload| self::workload(workload, topology)).collect(),
        steps,
    }
}

fn cluster(spec: &ClusterSpec) -> ClusterPlan {
    let control_plane_nodes = spec.nodes.iter().filter(|node| node.role == NodeRole::ControlPlane).count();
    ClusterPlan {
        name: spec.name.clone(),
        control_plane: spec.served_by().unwrap_or(&spec.name).to_owned(),
        network: spec.network.clone(),
        gateway: spec.gateway,
        pods: spec.pods,
        services: spec.services,
        control_plane_nodes,
        workers: spec.nodes.len() - control_plane_nodes,
        cni: spec.cni,
    }
}

fn mesh(options: &MeshOptions, topology: &Topology) -> MeshPlan {
    let captured = match options.outbound {
        Outbound::All => Vec::new(),
        Outbound::Clusters => topology.clusters.iter().flat_map(|cluster| [cluster.pods, cluster.services]).collect(),
    };
    let domains: std::collections::BTreeSet<&str> =
        topology.clusters.iter().map(|cluster| cluster.mesh.trust_domain.as_str()).collect();
    let trust_domain = domains.into_iter().collect::<Vec<_>>().join(", ");
    let MeshOptions { mtls, dns_capture, tracing, .. } = *options;
    MeshPlan { mtls, captured, dns_capture, tracing, trust_domain }
}

fn workload(workload: &Workload, topology: &Topology) -> WorkloadPlan {
    match workload {
        Workload::Sleep(sleep) => WorkloadPlan {
            cluster: sleep.cluster.value.clone(),
            namespace: Some(sleep.namespace().to_owned()),
            what: sleep.name.value.clone(),
            pods: Some(1),
            sidecar: sleep.sidecar,
            stubs_in: Vec::new(),
        },
        Workload::Helloworld(hello) => {
            let others = topology.clusters.iter().map(|c| &c.name).filter(|name| **name != hello.cluster.value);
            WorkloadPlan {
                cluster: hello.cluster.value.clone(),
                namespace: Some(hello.namespace.value.clone()),
                what: format!("helloworld {}", hello.version.value),
                pods: Some(hello.replicas.value),
                sidecar: true,
                stubs_in: if hello.stubs { others.cloned().collect() } else { Vec::new() },
            }
        }
        Workload::Manifest(manifest) => WorkloadPlan {
            cluster: manifest.cluster.value.clone(),
            namespace: None,
            what: manifest.file.display().to_string(),
            pods: None,
            sidecar: true,
            stubs_in: Vec::new(),
        },
    }
}

fn action(step: &Step, topology: &Topology, changed: bool) -> Action {
    match step {
        Step::Call(call) => Action::Call(Box::new(self::call(call, topology, changed))),
        Step::Apply(apply) => {
            Action::Apply { cluster: apply.cluster.names(topology).join(", "), file: apply.file.value.clone() }
        }
        Step::Scale(scale) => Action::Scale {
            version: scale.version.value.clone(),
            cluster: scale.cluster.value.clone(),
            replicas: scale.replicas.value,
        },
        Step::Fault(fault) => Action::Fault { name: fault.name.value.clone(), cluster: fault.cluster.value.clone() },
        Step::Clear(fault) => Action::Clear { name: fault.name.value.clone(), cluster: fault.cluster.value.clone() },
    }
}

fn call(call: &Call, topology: &Topology, changed: bool) -> CallPlan {
    let calls = calls_of(call);
    CallPlan {
        from: call.from.to_string(),
        to: call.to.value.clone(),
        headers: call.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        calls,
        new_connections: call.new_connections,
        timeout: call.timeout(),
        detect: call.detect(),
        power: power(&call.expect, calls, call.detect()),
        negative_control: changed && !call.already(),
        expect: phrases(&call.expect, topology),
    }
}

/// What is expected, one phrase each.
fn phrases(expect: &Expect, topology: &Topology) -> Vec<String> {
    let Expect {
        reached,
        only,
        never,
        split,
        status,
        endpoints_in,
        source_in,
        mtls,
        latency,
        refused,
        resolves,
        captured,
    } = expect;
    let join = |items: Vec<String>, last: &str| match items.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{} {last} {end}", rest.join(", ")),
        _ => items.join(", "),
    };
    let range = |cluster: &str| match topology.cluster(cluster) {
        Some(spec) => format!("{cluster}'s pods ({})", spec.pods),
        None => format!("{cluster}'s pods"),
    };
    let mut phrases = Vec::new();
    if let Some(versions) = reached {
        let versions = versions.iter().map(|version| version.value.clone()).collect();
        phrases.push(format!("{} answer, and no other", join(versions, "and")));
    }
    phrases.extend(only.as_ref().map(|version| format!("only {} answers", version.value)));
    if let Some(versions) = never {
        let versions = versions.iter().map(|version| version.value.clone()).collect();
        phrases.push(format!("{} never answers", join(versions, "or")));
    }
    if let Some(shares) = split {
        let shares = shares.iter().map(|(version, share)| format!("{version} {}", share.value)).collect();
        phrases.push(format!("shares of {}", join(shares, "and")));
    }
    let status = status.as_ref().map(|status| status.value).or((!expect.no_reply()).then_some(200));
    phrases.extend(status.map(|status| format!("every reply has status {status}")));
    match endpoints_in.as_ref().map(|endpoints| &endpoints.value) {
        Some(EndpointsIn::All(pods)) => phrases.push(format!("every call ends at one of {}", range(&pods.0))),
        Some(EndpointsIn::ByVersion(by)) => {
            phrases
                .extend(by.iter().map(|(version, pods)| format!("{version} answers from one of {}", range(&pods.0))));
        }
        None => {}
    }
    phrases.extend(source_in.as_ref().map(|pods| format!("every call comes from one of {}", range(&pods.0))));
    let choice = |value: &Option<crate::scenario::Located<bool>>, yes: &str, no: &str| {
        value.as_ref().map(|value| if value.value { yes.to_owned() } else { no.to_owned() })
    };
    phrases.extend(choice(mtls, "the server's proxy sees the caller's identity", "no identity is seen"));
    phrases.extend(latency.as_ref().map(|latency| format!("every reply arrives within {}", latency.value)));
    phrases.extend(choice(refused, "every call is refused", "no call is refused"));
    phrases.extend(choice(resolves, "the name resolves", "the name does not resolve"));
    phrases.extend(choice(
        captured,
        "every call passes through the caller's sidecar",
        "no call passes through the caller's sidecar",
    ));
    phrases
}
