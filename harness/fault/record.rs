//! What a fault is: a record with the functions that break and restore one thing.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::FaultError;
use super::notes;
use super::world::{At, World};
use crate::diagnose::RungId;
use crate::provider::Cluster;

/// One thing that can be broken.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Fault {
    /// Its name: `remote-secret-missing`.
    pub name: &'static str,
    /// What it breaks in the cluster that it is given, in one sentence.
    pub breaks: &'static str,
    /// The rung of the ladder that must be the first broken one; `None`: the mesh must survive the fault, so that calls
    /// continue as if nothing had happened.
    pub rung: Option<RungId>,
    /// Why it does not apply to a cluster, as far as can be said without asking anybody.
    #[serde(skip)]
    pub(super) applies: fn(&World<'_>, &Cluster) -> Result<(), String>,
    /// Reads what clearing needs; changes nothing.
    #[serde(skip)]
    pub(super) plan: Plan,
    /// The objects that clearing writes back in the form that the note has, as `Service app1/helloworld`.
    #[serde(skip)]
    pub(super) restores: fn(&Value) -> Result<Vec<String>, FaultError>,
    /// Breaks it, and returns when the effect is there.
    #[serde(skip)]
    pub(super) inject: Act,
    /// Clears it, and returns when the effect is gone. Clearing what is not broken changes nothing.
    #[serde(skip)]
    pub(super) clear: Act,
}

/// Not `Send`: the futures of [`crate::apply`] cannot be proven to be.
pub(super) type Answer<'a, T> = LocalBoxFuture<'a, Result<T, FaultError>>;
pub(super) type Plan = for<'a> fn(At<'a>) -> Answer<'a, Value>;
pub(super) type Act = for<'a> fn(At<'a>, &'a Value) -> Answer<'a, ()>;

impl Fault {
    /// What most faults have in common: they apply everywhere, note nothing and write back no object.
    pub(super) const BASE: Self = Self {
        name: "",
        breaks: "",
        rung: None,
        applies: |_, _| Ok(()),
        plan: |_| async { Ok(Value::Null) }.boxed_local(),
        restores: |_| Ok(Vec::new()),
        inject: |_, _| async { Ok(()) }.boxed_local(),
        clear: |_, _| async { Ok(()) }.boxed_local(),
    };

    /// The rung's name, as `meshproof why --json` has it.
    pub fn rung_name(&self) -> Option<String> {
        serde_json::to_value(self.rung).ok()?.as_str().map(str::to_owned)
    }
}

/// A [`Plan`] from a function that answers a type of the fault's own.
pub(super) fn plan<'a, T: Serialize, F>(at: At<'a>, read: impl FnOnce(At<'a>) -> F + 'a) -> Answer<'a, Value>
where
    F: Future<Output = Result<T, FaultError>> + 'a,
{
    async move { notes::note(&read(at).await?) }.boxed_local()
}

/// An [`Act`] from a function that takes a type of the fault's own.
pub(super) fn act<'a, T: DeserializeOwned, F>(
    at: At<'a>,
    state: &'a Value,
    work: impl FnOnce(At<'a>, T) -> F + 'a,
) -> Answer<'a, ()>
where
    F: Future<Output = Result<(), FaultError>> + 'a,
{
    async move { work(at, notes::state(state)?).await }.boxed_local()
}
