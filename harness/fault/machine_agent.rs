//! Machines outside Kubernetes that istiod loses: their agent does not run, is refused, or reports that the application fails.

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::ResourceExt;
use kube::api::Patch;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::FaultError;
use super::machine::{BASE, groups, left, registered, settled};
use super::nodes::{Rule, can_be_entered, pod_rules};
use super::record::{Fault, act, plan};
use super::world::At;
use super::{machine, objects, workloads};
use crate::istio::machine::{TOKEN, files_secret};
use crate::workload;

pub(super) const DOWN: Fault = Fault {
    name: "machine-agent-down",
    breaks: "The agents of this cluster's machines are killed and do not start again: istiod removes their WorkloadEntries.",
    plan: |at| plan(at, agents),
    inject: |at, agents| act(at, agents, |at, agents| stop(at, agents)),
    clear: |at, agents| act(at, agents, |at, agents| start(at, agents)),
    ..BASE
};

pub(super) const TOKEN_EXPIRED: Fault = Fault {
    name: "machine-token-expired",
    breaks: "The tokens of this cluster's machines are refused, as expired ones are, and the machines start again: none can register.",
    plan: |at| plan(at, |at| async move { Ok(groups(at).await?.iter().map(Group::of).collect::<Vec<_>>()) }),
    inject: |at, groups| act(at, groups, |at, groups| refuse(at, groups)),
    clear: |at, groups| act(at, groups, |at, groups| accept(at, groups)),
    ..BASE
};

pub(super) const UNHEALTHY: Fault = Fault {
    name: "machine-unhealthy",
    breaks: "The applications of this cluster's machines do not respond: the health checks of their WorkloadGroups fail, and istiod \
             takes them out.",
    applies: |world, cluster| {
        can_be_entered(cluster)?;
        machine::joins(world, cluster).map(drop)
    },
    plan: |at| plan(at, probed),
    inject: |at, groups| act(at, groups, |at, groups| silence(at, groups)),
    clear: |at, groups| act(at, groups, |at, groups| respond(at, groups)),
    ..BASE
};

const CONTAINER: &str = "istio-proxy";
/// A program of the agent's image that runs for long and does nothing. (`pilot-agent wait` polls a proxy that does not exist.)
const IDLE: [&str; 3] = ["wait", "--timeoutSeconds", "100000000"];

/// The agent of a machine, as its Deployment runs it.
#[derive(Serialize, Deserialize)]
struct Agent {
    namespace: String,
    name: String,
    args: Vec<String>,
    strategy: DeploymentStrategy,
}

impl Agent {
    fn of(namespace: &str, deployment: &Deployment) -> Option<Self> {
        let containers = &deployment.spec.template.spec.as_ref()?.containers;
        let agent = containers.iter().find(|c| c.name == CONTAINER)?;
        let args = agent.args.clone().unwrap_or_default();
        let strategy = deployment.spec.strategy.clone().unwrap_or_default();
        Some(Self { namespace: namespace.to_owned(), name: deployment.name_any(), args, strategy })
    }

    async fn run(&self, at: At<'_>, args: Value, mut strategy: Value) -> Result<(), FaultError> {
        let container = json!({ "name": CONTAINER, "args": args });
        strategy["$patch"] = json!("replace");
        let template = json!({ "spec": { "containers": [container] } });
        let patch = json!({ "spec": { "strategy": strategy, "template": template } });
        objects::of::<Deployment>(at.cluster, &self.namespace).patch(&self.name, Patch::Strategic(patch)).await
    }
}

async fn agents(at: At<'_>) -> Result<Vec<Agent>, FaultError> {
    let mut found = Vec::new();
    for namespace in at.world.namespaces {
        let deployments = objects::of::<Deployment>(at.cluster, namespace).list().await?;
        found.extend(deployments.iter().filter_map(|d| Agent::of(namespace, d)));
    }
    at.some(found, "no machine is there")
}

fn is_idle(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let idle = |c: &Container| c.args.as_ref().is_some_and(|args| args.iter().eq(IDLE.iter()));
    containers.filter(|c| c.name == CONTAINER).any(idle)
}

async fn stop(at: At<'_>, agents: Vec<Agent>) -> Result<(), FaultError> {
    for agent in &agents {
        // The old pods must end first: the new ones do not become ready without a proxy.
        agent.run(at, json!(IDLE), json!({ "type": "Recreate" })).await?;
    }
    left(at).await
}

async fn start(at: At<'_>, agents: Vec<Agent>) -> Result<(), FaultError> {
    for agent in &agents {
        agent.run(at, json!(agent.args), json!(agent.strategy)).await?;
    }
    workloads::ready(at.world, at.cluster, |pod| !is_idle(pod), " with their agents").await?;
    registered(at).await
}

