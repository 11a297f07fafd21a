//! A plan as it is shown: to people by its `Display`, to programs as JSON. Made from the plan when it is printed.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::{Action, Change, Plan, PlannedCall, PlannedStep, Restarted};
use crate::apply::Manifest;
use crate::expect::{Protocol, Ranges};
use crate::scenario::{Call, MeshOptions, Mtls, Outbound, Span, Tracing, Workload};
use crate::supply::Program;
use crate::topology::{ClusterSpec, IstioSettings, NodeRole, Topology};

/// A plan as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
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
    pub clusters: Vec<ClusterView>,
    /// The routes of each cluster's nodes to the others' pods.
    pub routes: Vec<RouteView>,
    /// How the mesh is installed.
    pub mesh: MeshView,
    /// What everything is made of, as far as it is known.
    pub versions: Vec<PartVersion>,
    /// What runs in the clusters.
    pub workloads: Vec<WorkloadView>,
    /// What is done, in order.
    pub steps: Vec<StepView>,
}

/// A part and its version: `kubernetes`, `v1.34.4`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartVersion {
    /// What it is.
    pub name: String,
    /// Which one.
    pub version: String,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterView {
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
pub struct RouteView {
    /// The cluster whose nodes get it.
    pub from: String,
    /// The addresses that it leads to.
    pub to: IpNet,
    /// The cluster whose nodes it leads through, each for the part that it hands out.
    pub via: String,
}

/// How the mesh is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MeshView {
    /// Mutual TLS between workloads.
    pub mtls: Mtls,
    /// The outbound ranges that sidecars capture; empty: all.
    pub captured: Vec<IpNet>,
    /// Whether sidecars answer DNS.
    pub dns_capture: bool,
    /// The server that traces go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// The APIs whose definitions are installed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apis: Vec<&'static str>,
    /// What is set of Istio itself.
    #[serde(flatten)]
    pub istio: IstioSettings,
    /// The trust domain of the workloads' identities.
    pub trust_domain: String,
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkloadView {
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
pub struct StepView {
    /// Where it is written.
    pub line: usize,
    /// What it does.
    #[serde(flatten)]
    pub action: ActionView,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionView {
    /// Sends calls and judges them.
    Call(Box<CallView>),
    /// Applies a file.
    Apply {
        /// Where.
        cluster: String,
        /// What.
        file: PathBuf,
        /// Its objects.
        objects: Vec<String>,
    },
    /// Deletes objects.
    Delete {
        /// Where.
        cluster: String,
        /// What.
        objects: Vec<String>,
    },
    /// Replaces pods by new ones.
    Restart {
        /// Where.
        cluster: String,
        /// What.
        what: String,
    },
    /// Waits until an object is as it is to be.
    #[serde(rename = "wait_for")]
    WaitFor {
        /// Where.
        cluster: String,
        /// Which object.
        object: String,
        /// What is waited for.
        until: String,
        /// How long that may take.
        #[serde(serialize_with = "as_people_write_it")]
        timeout: Duration,
    },
    /// Changes how many pods a server has.
    Scale {
        /// What it is a version of: `helloworld`, `echo`.
        service: String,
        /// Which version.
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
pub struct CallView {
    /// The caller.
    pub from: String,
    /// The URL, with its placeholders.
    pub to: String,
    /// Request headers, `name: value`.
    pub headers: Vec<String>,
    /// What else is special about the requests, one phrase each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
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
    /// Whether the expectation must not hold before the change that precedes the call.
    pub negative_control: bool,
    /// What is expected, one phrase each.
    pub expect: Vec<String>,
}

fn as_people_write_it<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    Span(*duration).serialize(serializer)
}

impl Plan {
    /// The plan as it is shown; `versions` are shown as they are given.
    pub fn view(&self, versions: Vec<PartVersion>) -> View {
        let (scenario, topology) = (self.scenario(), &self.topology);
        let pods = topology.clusters.iter().map(|cluster| (cluster.name.clone(), cluster.pods)).collect();
        let ranges = Ranges { pods, ..Ranges::default() };
        let routes = topology.routed_pairs().into_iter();
        View {
            scenario: scenario.name.value.clone(),
            purpose: scenario.purpose.value.clone(),
            file: self.loaded.path().to_path_buf(),
            topology: topology.name.clone(),
            topology_purpose: topology.purpose.clone(),
            clusters: topology.clusters.iter().map(cluster).collect(),
            routes: routes
                .map(|(from, to)| RouteView { from: from.name.clone(), to: to.pods, via: to.name.clone() })
                .collect(),
            mesh: mesh(&self.mesh, topology),
            versions,
            workloads: scenario.workloads.iter().map(|workload| self::workload(workload, topology)).collect(),
            steps: self.steps.iter().map(|step| self::step(step, &ranges)).collect(),
        }
    }
}

fn cluster(spec: &ClusterSpec) -> ClusterView {
    let control_plane_nodes = spec.nodes.iter().filter(|node| node.role == NodeRole::ControlPlane).count();
    ClusterView {
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

fn mesh(options: &MeshOptions, topology: &Topology) -> MeshView {
    let captured = match options.outbound {
        Outbound::All => Vec::new(),
        Outbound::Clusters => topology.clusters.iter().flat_map(|cluster| [cluster.pods, cluster.services]).collect(),
    };
    let domains: std::collections::BTreeSet<&str> =
        topology.clusters.iter().map(|cluster| cluster.mesh.trust_domain.as_str()).collect();
    let trust_domain = domains.into_iter().collect::<Vec<_>>().join(", ");
    let MeshOptions { mtls, dns_capture, tracing, .. } = *options;
    let apis = options.crds().into_iter().map(Program::name).collect();
    MeshView { mtls, captured, dns_capture, tracing, apis, istio: options.istio.clone(), trust_domain }
}

fn workload(workload: &Workload, topology: &Topology) -> WorkloadView {
    match workload {
        Workload::Sleep(sleep) => WorkloadView {
            cluster: sleep.cluster.value.clone(),
            namespace: Some(sleep.namespace().to_owned()),
            what: sleep.name.value.clone(),
            pods: Some(1),
            sidecar: sleep.sidecar,
            stubs_in: Vec::new(),
        },
        Workload::Server(kind, server) => {
            let others = topology.clusters.iter().map(|c| &c.name).filter(|name| **name != server.cluster.value);
            WorkloadView {
                cluster: server.cluster.value.clone(),
                namespace: Some(server.namespace.value.clone()),
                what: format!("{} {}", kind.name, server.version.value),
                pods: Some(server.replicas.value),
                sidecar: true,
                stubs_in: if server.stubs { others.cloned().collect() } else { Vec::new() },
            }
        }
        Workload::Manifest(manifest) => WorkloadView {
            cluster: manifest.cluster.value.clone(),
            namespace: manifest.namespace.as_ref().map(|namespace| namespace.value.clone()),
            what: match &manifest.selector {
                Some(selector) => format!("{} ({})", manifest.file.display(), selector.value),
                None => manifest.file.display().to_string(),
            },
            pods: None,
            sidecar: true,
            stubs_in: Vec::new(),
        },
    }
}

fn step(step: &PlannedStep, ranges: &Ranges) -> StepView {
    let action = match &step.action {
        Action::Call(call) => ActionView::Call(Box::new(self::call(call, ranges))),
        Action::Wait(wait) => ActionView::WaitFor {
            cluster: wait.cluster.clone(),
            object: wait.object.label(),
            until: wait.until.to_string(),
            timeout: wait.timeout,
        },
        Action::Change(planned) => match &planned.change {
            Change::Apply { clusters, file, manifests } => ActionView::Apply {
                cluster: clusters.join(", "),
                file: file.clone(),
                objects: manifests.iter().map(Manifest::label).collect(),
            },
            Change::Delete { clusters, manifests } => ActionView::Delete {
                cluster: clusters.join(", "),
                objects: manifests.iter().map(Manifest::label).collect(),
            },
            Change::Restart { cluster, namespace, pods } => ActionView::Restart {
                cluster: cluster.clone(),
                what: match pods {
                    Restarted::Deployment(name) => format!("Deployment {namespace}/{name}"),
                    Restarted::Pods(selector) => format!("pods {selector} of {namespace}"),
                },
            },
            Change::Scale { service, version, cluster, replicas, .. } => ActionView::Scale {
                service: service.clone(),
                version: version.clone(),
                cluster: cluster.clone(),
                replicas: *replicas,
            },
            Change::Fault { name, cluster } => ActionView::Fault { name: name.clone(), cluster: cluster.clone() },
            Change::Clear { name, cluster } => ActionView::Clear { name: name.clone(), cluster: cluster.clone() },
        },
    };
    StepView { line: step.place.line, action }
}

fn call(planned: &PlannedCall, ranges: &Ranges) -> CallView {
    let call = &planned.call;
    CallView {
        from: call.from.to_string(),
        to: call.to.value.clone(),
        headers: call.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        options: options(call),
        calls: planned.calls,
        new_connections: call.new_connections || call.protocol() != Protocol::Http,
        timeout: call.timeout(),
        detect: call.detect(),
        power: planned.power,
        negative_control: planned.negative_control,
        expect: call.expect.in_words(ranges),
    }
}

/// What is special about the requests of a call, besides their headers.
fn options(call: &Call) -> Vec<String> {
    let method = call.method.as_ref().map(|method| format!("with the method {}", method.word()));
    let body = call.body.as_ref().map(|body| match body.chars().count() {
        1 => "with a body of 1 character".to_owned(),
        n => format!("with a body of {n} characters"),
    });
    let token = call.token.as_ref().map(|token| {
        let claims = token.claims.iter().map(|(name, value)| format!(", {name}: {value}")).collect::<String>();
        let expired = if token.expired { "an expired" } else { "a" };
        format!("with {expired} token of the issuer {}{claims}", token.issuer.value)
    });
    let resolve = call.resolve.as_ref().map(|address| format!("to the address {}", address.value));
    let warm_up = call.warm_up.as_ref().map(|calls| format!("after {} calls that are not judged", calls.value));
    let within = call
        .within
        .as_ref()
        .map(|within| format!("repeated until it holds twice in a row, for {} at most", within.value));
    let http2 = call.http2.as_ref().filter(|http2| http2.value).map(|_| "over HTTP/2".to_owned());
    let first = call.server_first.as_ref().filter(|first| first.value).map(|_| "the server speaks first".to_owned());
    [http2, first, method, token, body, resolve, warm_up, within].into_iter().flatten().collect()
}
