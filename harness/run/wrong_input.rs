//! What API servers and webhooks have against the objects of scenarios, asked before anything is changed.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};

use super::environment::Environment;
use super::kit::Kit;
use super::{Chosen, addresses};
use crate::apply::{self, DryRun, Refusal, Written};
use crate::istio;
use crate::provider::Cluster;
use crate::scenario::input;
use crate::source::Problem;
use crate::topology::IstioSettings;
use crate::ui;
use crate::wait::{self, Poll};

/// What is wrong with a scenario's settings of Istio, by the release that is to be installed. Asked before any cluster is created.
pub(super) async fn settings(kit: &Kit, chosen: &Chosen) -> Vec<Problem> {
    let (loaded, mesh) = (&chosen.plan.loaded, &chosen.plan.mesh);
    let written = &loaded.scenario.mesh;
    if mesh.istio == IstioSettings::default() || kit.finds_mesh() {
        return Vec::new();
    }
    let Ok(inputs) = kit.mesh_inputs("settings") else { return Vec::new() };
    if inputs.stock_envoy {
        let problems = written.asked().not_stock(&loaded.source, |named| loaded.file(named));
        if !problems.is_empty() {
            return problems;
        }
    }
    let Err(error) = istio::check_settings(&chosen.plan.topology, mesh, &inputs).await else { return Vec::new() };
    let words = error.to_string();
    let words = words.split_once("Error: ").map_or(words.as_str(), |(_, words)| words).trim();
    let what = format!("istioctl refuses the settings of Istio: {words}");
    let asked = [&written.config, &written.values].into_iter().flatten().next();
    let problem = match asked {
        Some(asked) => Problem::with(&loaded.source, asked, what),
        None => Problem::about(loaded.kind_configs().join(&chosen.plan.topology.name).join("topology.yaml"), what),
    };
    vec![problem.help("nothing was created: correct `mesh` and run it again")]
}

/// What is wrong with the objects of these scenarios, which run on this environment. A cluster that does not answer is no
/// mistake of theirs: it shows when they run.
pub(super) async fn problems(environment: &Environment, chosen: &[Chosen]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for one in chosen {
        let Ok(batches) = input::batches(&one.plan.loaded, &one.plan.topology) else { continue };
        let all = || batches.iter().flat_map(|batch| batch.objects.iter().map(move |object| (&batch.cluster, object)));
        let mut brought =
            Brought { namespaces: input::namespaces(&one.plan.loaded, &one.plan.topology), ..Brought::default() };
        for (cluster, Written { manifest, .. }) in all() {
            brought.names.insert(manifest.name().to_owned());
            if manifest.kind() == "Namespace" {
                brought.namespaces.insert((cluster.clone(), manifest.name().to_owned()));
            }
        }
        let istio = |object: &Written| object.manifest.api_version().contains(".istio.io/");
        let of_istio: BTreeSet<&str> =
            all().filter(|(_, object)| istio(object)).map(|(cluster, _)| cluster.as_str()).collect();
        for spec in one.plan.topology.istiods().filter(|spec| of_istio.contains(spec.name.as_str())) {
            if let Some(cluster) = environment.clusters.iter().find(|c| c.name == spec.name) {
                webhook_in_force(cluster).await;
            }
        }
        for (cluster, object) in all() {
            if let Some(cluster) = environment.clusters.iter().find(|c| c.name == *cluster) {
                problems.extend(brought.ask(cluster, object).await);
            }
        }
    }
    problems
}

/// How long a new istiod may take to put its validation webhook in force: about two seconds on two idle cores.
const WEBHOOK_LIMIT: Duration = Duration::from_secs(20);

