//! What the tasks of one pod share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest as Request, TokenRequestSpec};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, PodSpec, Service, ServiceAccount};
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource};
use tokio::sync::watch;

use super::console::Console;
use super::facts::Facts;
use super::files::{self, TokenRequest};
use super::objects::{self, Named, Objects};
use super::status::{ContainerView, Phase, View};
use super::{KubeletNode, environment, state, volumes};
use crate::wait;

/// A pod, its folders, and what is known of it.
pub struct Run {
    /// The node that it runs on.
    pub node: Arc<KubeletNode>,
    /// The pod as it was first seen; labels and annotations are newer in [`Run::facts`].
    pub pod: Pod,
    /// Its folder while it runs.
    pub folder: PathBuf,
    /// The folder of its logs.
    pub logs: PathBuf,
    /// Its network namespace.
    pub netns: String,
    /// Its state.
    pub view: watch::Sender<View>,
    /// Variables for services, once they were read.
    pub services: OnceLock<BTreeMap<String, String>>,
    consoles: Mutex<BTreeMap<String, Console>>,
    latest: Mutex<Pod>,
    tokens: Mutex<BTreeMap<TokenRequest, (String, Timestamp)>>,
}

impl Run {
    /// A pod that was just bound.
    pub fn new(node: Arc<KubeletNode>, pod: Pod) -> Self {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let name = state::pod_folder(
            pod.metadata.namespace.as_deref().unwrap_or("default"),
            pod.metadata.name.as_deref().unwrap_or_default(),
            &uid,
        );
        let config = &node.config;
        Self {
            folder: state::pods_folder(config.env.path(), &config.name).join(&name),
            logs: state::logs_folder(config.env.path(), &config.name).join(&name),
            netns: format!("{}-{}", config.netns, uid.split('-').next().unwrap_or_default()),
            view: watch::Sender::new(View::new(pod.spec.as_ref().unwrap_or(&PodSpec::default()), Timestamp::now())),
            services: OnceLock::new(),
            consoles: Mutex::default(),
            latest: Mutex::new(pod.clone()),
            tokens: Mutex::default(),
            node,
            pod,
        }
    }

    /// The log of one of its containers.
    pub fn log_file(&self, container: &str) -> PathBuf {
        self.logs.join(format!("{container}.log"))
    }

    /// What is written down of one of its containers while it runs.
    pub fn state_file(&self, container: &str) -> PathBuf {
        self.folder.join(format!("{container}.json"))
    }

    /// How to attach to one of its containers; `None`: it does not run.
    pub fn console(&self, container: &str) -> Option<Console> {
        self.consoles.lock().unwrap_or_else(PoisonError::into_inner).get(container).cloned()
    }

    /// A container runs from now on; `None`: it does not any more.
    pub fn set_console(&self, container: &str, console: Option<Console>) {
        let mut consoles = self.consoles.lock().unwrap_or_else(PoisonError::into_inner);
        match console {
            Some(console) => drop(consoles.insert(container.to_owned(), console)),
            None => drop(consoles.remove(container)),
        }
    }

    /// Whether any of its containers runs.
    pub fn runs(&self) -> bool {
        self.view.borrow().containers().any(|c| matches!(c.phase, Phase::Running { .. }))
    }

    /// What was asked for.
    pub fn spec(&self) -> PodSpec {
        self.pod.spec.clone().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// The API of pods in its namespace.
    pub fn api(&self) -> Api<Pod> {
        Api::namespaced(self.node.config.client.clone(), self.namespace())
    }

    /// The newest version of the pod.
    pub fn latest(&self) -> Pod {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its ephemeral containers, as the newest version of the pod has them.
    pub fn ephemeral(&self) -> Vec<EphemeralContainer> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default()
    }

    /// Takes note of a newer version of the pod.
    pub fn update(&self, pod: Pod) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = pod;
    }

    /// What the pod may ask about itself; `None`: it has no address yet.
    pub fn facts(&self) -> Option<Facts> {
        Some(Facts {
            pod: self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            pod_ip: self.view.borrow().ip?,
            host_ip: self.node.config.address.into(),
            allocatable: self.node.allocatable.clone(),
        })
    }

    /// Changes what is known of one container.
    pub fn note(&self, place: ContainerIndex, change: impl FnOnce(&mut ContainerView)) {
        self.view.send_if_modified(|view| {
            let container = match place {
                ContainerIndex::Init(index) => view.init.get_mut(index),
                ContainerIndex::Main(index) => view.main.get_mut(index),
                ContainerIndex::Ephemeral(index) => view.ephemeral.get_mut(index),
            };
            let Some(container) = container else { return false };
            let before = container.clone();
            change(container);
            *container != before
        });
    }

