use std::collections::BTreeSet;

use super::pods::{may_answer, places};
use super::*;
use crate::workload::PodInfo;

fn pod(name: &str, ip: &str, ready: bool, sidecar: bool) -> PodInfo {
    PodInfo {
        namespace: "app1".into(),
        name: name.into(),
        ip: ip.parse().ok(),
        ready,
        node: None,
        version: None,
        sidecar,
    }
}

#[test]
fn a_series_that_was_cut_short_says_so_where_it_matters() {
    let at = crate::scenario::Located::nowhere(());
    let finding = |class| Finding::at(&at, "latency", class, "", "0 of 60 replies later");
    let mut findings = [finding(Class::Pass), finding(Class::Inconclusive)];
    tell_cut_short(&mut findings, 60, 132);
    let observed = findings.map(|f| f.observed);
    assert_eq!(
        observed,
        ["0 of 60 replies later", "0 of 60 replies later; the time limit was reached after 60 of 132 calls"]
    );
}

#[test]
fn servers_of_the_users_own_are_asked_too() {
    let running = |namespace: &str| RunningWorkload {
        name: "w".into(),
        cluster: "cluster1".into(),
        namespace: namespace.into(),
        is_sleep: false,
        pods: Vec::new(),
    };
    let running = ["app1", "app1", "mine"].map(running);
    assert_eq!(places(&running), BTreeSet::from([("cluster1", "app1"), ("cluster1", "mine")]));
}

#[rstest::rstest]
#[case::a_server(pod("server", "10.10.0.6", true, true), true)]
#[case::the_caller(pod("sleep", "10.10.0.5", true, true), false)]
#[case::of_another_cluster_by_that_name(pod("sleep", "10.20.0.5", true, true), true)]
#[case::not_ready(pod("server", "10.10.0.6", false, true), false)]
#[case::without_a_sidecar(pod("server", "10.10.0.6", true, false), false)]
fn who_may_answer(#[case] other: PodInfo, #[case] expected: bool) {
    assert_eq!(may_answer(&other, &pod("sleep", "10.10.0.5", true, true)), expected);
}
