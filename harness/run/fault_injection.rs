//! A fault that is put into a scenario that knows nothing of it, so that the scenario can prove that it notices.

use std::collections::BTreeMap;

use super::{Patience, RunError};
use crate::fault::{self, FaultError, World};
use crate::journal::EnvDir;
use crate::report::ScenarioReport;

/// A fault of the catalogue, to be put into a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultInjection {
    /// Its name in the catalogue.
    pub fault: String,
    /// The clusters that it may break, the preferred one first.
    pub clusters: Vec<String>,
    /// The mesh must survive it: the scenario is to pass, and gets the time that it has without a fault.
    pub survivable: bool,
}

/// A scenario that ran with a fault in it.
#[derive(Debug)]
pub struct RunUnderFault {
    /// The scenario's result, before anything was restored.
    pub report: ScenarioReport,
    /// What became of the fault.
    pub injection: Injection,
    /// Whether the fault was cleared and the scenario's own changes came off.
    pub put_back: Result<(), String>,
}

/// What became of a fault.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Injection {
    /// No step of the scenario was reached.
    #[default]
    NotTried,
    /// It was in force from that step on.
    Done {
        /// The cluster.
        cluster: String,
        /// The step before which it was injected, from 0.
        step: usize,
        /// Seconds until its effect was there.
        seconds: f64,
    },
    /// It applied at no step: why, by cluster.
    Never(BTreeMap<String, String>),
    /// Its effect did not come.
    Failed {
        /// The cluster.
        cluster: String,
        /// What went wrong.
        why: String,
    },
}

/// A fault injection under way.
pub(super) struct Attempt {
    fault: FaultInjection,
    injection: Injection,
}

impl Attempt {
    pub fn of(fault: &FaultInjection) -> Self {
        Self { fault: fault.clone(), injection: Injection::NotTried }
    }

    /// How long the scenario waits with the fault in it.
    pub fn patience(&self) -> Patience {
        if self.fault.survivable { Patience::Long } else { Patience::Short }
    }

    /// The fault and its cluster, once it is in, or half in.
    pub fn in_force(&self) -> Option<(&str, &str)> {
        match &self.injection {
            Injection::Done { cluster, .. } | Injection::Failed { cluster, .. } => Some((&self.fault.fault, cluster)),
            Injection::NotTried | Injection::Never(_) => None,
        }
    }

    pub fn end(self) -> Injection {
        self.injection
    }

    /// Tries the clusters in turn, unless the fault is in already.
    ///
    /// A fault of rules applies only where rules are: so it is tried again before each step, and is active from the earliest
    /// one at which it can be.
    pub async fn put_in(&mut self, env: &EnvDir, world: World<'_>, step: usize) -> Result<(), RunError> {
        if let Injection::Done { .. } = self.injection {
            return Ok(());
        }
        let mut refused = BTreeMap::new();
        for cluster in &self.fault.clusters {
            match fault::inject(env, world, &self.fault.fault, cluster).await {
                Ok(took) => {
                    let (cluster, seconds) = (cluster.clone(), took.as_secs_f64());
                    self.injection = Injection::Done { cluster, step, seconds };
                    return Ok(());
                }
                Err(FaultError::DoesNotApply { cluster, why, .. }) => drop(refused.insert(cluster, why)),
                Err(error) => {
                    self.injection = Injection::Failed { cluster: cluster.clone(), why: error.to_string() };
                    return Err(error.into());
                }
            }
        }
        self.injection = Injection::Never(refused);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_mesh_survives_gets_all_its_time() {
        // istiod of a kind cluster takes longer to come back than a scenario that is to fail waits.
        let attempt =
            |survivable| Attempt::of(&FaultInjection { fault: String::new(), clusters: Vec::new(), survivable });
        assert_eq!(attempt(true).patience(), Patience::Long);
        assert_eq!(attempt(false).patience(), Patience::Short);
    }
}
