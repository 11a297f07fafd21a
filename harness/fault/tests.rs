//! The catalogue, and what is noted of what is broken.

use std::collections::BTreeSet;

use rstest::rstest;

use super::*;

fn noted(name: &str, cluster: &str, second: i64) -> Broken {
    Broken {
        name: name.into(),
        cluster: cluster.into(),
        since: jiff::Timestamp::from_second(second).unwrap(),
        namespaces: BTreeSet::from(["app1".to_owned()]),
        state: 2.into(),
    }
}

#[test]
fn every_fault_has_a_name_of_its_own_and_says_what_it_breaks() {
    let distinct: BTreeSet<&str> = names().into_iter().collect();
    assert_eq!(distinct.len(), CATALOGUE.len());
    for entry in catalogue() {
        assert!(entry.breaks.ends_with('.') && entry.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        assert_eq!(find(entry.name), Some(entry));
    }
}

#[test]
fn the_document_has_the_catalogue() {
    let mut table = "| fault | what it breaks in its cluster | rung |\n|---|---|---|\n".to_owned();
    for entry in catalogue() {
        let rung = entry.rung_name().map_or("survived".to_owned(), |rung| format!("`{rung}`"));
        table += &format!("| `{}` | {} | {rung} |\n", entry.name, entry.breaks);
    }
    assert!(include_str!("../../docs/faults.md").contains(&table), "docs/faults.md must hold this table:\n{table}");
}

#[test]
fn an_unknown_name_lists_those_that_there_are() {
    let error = fault("route-mising").err().unwrap().to_string();
    assert!(error.contains("did you mean `route-missing`?") && error.contains("istiod-down"), "{error}");
}

#[rstest]
#[case::all(None, None, Ok(3))]
#[case::by_cluster(None, Some("cluster2"), Ok(1))]
#[case::by_name(Some("masquerade"), None, Ok(2))]
#[case::both(Some("masquerade"), Some("cluster2"), Ok(1))]
#[case::no_such_fault(Some("masquerad"), None, Err("did you mean `masquerade`?"))]
#[case::no_such_cluster(None, Some("cluster3"), Err("known clusters: cluster1, cluster2"))]
#[case::whole(Some("istiod-down"), Some("cluster2"), Err("istiod-down is not in cluster2: nothing to mend"))]
fn what_is_mended(#[case] name: Option<&str>, #[case] cluster: Option<&str>, #[case] expected: Result<usize, &str>) {
    let all = [("istiod-down", "cluster1"), ("masquerade", "cluster1"), ("masquerade", "cluster2")];
    let all = all.map(|(name, cluster)| noted(name, cluster, 0));
    let selected = select(&all, name, cluster, ["cluster1", "cluster2"].into_iter());
    match (selected, expected) {
        (Ok(selected), Ok(count)) => assert_eq!(selected.len(), count),
        (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
        (found, _) => panic!("{found:?}"),
    }
}

#[test]
fn what_is_broken_is_known_to_the_next_process() {
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "e1").unwrap();
    assert_eq!(broken(&env).unwrap(), []);
    let [first, second] = [noted("istiod-down", "cluster1", 1), noted("api-server-paused", "cluster2", 2)];
    for one in [&first, &second] {
        env.write_private(&note_name(&one.name, &one.cluster), &serde_json::to_vec(one).unwrap()).unwrap();
    }
    drop(env);
    let env = EnvDir::open(root.path(), "e1").unwrap().unwrap();
    assert_eq!(broken(&env).unwrap(), [second, first], "the newest is mended first");
    env.write_private("fault-x-y.json", b"{").unwrap();
    assert!(broken(&env).unwrap_err().to_string().contains("fault-x-y.json"));
}
