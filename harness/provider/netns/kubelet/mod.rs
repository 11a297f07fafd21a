//! The kubelet: runs pods as processes of this machine, without a kubelet or a container engine.
//!
//! One per node, inside the environment's supervisor. It registers its node, and runs each pod that is
//! bound to it: a network namespace with an address of the node's pod CIDR, and per container a process
//! tree with its own mounts, process IDs and host name. `docs/netns-pods.md` lists the part of the pod spec
//! that it understands; the rest is refused by the field's name.
//!
//! | file | job |
//! |---|---|
//! | `supported` | which fields of a pod are understood (pure) |
//! | `images` | which programs an image contains |
//! | `facts`, `quantity`, `environment`, `files`, `identity`, `status` | the pod spec's rules (pure) |
//! | `objects`, `atomic`, `volumes` | ConfigMaps, Secrets and tokens become folders |
//! | `inside` | the first process of a container: builds what it sees, then becomes its program |
//! | `container`, `logs`, `state`, `probe`, `dial` | a container's process, from outside |
//! | `supervise`, `pod`, `run` | the life of a container; of a pod; what its tasks share |
//! | `node`, `bind`, `addresses` | the node's object; pods get nodes; pods get addresses |
//!
//! **Never**: mount anything in the host's mount namespace; run a pod without all that its spec asks for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use thiserror::Error;
use tokio::sync::{broadcast, watch};

use crate::journal::EnvDir;

pub mod addresses;
pub mod api;
pub mod atomic;
pub mod bind;
pub mod console;
pub mod container;
pub mod dial;
pub mod environment;
pub mod facts;
pub mod files;
pub mod identity;
pub mod images;
pub mod inside;
pub mod logs;
pub mod node;
pub mod objects;
pub mod pod;
pub mod pods;
pub mod probe;
pub mod pull;
pub mod quantity;
pub mod run;
pub mod state;
pub mod status;
pub mod supervise;
pub mod supported;
pub mod terminal;
pub mod usage;
pub mod volumes;

pub use images::{Image, ImageFile, ImageMap};
pub use pull::Images;
pub use volumes::Dns;

/// A node, and what its pods are made of.
#[derive(Clone)]
pub struct KubeletConfig {
    /// The node's name in Kubernetes.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Its address: where probes come from.
    pub address: Ipv4Addr,
    /// The part of the pod CIDR that it hands out.
    pub pods: Ipv4Net,
    /// It is a control plane.
    pub control_plane: bool,
    /// Labels of its kind config.
    pub labels: BTreeMap<String, String>,
    /// Only pods that tolerate control planes may run here (a control plane that has workers beside it).
    pub tainted: bool,
    /// It binds pods to nodes: one kubelet per cluster does, the first control plane's.
    pub binds: bool,
    /// The environment: its folder holds logs and state, its journal the namespaces.
    pub env: Arc<EnvDir>,
    /// The cluster, with administrator's rights.
    pub client: Client,
    /// The images that pods may name.
    pub images: Arc<Images>,
    /// The cluster's name service.
    pub dns: Dns,
    /// What its API serves with.
    pub serving: api::Serving,
    /// The harness's own program, which becomes each container (`meshproof __container`).
    pub meshproof: PathBuf,
}

/// What all pods of a node share.
pub struct KubeletNode {
    /// How it was configured.
    pub config: KubeletConfig,
    /// What it offers.
    pub allocatable: BTreeMap<String, String>,
    /// Free and taken addresses.
    pub addresses: addresses::Addresses,
    /// Its pods.
    pub pods: pods::Pods,
    /// Writes events.
    pub recorder: Recorder,
    /// Namespaces in which a ConfigMap or a Secret has changed.
    pub changes: broadcast::Sender<String>,
}

