//! Takes off what a scenario changed: faults first, which keep notes of their own, then objects.

use std::collections::BTreeSet;

use super::environment::Environment;
use super::undo::UndoList;
use super::{GATE_LIMIT, RunError};
use crate::fault;
use crate::gate::{self, Change};

/// Takes off what a scenario that was cut off changed.
pub async fn left_over(environment: &Environment) -> Result<(), RunError> {
    all(environment, &BTreeSet::new(), &mut UndoList::open(&environment.dir)).await
}

/// Takes off what this scenario, or one that was killed, changed; then the proxies must have it.
pub async fn all(
    environment: &Environment,
    namespaces: &BTreeSet<String>,
    undo: &mut UndoList,
) -> Result<(), RunError> {
    fault::mend_all(&environment.dir, environment.world(namespaces)).await?;
    if undo.is_empty() {
        return Ok(());
    }
    let clusters = &environment.clusters;
    let mut gates = vec![gate::before(clusters, Change::endpoints(namespaces.iter().cloned())).await?];
    for (cluster, objects) in undo.objects()? {
        gates.push(gate::before(clusters, Change::manifests(&cluster, &objects)).await?);
    }
    undo.run(clusters).await?;
    for before in gates {
        gate::after(before, GATE_LIMIT).await?;
    }
    Ok(())
}
