//! Clusters without a container engine: real Kubernetes processes in network namespaces.
//!
//! Per cluster a real etcd, kube-apiserver and kube-controller-manager, per node a real kube-proxy
//! and the node [`kubelet`], and CoreDNS beside the control plane: all plain processes. Per node and
//! per pod one network namespace, joined by a namespace that plays the network between the machines
//! (the fabric). Nothing of it shows in the host's own network: the API servers are reached
//! through forwarders on 127.0.0.1.
//!
//! | file | job |
//! |---|---|
//! | `layout` | which namespaces, addresses and routes an environment has (pure) |
//! | `namespace` | named network namespaces: create, enter, list their processes, remove |
//! | `network` | links, addresses, routes of nodes and pods |
//! | `pki` | a cluster's CA, keys, certificates, kubeconfigs |
//! | `processes` | the command lines of its processes |
//! | `supervise` | the process that starts them, watches them, and outlives the command |
//! | `state` | its state for other commands: ports, readiness, processes that ended |
//! | `forward` | the host's 127.0.0.1 to an API server inside |
//! | `objects`, `dns` | nodes, cluster DNS, and whether it answers |
//! | `preflight` | what the machine must offer |
//! | `environment` | create, attach, check, remove |
//!
//! # Inspecting
//! `meshproof up --provider netns` leaves an environment running; `meshproof env` points kubectl at it. `ip netns` lists the namespaces;
//! `ip netns exec mp-<id>-cluster1-control-plane bash` is a shell on a node.
//!
//! # Who owns what
//! The journal holds the supervisor and each namespace. Removing a namespace kills every process whose
//! network it is, so what runs inside needs no line of its own. Processes between their start and
//! their entry into a namespace die with the supervisor.
//!
//! **Never**: touch the host's links, routes or packet filter.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde::{Deserialize, Serialize};

use self::kubelet::{Image, ImageFile, ImageMap};
use super::{Access, ProviderError};
use crate::supply::containers::StoreSettings;
use crate::supply::program::Program;
use crate::supply::versions::{self, Versions};
use crate::supply::{Supplied, SupplyError};

mod access;
pub mod dns;
mod environment;
mod forward;
pub mod kubelet;
pub mod layout;
pub mod namespace;
pub mod network;
mod objects;
mod pki;
mod preflight;
mod processes;
pub mod state;
mod supervise;

pub use environment::{attach, check, create, remove};
pub use preflight::preflight;
pub use supervise::supervise;

/// The way into the clusters of an environment; `own`: this command's own, so that their nodes may be entered, too.
pub fn access(env: &Path, own: bool) -> Arc<dyn Access> {
    Arc::new(access::ThroughNamespaces { env: env.to_owned(), own })
}

/// The programs of clusters and pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programs {
    /// This harness: `meshproof __supervise` keeps the processes. (Not `current_exe`: a test binary has no such command.)
    pub meshproof: PathBuf,
    /// etcd 3.6 or newer.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// kube-controller-manager.
    pub kube_controller_manager: PathBuf,
    /// kube-proxy.
    pub kube_proxy: PathBuf,
    /// CoreDNS.
    pub coredns: PathBuf,
    /// The supplied images, and their programs.
    pub images: ImageMap,
    /// Where all other images are pulled to, and how.
    pub store: StoreSettings,
}

impl Programs {
    /// Those of a supply for this provider. `meshproof` is this harness's own program.
    ///
    /// # Errors
    /// When the supply is for another purpose.
    pub fn of(supplied: &Supplied, meshproof: &Path) -> Result<Self, SupplyError> {
        let find = |program| supplied.program(program).map(Path::to_owned);
        let store = StoreSettings::of_user(&supplied.versions.registry.mirrors)?;
        Ok(Self { store, ..Self::found_by(find, &supplied.versions, meshproof)? })
    }

    /// Those that `find` finds, with the images of `versions` all of whose programs it finds.
    ///
    /// # Errors
    /// The error of `find` for a required program.
    pub fn found_by<E>(
        find: impl Fn(Program) -> Result<PathBuf, E>,
        versions: &Versions,
        meshproof: &Path,
    ) -> Result<Self, E> {
        Ok(Self {
            meshproof: meshproof.to_owned(),
            etcd: find(Program::Etcd)?,
            kube_apiserver: find(Program::KubeApiserver)?,
            kube_controller_manager: find(Program::KubeControllerManager)?,
            kube_proxy: find(Program::KubeProxy)?,
            coredns: find(Program::Coredns)?,
            images: images(|program| find(program).ok(), versions),
            store: StoreSettings::default(),
        })
    }

    /// Whether each of them is an executable file.
    ///
    /// # Errors
    /// With the first that is not, by name and path.
    pub fn check(&self) -> Result<(), ProviderError> {
        let all = [
            ("meshproof", &self.meshproof),
            ("etcd", &self.etcd),
            ("kube-apiserver", &self.kube_apiserver),
            ("kube-controller-manager", &self.kube_controller_manager),
            ("kube-proxy", &self.kube_proxy),
            ("coredns", &self.coredns),
        ];
        let executable =
            |path: &PathBuf| std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        match all.into_iter().find(|(_, path)| !executable(path)) {
            None => Ok(()),
            Some((name, path)) => Err(ProviderError::Refused {
                what: format!("{name} not found: {} is not an executable file", path.display()),
                hint: "run: meshproof supply --for netns".into(),
            }),
        }
    }
}

fn images(find: impl Fn(Program) -> Option<PathBuf>, versions: &Versions) -> ImageMap {
    let image = |listed: &versions::Image| {
        let files = listed.programs.iter().map(|(inside, program)| {
            // Inside a container a symbolic link would lead somewhere else.
            Some(ImageFile { host: find(*program)?.canonicalize().ok()?, inside: inside.into() })
        });
        Some(Image {
            files: files.collect::<Option<_>>()?,
            entrypoint: listed.entrypoint.clone(),
            env: listed.env.clone().into_iter().collect(),
            uid: listed.user,
            gid: listed.user,
            ..Image::default()
        })
    };
    let listed = versions.images.iter().map(|located| &located.value);
    listed
        .filter_map(|listed| Some((listed, image(listed)?)))
        .flat_map(|(listed, image)| listed.names.iter().map(move |name| (name.clone(), image.clone())))
        .collect()
}

/// A cluster's kubeconfig for the host.
fn host_kubeconfig(env: &Path, cluster: &str) -> PathBuf {
    env.join(format!("{cluster}.kubeconfig"))
}

/// Whether an environment of this provider has its state in `folder`.
pub(super) fn is_environment(folder: &Path) -> bool {
    supervise::Orders::file(folder).is_file()
}

/// A client for a kubeconfig of ours, whatever proxies the user's environment names.
async fn client(kubeconfig: &Path, cluster: &str) -> Result<Client, ProviderError> {
    let failed = |source: std::io::Error| ProviderError::Io {
        what: format!("cannot use {}, the kubeconfig of cluster {cluster}", kubeconfig.display()),
        source,
    };
    let read = Kubeconfig::read_from(kubeconfig).map_err(|e| failed(std::io::Error::other(e)))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|e| failed(std::io::Error::other(e)))?;
    config.proxy_url = None;
    Client::try_from(config).map_err(|e| failed(std::io::Error::other(e)))
}

/// A wait of minutes that ended: the machine is broken or overloaded, and the logs say which.
fn too_late(error: &impl std::fmt::Display, cluster: &str) -> ProviderError {
    ProviderError::Refused {
        what: error.to_string(),
        hint: format!("the logs of the cluster's processes are in netns/{cluster}/logs in the environment's folder"),
    }
}