/// Why a node cannot run.
#[derive(Debug, Error)]
pub enum KubeletError {
    /// The API server does not take the node.
    #[error("node {node} could not be registered: {source} (hint: see the API server's log)")]
    Register {
        /// The node.
        node: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// Its API cannot be served.
    #[error("node {node}: the kubelet's API cannot be served: {source}")]
    Api {
        /// The node.
        node: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The stream of the node's pods ended, which it never does by itself.
    #[error("node {node}: the watch of its pods ended")]
    Deaf {
        /// The node.
        node: String,
    },
}

/// Runs a node until it is dropped. Dropped, its containers are killed; their namespaces are in the journal.
///
/// # Errors
/// [`KubeletError`].
pub async fn run(config: KubeletConfig) -> Result<(), KubeletError> {
    let allocatable = node::allocatable();
    let register = node::register(&config, &allocatable).await;
    register.map_err(|e| KubeletError::Register { node: config.name.clone(), source: Box::new(e) })?;
    let reporter = Reporter { controller: "meshproof".into(), instance: Some(config.name.clone()) };
    let node = Arc::new(KubeletNode {
        addresses: addresses::Addresses::new(config.pods),
        pods: pods::Pods::default(),
        recorder: Recorder::new(config.client.clone(), reporter),
        changes: broadcast::Sender::new(256),
        allocatable,
        config,
    });
    let config = &node.config;
    let binding =
        async { if config.binds { bind::run(config.client.clone()).await } else { std::future::pending().await } };
    let served = tokio::select! {
        served = api::serve(node.clone()) => served,
        () = node::heartbeat(config) => Ok(()),
        () = binding => Ok(()),
        () = changes::<ConfigMap>(&node) => Ok(()),
        () = changes::<Secret>(&node) => Ok(()),
        () = pods(&node) => Ok(()),
    };
    Err(match served {
        Ok(()) => KubeletError::Deaf { node: config.name.clone() },
        Err(source) => KubeletError::Api { node: config.name.clone(), source },
    })
}

/// Tells the pods when an object that they may have mounted changes.
async fn changes<K>(node: &KubeletNode)
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let stream = watcher(Api::<PartialObjectMeta<K>>::all(node.config.client.clone()), watcher::Config::default())
        .default_backoff();
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => {
                // Nobody listens when no pod runs.
                let _ = node.changes.send(object.metadata.namespace.unwrap_or_default());
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, node = node.config.name, "a watch was interrupted"),
        }
    }
}

/// The tasks of a node's pods; dropped, they end at once.
#[derive(Default)]
struct Tasks {
    by_uid: HashMap<String, watch::Sender<pod::Update>>,
    running: tokio::task::JoinSet<String>,
}

async fn pods(node: &Arc<KubeletNode>) {
    let own = watcher::Config::default().fields(&format!("spec.nodeName={}", node.config.name));
    let stream = watcher(Api::<Pod>::all(node.config.client.clone()), own).default_backoff();
    pin_mut!(stream);
    let mut tasks = Tasks::default();
    let mut listed: HashSet<String> = HashSet::new();
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            Some(ended) = tasks.running.join_next() => {
                match ended {
                    Ok(uid) => {
                        node.pods.remove(&uid);
                        tasks.by_uid.remove(&uid);
                    }
                    Err(error) => tracing::error!(%error, "a pod's task failed"),
                }
                continue;
            }
        };
        match event {
            None => return,
            Some(Err(error)) => tracing::debug!(%error, node = node.config.name, "the watch of pods was interrupted"),
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitApply(pod))) => {
                listed.insert(uid(&pod));
                tasks.update(node, pod);
            }
            Some(Ok(watcher::Event::InitDone)) => {
                let gone = tasks.by_uid.iter().filter(|(uid, _)| !listed.contains(*uid));
                gone.for_each(|(_, task)| drop(task.send(pod::Update::Gone)));
            }
            Some(Ok(watcher::Event::Apply(pod))) => tasks.update(node, pod),
            Some(Ok(watcher::Event::Delete(pod))) => {
                if let Some(task) = tasks.by_uid.get(&uid(&pod)) {
                    let _ = task.send(pod::Update::Gone);
                }
            }
        }
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

impl Tasks {
    fn update(&mut self, node: &Arc<KubeletNode>, pod: Pod) {
        let uid = uid(&pod);
        if let Some(task) = self.by_uid.get(&uid) {
            let _ = task.send(pod::Update::of(pod));
            return;
        }
        let (sender, receiver) = watch::channel(pod::Update::of(pod.clone()));
        self.by_uid.insert(uid.clone(), sender);
        let run = Arc::new(run::Run::new(node.clone(), pod));
        node.pods.insert(&uid, run.clone());
        self.running.spawn(async move {
            pod::run(run, receiver).await;
            uid
        });
    }
}