    /// Tells the API server's readers what happened.
    pub async fn event(&self, type_: EventType, reason: &str, note: impl Into<String>) {
        let note: String = note.into();
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(note.chars().take(1000).collect()),
            action: reason.into(),
            secondary: None,
        };
        if let Err(error) = self.node.recorder.publish(&event, &self.pod.object_ref(&())).await {
            tracing::debug!(%error, reason, "an event could not be written");
        }
    }

    /// Makes or renews the pod's volumes. Answers when its tokens must be renewed.
    ///
    /// # Errors
    /// What is missing.
    pub async fn write_volumes(&self) -> Result<Option<Timestamp>, String> {
        let facts = self.facts().ok_or("the pod has no address")?;
        let spec = self.spec();
        let named = objects::of_volumes(&spec);
        let objects = self.read(&named).await?;
        let tokens = self.tokens(&spec).await?;
        volumes::write(&self.folder.join("volumes"), &facts, &objects, &tokens)?;
        let renewals = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(renewals.values().map(|(_, renew)| *renew).min())
    }

    /// Reads ConfigMaps and Secrets of the pod's namespace.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn read(&self, named: &BTreeSet<Named>) -> Result<Objects, String> {
        Objects::read(&self.node.config.client, self.namespace(), named).await.map_err(|e| e.to_string())
    }

    /// Reads the services that become variables, once.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn read_services(&self) -> Result<(), String> {
        let api = |namespace: &str| Api::<Service>::namespaced(self.node.config.client.clone(), namespace);
        let links = self.spec().enable_service_links != Some(false);
        let mut all = Vec::from_iter(api("default").get_opt("kubernetes").await.map_err(|e| e.to_string())?);
        if links {
            all.extend(api(self.namespace()).list(&Default::default()).await.map_err(|e| e.to_string())?);
        }
        let _ = self.services.set(environment::of_services(self.namespace(), links, &all));
        Ok(())
    }

    /// The tokens that the volumes ask for; old ones are requested again.
    async fn tokens(&self, spec: &PodSpec) -> Result<BTreeMap<TokenRequest, String>, String> {
        let mut all = BTreeMap::new();
        for wanted in files::tokens(spec) {
            let known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&wanted).cloned();
            let fresh = known.filter(|(_, renew)| *renew > Timestamp::now());
            let token = match fresh {
                Some((token, _)) => token,
                None => {
                    let (token, renew) = self.request_token(&wanted).await?;
                    let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    tokens.insert(wanted.clone(), (token.clone(), renew));
                    token
                }
            };
            all.insert(wanted, token);
        }
        Ok(all)
    }

    /// Asks for a token that is good only while this pod exists. Answers it, and when to ask again.
    async fn request_token(&self, (audience, seconds): &TokenRequest) -> Result<(String, Timestamp), String> {
        let account = self.spec().service_account_name.unwrap_or_else(|| "default".into());
        let failed = |why: String| format!("token of service account {account:?}: {why}");
        let request = Request {
            spec: Some(TokenRequestSpec {
                audiences: Some(audience.clone().into_iter().collect()),
                expiration_seconds: Some(*seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: self.pod.metadata.name.clone(),
                    uid: self.pod.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..Request::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.node.config.client.clone(), self.namespace());
        let answer = api
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .map_err(|e| failed(e.to_string()))?;
        let answer = answer.status.and_then(|s| Some((s.token?, s.expiration_timestamp?.0)));
        let (token, expires) = answer.ok_or_else(|| failed("the API server returned none".into()))?;
        // As the kubelet: renewed when a fifth of its life is left, or after a day.
        let now = Timestamp::now();
        let life = expires.duration_since(now).unsigned_abs();
        Ok((token, now + (life * 4 / 5).min(Duration::from_secs(86_400))))
    }

    /// Tries until it works: again when a ConfigMap or Secret of the namespace changes, and every second.
    /// Tells each new failure as an event.
    pub async fn insist<T, F: Future<Output = Result<T, String>>>(
        &self,
        reason: &str,
        mut attempt: impl FnMut() -> F,
    ) -> T {
        let mut changes = self.node.changes.subscribe();
        let mut logged = String::new();
        loop {
            let why = match attempt().await {
                Ok(value) => return value,
                Err(why) => why,
            };
            if why != logged {
                self.event(EventType::Warning, reason, why.clone()).await;
                logged = why;
            }
            self.changed(&mut changes, Duration::from_secs(1)).await;
        }
    }

    /// Waits for a change of a ConfigMap or Secret in the pod's namespace, at most for `limit`.
    pub async fn changed(&self, changes: &mut tokio::sync::broadcast::Receiver<String>, limit: Duration) {
        let ours = async {
            while let Ok(namespace) = changes.recv().await {
                if namespace == self.namespace() {
                    return;
                }
            }
        };
        tokio::select! {
            () = ours => {}
            () = wait::pass(limit) => {}
        }
    }
}

/// Which container of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerIndex {
    /// An init container or sidecar, by its index.
    Init(usize),
    /// A main container, by its index.
    Main(usize),
    /// An ephemeral container, by its index.
    Ephemeral(usize),
}
