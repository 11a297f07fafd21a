//! Meshes of other forms than one network: over gateways, and with a control plane outside the clusters that it serves.

use crate::fixture::{Fixture, client, differences, stdout, succeeded, wanted};
use crate::unchanged::as_by_default;

/// The mesh as Istio's default profile leaves it: the calls' log is the run's own, on the servers' side of a gateway too.
#[tokio::test(flavor = "multi_thread")]
async fn calls_go_through_the_gateways_that_are_there() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::with_mesh_of("multi-primary-multi-network");
    for kubeconfig in &fixture.kubeconfigs {
        as_by_default(&client(kubeconfig).await).await;
    }
    let before = fixture.objects_at_rest().await;
    let passed = fixture.run(&[], &["scenarios/multi-primary-multi-network/across_gateways.yaml"]);
    succeeded(&passed);
    let printed = stdout(&passed);
    for expected in ["1 scenario: 1 pass", "EnvoyFilter meshproof-access-log", ":15443", "mtls permissive"] {
        assert!(printed.contains(expected), "{expected:?} is missing:\n{printed}");
    }
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_may_be_outside_the_clusters_that_it_serves() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::with_mesh_of("external-control-plane");
    let before = fixture.objects_at_rest().await;
    let third = ["--context", "cluster3=cluster3"];
    let passed = fixture.run(&third, &["scenarios/external-control-plane/rule_in_the_config_cluster.yaml"]);
    succeeded(&passed);
    assert!(stdout(&passed).contains("1 scenario: 1 pass"), "{}", stdout(&passed));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new());
}
