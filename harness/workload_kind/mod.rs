//! The programs that meshproof runs as workloads: one file per kind, one line in [`SERVERS`].
//!
//! The scenario language, the plan, the supply and the manifests all read these records.

use std::collections::BTreeMap;

use serde_json::Value;

pub use helloworld::HELLOWORLD;
pub use sleep::SLEEP;

mod echo;
mod helloworld;
mod sleep;

/// The kinds that answer calls, under a service of their name. The other kind is [`SLEEP`], which only calls.
pub static SERVERS: [&WorkloadKind; 2] = [&HELLOWORLD, &echo::ECHO];

/// Every kind.
pub fn all() -> impl Iterator<Item = &'static WorkloadKind> {
    std::iter::once(&SLEEP).chain(SERVERS)
}

/// One kind of workload.
#[derive(Debug)]
pub struct WorkloadKind {
    /// The key in a scenario's `workloads`, and the name of the container. Servers: also of the service and service account.
    pub name: &'static str,
    /// What it does, in one sentence: the description in the JSON Schema.
    pub does: &'static str,
    /// Its images: one, or one per version.
    pub images: &'static [KindImage],
    /// The ports of its service.
    pub ports: &'static [ServicePort],
    /// The port whose answer means that it is ready, which decides whether a machine is healthy.
    pub health: Option<u16>,
    /// What calls are made with: by the kind itself, and by each `sleep` of a scenario that has such a server.
    pub client: Client,
    /// `terminationGracePeriodSeconds` of its pods.
    pub grace: u32,
    /// The fields of its container, besides name and image.
    pub container: fn(&Instance<'_>) -> Value,
}

/// What a container of a server depends on.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// The version that it answers with.
    pub version: &'a str,
    /// Where it runs.
    pub cluster: &'a str,
}

/// An image of a workload.
#[derive(Debug, PartialEq, Eq)]
pub struct KindImage {
    /// Its key below `registry: apps:` in `versions.yaml`.
    pub key: &'static str,
    /// The version that it answers with unless a parameter says another.
    pub version: Option<&'static str>,
    /// Its repository where it is built here, without the hub. `images:` in `versions.yaml` says what it holds.
    pub local: &'static str,
}

/// A port of a service.
#[derive(Debug)]
pub struct ServicePort {
    /// Its name. Istio takes the protocol from it, unless `app_protocol` is set.
    pub name: &'static str,
    /// Its number, which is the container's too.
    pub number: u16,
    /// `appProtocol`.
    pub app_protocol: Option<&'static str>,
}

impl ServicePort {
    const fn new(name: &'static str, number: u16) -> Self {
        Self { name, number, app_protocol: None }
    }
}

/// A program that sends calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Client {
    /// `curl`: HTTP only.
    #[default]
    Curl,
    /// The client of Istio's echo server: gRPC, TCP and WebSocket too. Its image has `curl` as well.
    Echo,
}

impl Client {
    /// The kind whose image a `sleep` runs to have this client.
    pub fn kind(self) -> &'static WorkloadKind {
        match self {
            Self::Curl => &SLEEP,
            Self::Echo => &echo::ECHO,
        }
    }
}

impl WorkloadKind {
    /// The Deployment of a server's version.
    pub fn deployment(&self, version: &str) -> String {
        format!("{}-{version}", self.name)
    }
}

/// The images of the workloads, as pods name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadImages(BTreeMap<&'static str, String>);

impl WorkloadImages {
    /// The images that `name` has a name for.
    pub fn of(name: impl Fn(&'static KindImage) -> Option<String>) -> Self {
        Self(all().flat_map(|kind| kind.images).filter_map(|image| Some((image.key, name(image)?))).collect())
    }

    /// Their names, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(key, name)| (*key, name.as_str()))
    }

    /// The image of a kind for a version: its own, or the last one, because the version is a parameter.
    pub fn get(&self, kind: &WorkloadKind, version: Option<&str>) -> Option<&str> {
        let own = kind.images.iter().find(|image| image.version == version);
        self.0.get(own.or(kind.images.last())?.key).map(String::as_str)
    }
}
