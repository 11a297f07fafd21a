//! Existing clusters, and the mesh in them.

use crate::finding::{Finding, Severity};
use crate::istio::found::{self, FoundMesh};
use crate::istio::{Mesh, MeshError};
use crate::provider::existing as provider;
use crate::run::settings::Existing;
use crate::topology::Topology;

/// The clusters that were given, for each topology that will be run on them.
pub(super) async fn look(existing: &Existing, topologies: &[Topology]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for topology in topologies {
        let mut more = provider::preflight(&existing.given, topology, existing.install_mesh).await;
        if crate::finding::worst(&more) != Severity::Bad {
            more.push(mesh(existing, topology).await);
        }
        for finding in more {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    findings
}

async fn mesh(existing: &Existing, topology: &Topology) -> Finding {
    let clusters = match provider::reach(topology, &existing.given).await {
        Ok(clusters) => clusters,
        Err(error) => return Finding::bad("mesh", error.to_string(), "scenarios test it", ""),
    };
    let mesh = Mesh { topology: topology.clone(), owner: String::new(), revision: None };
    finding(found::find(&mesh, &clusters).await, existing.install_mesh)
}

fn finding(found: Result<FoundMesh, MeshError>, install: bool) -> Finding {
    match found {
        Ok(found) if install => Finding::bad(
            "mesh",
            found.in_words(),
            "`--install-mesh` never changes an existing mesh",
            "remove `--install-mesh` to use it as it is, or uninstall it: `istioctl uninstall --purge`",
        ),
        Ok(found) => Finding::good("mesh", found.in_words()),
        // Whatever is in the way, the installation will name it.
        Err(MeshError::NotFound { .. }) if install => Finding::good("mesh", "none; one will be installed for the run"),
        Err(error) => {
            Finding::bad("mesh", error.to_string(), "scenarios test it", "add `--install-mesh`, or fix the mesh")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::found::FoundIstiod;
    use crate::istio::options::Mtls;
    use rstest::rstest;

    fn found(log: Option<&str>) -> Result<FoundMesh, MeshError> {
        let istiod = FoundIstiod {
            cluster: "cluster1".into(),
            version: "1.30.4".into(),
            mtls: Mtls::Strict,
            unreadable_log: log.map(str::to_owned),
        };
        Ok(FoundMesh { istiods: vec![istiod], sidecars: Vec::new() })
    }

    fn none() -> Result<FoundMesh, MeshError> {
        Err(MeshError::NotFound { cluster: "cluster1".into(), why: "no control plane".into() })
    }

    #[rstest]
    #[case::used_as_it_is(found(None), false, Severity::Good)]
    #[case::its_log_says_little(found(Some("the access log is text")), false, Severity::Good)]
    #[case::none_to_use(none(), false, Severity::Bad)]
    #[case::none_in_the_way(none(), true, Severity::Good)]
    #[case::one_in_the_way(found(None), true, Severity::Bad)]
    fn a_mesh_is_used_or_installed_never_changed(
        #[case] found: Result<FoundMesh, MeshError>,
        #[case] install: bool,
        #[case] expected: Severity,
    ) {
        assert_eq!(finding(found, install).severity, expected);
    }
}
