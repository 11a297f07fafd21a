use super::*;
use crate::observe::snapshot::tests::{HELLO, recorded};
use rstest::rstest;
use serde_json::json;

fn table(routes: Value) -> Value {
    json!({"dynamic_route_configs": [{"route_config": {"name": "5000", "virtual_hosts": [
        {"name": "h", "domains": ["helloworld", "helloworld.app1"], "routes": routes},
        {"name": "allow_any", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster"}}]}]}}]})
}

fn target(url: &str) -> Callee {
    url.parse().unwrap()
}

fn hello() -> Callee {
    target("http://helloworld.app1:5000/hello")
}

#[test]
fn without_a_rule_the_service_itself_is_chosen() {
    let chosen = choose(recorded().section("RoutesConfigDump"), &hello(), &BTreeMap::new()).unwrap();
    assert_eq!(chosen, Chosen { made_from: None, arms: vec![(HELLO.to_owned(), 1.0)], by_itself: None });
}

#[rstest]
#[case(Some("jason"), "v2")]
#[case(Some("mary"), "v1")]
#[case(None, "v1")]
fn a_header_decides(#[case] user: Option<&str>, #[case] expected: &str) {
    let jason = json!({"name": "end-user", "string_match": {"exact": "jason"}});
    let routes = table(json!([
        {"match": {"prefix": "/", "headers": [jason]}, "route": {"cluster": "v2"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "v1"}}]));
    let headers = user.map(|u| ("End-User".to_owned(), u.to_owned())).into_iter().collect();
    assert_eq!(choose(&routes, &hello(), &headers).unwrap().arms, [(expected.to_owned(), 1.0)]);
}

#[test]
fn weights_become_shares_and_the_rule_is_named() {
    let config = "/apis/networking.istio.io/v1/namespaces/app1/virtual-service/helloworld";
    let routes =
        table(json!([{"match": {"prefix": "/"}, "metadata": {"filter_metadata": {"istio": {"config": config}}},
        "route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]}}}]));
    let chosen = choose(&routes, &hello(), &BTreeMap::new()).unwrap();
    assert_eq!(chosen.arms, [("a".to_owned(), 0.75), ("b".to_owned(), 0.25)]);
    assert_eq!(chosen.made_from.as_deref(), Some("VirtualService app1/helloworld"));
}

#[rstest]
#[case::another_path(json!([{"match": {"path": "/bye"}, "route": {"cluster": "a"}}]), NoRoute::None("no route of host `helloworld.app1` matches /hello".into()))]
#[case::a_regex(json!([{"match": {"safe_regex": {"regex": ".*"}}, "route": {"cluster": "a"}}]), NoRoute::Unknown("a route of `helloworld.app1` has a condition that meshproof does not evaluate".into()))]
fn no_route_is_distinguished_from_one_that_is_not_understood(#[case] routes: Value, #[case] expected: NoRoute) {
    assert_eq!(choose(&table(routes), &hello(), &BTreeMap::new()), Err(expected));
}

#[test]
fn a_host_that_nobody_knows_passes_through() {
    let other = target("http://other.app1:5000/");
    assert_eq!(choose(&table(json!([])), &other, &BTreeMap::new()).unwrap().arms[0].0, "PassthroughCluster");
    let elsewhere = target("http://other.app1:81/");
    assert!(matches!(choose(&table(json!([])), &elsewhere, &BTreeMap::new()), Err(NoRoute::None(_))));
}

fn expect(text: &str) -> Expect {
    serde_saphyr::from_str(text).unwrap()
}

#[rstest]
#[case("only: v2", &[("v2", 1.0)], true, None)]
#[case("only: v2", &[("v1", 0.5), ("v2", 0.5)], false, Some(("every call goes to v2", "v1 50%, v2 50%")))]
#[case("reached: [v1, v2]", &[("v1", 0.9), ("v2", 0.1)], false, None)]
#[case("reached: [v1, v2]", &[("v1", 1.0)], false, Some(("calls go to v1 and v2", "v1 100%")))]
#[case("never: [v1]", &[("v1", 0.5), ("v2", 0.5)], false, Some(("no call goes to v1", "v1 50%, v2 50%")))]
#[case("split: {v1: 75%, v2: 25%}", &[("v1", 0.75), ("v2", 0.25)], true, None)]
#[case("split: {v1: 75%, v2: 25%}", &[("v1", 0.25), ("v2", 0.75)], true, Some(("v1 75%, v2 25%", "v1 25%, v2 75%")))]
#[case("split: {v1: 75%, v2: 25%}", &[("v1", 0.5), ("v2", 0.5)], false, Some(("v1 75%, v2 25%", "v1 50%, v2 50%")))]
#[case("status: 200", &[("v1", 1.0)], true, None)]
fn shares_are_compared_with_what_was_expected(
    #[case] text: &str,
    #[case] shares: &[(&str, f64)],
    #[case] exact: bool,
    #[case] expected: Option<(&str, &str)>,
) {
    let shares = shares.iter().map(|(v, s)| ((*v).to_owned(), *s)).collect();
    let found = unlike(&expect(text), &shares, exact);
    assert_eq!(found.as_ref().map(|(a, b)| (a.as_str(), b.as_str())), expected);
}