/// Waits until istiod validates configuration. It accepts everything until its webhooks work, and sets `failurePolicy: Fail` then
/// (Istio, `pkg/webhooks/validation/controller`). A cluster without such webhooks has nothing to wait for.
async fn webhook_in_force(cluster: &Cluster) {
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let webhooks = &webhooks;
    let what = format!("istiod's validation webhook in {}", cluster.name);
    let check = || async move {
        let listed = match webhooks.list(&Default::default()).await {
            Ok(listed) => listed.items,
            Err(error) => return Poll::Failed(error),
        };
        let of_istio = listed.into_iter().filter(|one| one.name_any().starts_with("istio"));
        let hooks: Vec<_> = of_istio.flat_map(|one| one.webhooks.unwrap_or_default()).collect();
        let in_force = hooks.iter().all(|hook| hook.failure_policy.as_deref() == Some("Fail"));
        if in_force { Poll::Ready(()) } else { Poll::NotYet("failurePolicy: Fail".to_owned()) }
    };
    if let Err(error) = wait::until(what, WEBHOOK_LIMIT, Duration::from_millis(200), check).await {
        ui::say(format!("warning: {error}: what istiod would refuse shows when the scenario runs"));
    }
}

/// What the scenario brings into clusters, sooner or later.
#[derive(Default)]
struct Brought {
    /// Cluster and namespace.
    namespaces: BTreeSet<(String, String)>,
    names: BTreeSet<String>,
}

impl Brought {
    async fn ask(&self, cluster: &Cluster, object: &Written) -> Vec<Problem> {
        let manifest = &object.manifest;
        let namespace = manifest.namespace().unwrap_or("default");
        let there = Api::<Namespace>::all(cluster.client.clone()).get_opt(namespace).await.ok().flatten().is_some();
        if !there && !self.namespaces.contains(&(cluster.name.clone(), namespace.to_owned())) {
            let what = format!("{} has no namespace `{namespace}`", cluster.name);
            return vec![object.problem("metadata.namespace", what).help("add the Namespace to the file")];
        }
        // what one namespace accepts, others do
        let instead = (!there).then_some("default");
        match apply::dry_run(cluster, &addresses::exemplary(manifest), instead).await {
            Ok(DryRun::Accepted) => Vec::new(),
            // defined by the scenario, or refused where the scenario was read
            Ok(DryRun::UnknownKind) => self.unknown_kind(cluster, object).into_iter().collect(),
            Ok(DryRun::Refused(all)) => {
                let real = all.into_iter().filter(|refusal| !self.will_be_there(refusal));
                real.map(|refusal| refused(cluster, object, &refusal)).collect()
            }
            Err(error) => {
                ui::say(format!("warning: {error}"));
                Vec::new()
            }
        }
    }

    fn unknown_kind(&self, cluster: &Cluster, object: &Written) -> Option<Problem> {
        let (version, kind) = (object.manifest.api_version(), object.manifest.kind());
        let group = version.split_once('/').map_or("", |(group, _)| group);
        // the name of a definition is `plural.group`
        if self.names.iter().any(|name| name.split_once('.').is_some_and(|(_, of)| of == group)) {
            return None;
        }
        let what = format!("{} serves no kind `{kind}` in `{version}`", cluster.name);
        let help = "`kubectl api-resources` lists kinds and versions; `eval \"$(meshproof env)\"` points kubectl at a kept environment";
        Some(object.problem("apiVersion", what).help(help))
    }

    /// Whether it misses another object that the scenario brings.
    fn will_be_there(&self, refusal: &Refusal) -> bool {
        refusal.message.contains("not found") && self.names.iter().any(|name| refusal.message.contains(name.as_str()))
    }
}

fn refused(cluster: &Cluster, object: &Written, refusal: &Refusal) -> Problem {
    let what = format!("{} refuses {}: {}", cluster.name, object.manifest.label(), refusal.message);
    let problem = match &refusal.field {
        Some(field) => object.problem(field, what),
        None => {
            let words =
                refusal.message.split_once("denied the request: ").map_or(&*refusal.message, |(_, words)| words);
            object.problem_by_words(words, what)
        }
    };
    problem.label("refused in a dry run").help("nothing was changed: correct the file and run it again")
}