/// A WorkloadGroup of this cluster's machines.
#[derive(Serialize, Deserialize)]
struct Group {
    namespace: String,
    name: String,
    /// The port that its health check connects to.
    port: Option<u64>,
}

impl Group {
    fn of(group: &Value) -> Self {
        let text = |key: &str| group["metadata"][key].as_str().unwrap_or_default().to_owned();
        let port = group["spec"]["probe"]["tcpSocket"]["port"].as_u64();
        Self { namespace: text("namespace"), name: text("name"), port }
    }

    fn files<'a>(&self, at: At<'a>) -> objects::Objects<Secret> {
        objects::of(at.cluster, &self.namespace)
    }
}

/// Holds the token while the fault is active: it must not leave the cluster.
const ORIGINAL: &str = "istio-token-before-fault";

async fn refuse(at: At<'_>, groups: Vec<Group>) -> Result<(), FaultError> {
    for group in &groups {
        let (files, name) = (group.files(at), files_secret(&group.name));
        let data = files.get(&name).await?.data.unwrap_or_default();
        if let (Some(token), false) = (data.get(TOKEN), data.contains_key(ORIGINAL)) {
            // Another signature: the API server refuses it in the same way as one that has expired.
            let signed = String::from_utf8_lossy(&token.0).into_owned();
            let refused =
                signed.rsplit_once('.').map_or(String::new(), |(claims, _)| format!("{claims}.{}", "A".repeat(342)));
            let data = json!({ TOKEN: ByteString(refused.into_bytes()), ORIGINAL: token });
            files.merge(&name, json!({ "data": data })).await?;
        }
    }
    workloads::end_all(at.world, at.cluster, workloads::is_meshed).await?;
    left(at).await
}

async fn accept(at: At<'_>, groups: Vec<Group>) -> Result<(), FaultError> {
    for group in &groups {
        let (files, name) = (group.files(at), files_secret(&group.name));
        let data = files.get(&name).await?.data.unwrap_or_default();
        if let Some(token) = data.get(ORIGINAL) {
            files.merge(&name, json!({ "data": { TOKEN: token, ORIGINAL: null } })).await?;
        }
    }
    workloads::end_all(at.world, at.cluster, workloads::is_meshed).await?;
    registered(at).await
}

async fn probed(at: At<'_>) -> Result<Vec<Group>, FaultError> {
    let found: Vec<Group> = groups(at).await?.iter().map(Group::of).filter(|group| group.port.is_some()).collect();
    at.some(found, "no WorkloadGroup has a health check of a TCP port")
}

/// What the agent and the proxy send to the application comes from the machine itself (the source is 127.0.0.6).
fn rules(group: &Group) -> Vec<Rule> {
    let drop = |port| Rule::new("filter", "INPUT", &format!("-i lo -p tcp --dport {port} -j DROP"));
    group.port.map(drop).into_iter().collect()
}

async fn silence(at: At<'_>, groups: Vec<Group>) -> Result<(), FaultError> {
    each(at, &groups, true).await?;
    settled(at, "every machine with a health check to be unhealthy", |entries| {
        let mut checked = entries.iter().filter(|e| groups.iter().any(|g| e.group.as_ref() == Some(&g.name)));
        checked.all(|e| e.healthy == Some(false))
    })
    .await?;
    at.world.endpoints_settle().await
}

async fn respond(at: At<'_>, groups: Vec<Group>) -> Result<(), FaultError> {
    each(at, &groups, false).await?;
    settled(at, "every machine to be healthy", |entries| entries.iter().all(|e| e.healthy == Some(true))).await?;
    at.world.endpoints_settle().await
}

/// Adds the rules of each group to its machines, or removes them.
async fn each(at: At<'_>, groups: &[Group], add: bool) -> Result<(), FaultError> {
    for group in groups {
        let selector = format!("{}={}", workload::WORKLOAD_LABEL, group.name);
        for pod in workload::pods(at.cluster, &group.namespace, &selector).await? {
            pod_rules(at.cluster, &pod, &rules(group), add).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_no_token() {
        let group = json!({
            "metadata": { "namespace": "app1", "name": "helloworld-v3" },
            "spec": { "probe": { "tcpSocket": { "port": 5000 } } },
        });
        let noted = serde_json::to_value(Group::of(&group)).unwrap();
        assert_eq!(noted, json!({ "namespace": "app1", "name": "helloworld-v3", "port": 5000 }));
    }

    #[test]
    fn an_agent_that_does_not_run_is_recognised() {
        let pod = |args: Value| -> Pod {
            let containers = json!([{ "name": "helloworld" }, { "name": CONTAINER, "args": args }]);
            serde_json::from_value(json!({ "spec": { "containers": containers } })).unwrap()
        };
        assert!(is_idle(&pod(json!(IDLE))));
        assert!(!is_idle(&pod(json!(["proxy", "sidecar"]))));
    }
}
