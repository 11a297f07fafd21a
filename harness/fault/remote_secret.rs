//! The control plane does not know the cluster, or cannot read it.

use futures::FutureExt;
use serde_json::Value;

use super::{Answer, Fault, World, note, state, watchers};
use crate::diagnose::RungId;
use crate::istio::remote_secret::{self, Flaw};
use crate::provider::Cluster;

pub(super) struct RemoteSecret {
    name: &'static str,
    breaks: &'static str,
    /// What is wrong with the secret; `None`: it is not there.
    flaw: Option<Flaw>,
}

impl RemoteSecret {
    pub const MISSING: Self = Self {
        name: "remote-secret-missing",
        breaks: "No control plane has the remote secret of this cluster: its endpoints leave every proxy elsewhere.",
        flaw: None,
    };
    pub const WRONG_TOKEN: Self = Self {
        name: "remote-secret-token-wrong",
        breaks: "The token in this cluster's remote secret is refused, as an expired one is: no control plane elsewhere reads it.",
        flaw: Some(Flaw::Token),
    };
    pub const LOOPBACK: Self = Self {
        name: "remote-secret-server-loopback",
        breaks: "This cluster's remote secret says that its API server is at 127.0.0.1: no control plane elsewhere reads it.",
        flaw: Some(Flaw::Server),
    };
}

impl Fault for RemoteSecret {
    fn name(&self) -> &'static str {
        self.name
    }

    fn breaks(&self) -> &'static str {
        self.breaks
    }

    fn rung(&self) -> Option<RungId> {
        Some(RungId::RemoteSecret)
    }

    fn applies(&self, world: &World<'_>, cluster: &Cluster) -> Result<(), String> {
        watchers::could_exist(world, cluster)
    }

    /// Those that read the cluster.
    fn plan<'a>(&'a self, world: World<'a>, cluster: &'a Cluster) -> Answer<'a, Value> {
        async move { note(&watchers::of(world, cluster, self.name).await?) }.boxed_local()
    }

    fn inject<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, watchers: &'a Value) -> Answer<'a, ()> {
        async move {
            let watchers: Vec<String> = state(watchers)?;
            watchers::forget(world, cluster, &watchers).await?;
            let Some(flaw) = self.flaw else { return Ok(()) };
            for watcher in &watchers {
                let watcher = world.cluster(watcher)?;
                remote_secret::flawed(watcher, cluster, world.owner, flaw).await?;
                let tries = |status: Option<&str>| status.is_some_and(|s| s != "synced");
                watchers::status(watcher, &cluster.name, tries, "to try in vain to read").await?;
            }
            Ok(())
        }
        .boxed_local()
    }

    fn clear<'a>(&'a self, world: World<'a>, cluster: &'a Cluster, watchers: &'a Value) -> Answer<'a, ()> {
        async move {
            let watchers: Vec<String> = state(watchers)?;
            match self.flaw {
                None => watchers::learn(world, cluster, &watchers).await,
                Some(_) => watchers::learn_after_failure(world, cluster, &watchers).await,
            }
        }
        .boxed_local()
    }
}
