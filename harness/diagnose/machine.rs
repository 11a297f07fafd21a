//! Machines outside Kubernetes: is each registered in the cluster that it joins, and healthy?

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::facts::{Facts, label, networking};
use super::rung::{Answer, Broken, Check, Checked, within};
use super::scene::Scene;
use crate::observe::entries::{self, RegisteredMachine};
use crate::observe::pods::is_ending;
use crate::workload::PodInfo;

/// Checks the caller, if it is a machine, and all machines behind the service.
pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let Some(topology) = scene.question.topology else { return Checked::skipped("no topology says what is a machine") };
    let (mut parts, mut command) = (Vec::new(), None);
    let behind = scene.servers();
    for facts in &scene.facts {
        let Some(joined) = topology.joined_by(facts.name()).and_then(|spec| scene.named(&spec.name)) else { continue };
        let servers = behind.iter().filter(|s| s.facts.name() == facts.name()).map(|s| s.pod);
        let caller = scene.caller_pod().filter(|_| scene.home().name() == facts.name());
        let pods: Vec<&Pod> = servers.chain(caller).filter(|pod| !is_ending(pod)).collect();
        if pods.is_empty() {
            continue;
        }
        let namespace = pods[0].namespace().unwrap_or_default();
        command.get_or_insert_with(|| {
            scene.kubectl(&joined.cluster, &format!("-n {namespace} get workloadgroups,workloadentries"))
        });
        let listed = tokio::join!(groups(joined, &namespace), entries_of(joined, &namespace));
        match listed {
            (Ok(groups), Ok(entries)) => {
                parts.extend(pods.iter().map(|pod| registered(scene, joined, &groups, &entries, pod)));
            }
            (Err(why), _) | (_, Err(why)) => parts.push(Check::Unseen(why)),
        }
    }
    if parts.is_empty() {
        return Checked::skipped("neither the caller nor a pod behind the service is a machine");
    }
    Checked { expected: "every machine is registered and healthy".into(), command, parts }
}

async fn groups(joined: &Facts, namespace: &str) -> Answer<Vec<String>> {
    let groups = networking(&joined.cluster, "WorkloadGroup", "workloadgroups", Some(namespace)).await?;
    Ok(groups.iter().map(ResourceExt::name_any).collect())
}

async fn entries_of(joined: &Facts, namespace: &str) -> Answer<Vec<RegisteredMachine>> {
    within(format!("WorkloadEntries of {}", joined.name()), entries::of_namespace(&joined.cluster, namespace)).await
}

fn registered(scene: &Scene<'_>, joined: &Facts, groups: &[String], entries: &[RegisteredMachine], pod: &Pod) -> Check {
    let info = PodInfo::of(pod);
    let (cluster, namespace) = (joined.name(), &info.namespace);
    let group = label(pod, crate::workload::WORKLOAD_LABEL).unwrap_or_default();
    let get = |what: &str| scene.kubectl(&joined.cluster, &format!("-n {namespace} get {what}"));
    let broken = |expected: String, observed: String, command: String, fix: &str| {
        Check::from(Broken { expected, observed, command, fix: fix.to_owned() })
    };
    if !groups.iter().any(|known| known == group) {
        return broken(
            format!("WorkloadGroup {namespace}/{group} in {cluster}, which machine {} joins", info.name),
            match groups {
                [] => "there is no WorkloadGroup".to_owned(),
                groups => format!("there are {}", groups.join(", ")),
            },
            get("workloadgroups"),
            "create it: a machine without a group cannot register (`cannot find WorkloadGroup` in istiod's log)",
        );
    }
    let Some(entry) = entries.iter().find(|entry| entry.address.is_some() && entry.address == info.ip) else {
        let address = info.ip.map_or_else(|| "its address".to_owned(), |ip| ip.to_string());
        return broken(
            format!(
                "a WorkloadEntry with {address} in {cluster}, which istiod creates when machine {} connects",
                info.name
            ),
            format!("none of {} WorkloadEntries in {namespace} has it", entries.len()),
            get("workloadentries"),
            "start the agent on the machine, and read its log: can it reach istiod, is its token valid?",
        );
    };
    match (entry.left, entry.healthy) {
        (true, _) => broken(
            format!("machine {} is connected to istiod", info.name),
            format!("WorkloadEntry {} says that it has disconnected", entry.name),
            get(&format!("workloadentry {} -o yaml", entry.name)),
            "start the agent on the machine",
        ),
        (false, Some(false)) => broken(
            format!("machine {} is healthy by the probe of WorkloadGroup {group}", info.name),
            format!("WorkloadEntry {} has the condition Healthy=False: istiod does not send it to proxies", entry.name),
            get(&format!("workloadentry {} -o yaml", entry.name)),
            "start the application on the machine, or correct the group's probe",
        ),
        _ => Check::Holds(format!("{} is registered in {cluster}", info.name)),
    }
}
