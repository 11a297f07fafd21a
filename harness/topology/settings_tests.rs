use super::*;
use rstest::rstest;
use serde_json::json;

fn fields(value: Value) -> Fields {
    value.as_object().cloned().unwrap()
}

#[test]
fn maps_are_merged_lists_replaced_and_providers_merged_by_name() {
    let mut base = fields(json!({ "a": { "b": 1, "c": 2 }, "l": [1], "extensionProviders": [{ "name": "zipkin" }] }));
    let provider = json!({ "name": "mine", "envoyExtAuthzHttp": {} });
    merge(&mut base, &fields(json!({ "a": { "c": 3 }, "l": [2], "extensionProviders": [provider] })));
    let expected = json!({ "a": { "b": 1, "c": 3 }, "l": [2], "extensionProviders": [{ "name": "zipkin" }, provider] });
    assert_eq!(Value::Object(base), expected);
}

fn problems_of(mesh: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct File {
        mesh: Mesh,
    }
    #[derive(Deserialize)]
    struct Mesh {
        config: Option<Located<Setting>>,
        values: Option<Located<Setting>>,
        revision: Option<Located<String>>,
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("owned.yaml"), "# mine\noutboundTrafficPolicy: {}\ntrustDomain: x\n").unwrap();
    std::fs::write(root.path().join("map.yaml"), "apiVersion: v1\nkind: ConfigMap\n").unwrap();
    let source = Source::new(root.path().join("s.yaml"), mesh);
    let File { mesh: Mesh { config, values, revision } } = crate::source::parse(&source).unwrap();
    let asked = Asked { config, values, revision };
    let locate = |named: &Path| Some(root.path().join(named)).filter(|path| path.is_file());
    let (_, problems) = asked.read(&source, locate);
    let problems = problems.into_iter().chain(asked.not_stock(&source, locate)).collect();
    let Err(problems) = Problems::none_of(problems) else { return Vec::new() };
    problems.under(root.path()).iter().map(|p| format!("{}: {p}", p.place())).collect()
}

#[rstest]
#[case::sound("mesh:\n  config: { outboundTrafficPolicy: { mode: REGISTRY_ONLY } }\n  revision: canary\n", &[])]
#[case::inline(
    "mesh:\n  config: { trustDomain: x, accessLogFile: /dev/null }\n",
    &["s.yaml:2:26: meshproof sets `trustDomain` itself", "s.yaml:2:44: meshproof sets `accessLogFile` itself"]
)]
#[case::unknown(
    "mesh: { config: { outboundTraficPolicy: {}, trust_domain: x } }\n",
    &[
        "s.yaml:1:17: meshproof sets `trustDomain` itself",
        "s.yaml:1:19: MeshConfig has no field `outboundTraficPolicy`",
        "s.yaml:1:45: MeshConfig has no field `trust_domain`"
    ]
)]
#[case::values(
    "mesh:\n  values:\n    global:\n      network: n\n    revision: a\n",
    &["s.yaml:4:16: meshproof sets `global.network` itself", "s.yaml:5:15: meshproof sets `revision` itself"]
)]
#[case::in_a_file("mesh: { config: owned.yaml }\n", &["owned.yaml:3:14: meshproof sets `trustDomain` itself"])]
#[case::no_file("mesh: { config: none.yaml }\n", &["s.yaml:1:17: there is no file `none.yaml`"])]
#[case::an_object("mesh: { config: map.yaml }\n", &["map.yaml:2:7: this is a ConfigMap"])]
#[case::no_revision("mesh: { revision: 1.31 }\n", &["s.yaml:1:19: `1.31` is not a revision"])]
#[case::not_stock(
    "mesh: { config: { defaultProviders: { metrics: [prometheus] } } }\n",
    &["s.yaml:1:39: the proxies of this environment are a stock Envoy, which has no filters of Istio for `defaultProviders.metrics`"]
)]
fn what_may_not_be_set_is_refused_at_its_place(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(problems_of(text), expected);
}
