use std::path::{Path, PathBuf};

use rstest::rstest;

use super::*;
use crate::scenario::{ScenarioFile, discover, schema};

fn open(path: &Path) -> Result<crate::plan::Plan, Problems> {
    crate::plan::open(path, &crate::fault::names())
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_scenario_of_the_repository_is_sound_and_says_why_it_may_fail() {
    let found = discover(&[repository().join("scenarios")]).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(found.len() >= 12, "{found:?}");
    for ScenarioFile { name, path } in found {
        let loaded = open(&path).unwrap_or_else(|problems| panic!("{problems}")).loaded;
        assert!(
            loaded.scenario.purpose.to_lowercase().contains("fails when"),
            "{name}: {}",
            loaded.scenario.purpose.value
        );
        let first = loaded.source.text.lines().next().unwrap_or_default();
        let schema = first.strip_prefix("# yaml-language-server: $schema=").unwrap_or_default();
        let schema = path.parent().unwrap().join(schema);
        assert_eq!(
            schema.canonicalize().ok(),
            repository().join("scenarios/scenario.schema.json").canonicalize().ok(),
            "{name}"
        );
    }
}

#[test]
fn the_committed_schema_is_the_one_of_the_code() {
    let path = repository().join("scenarios/scenario.schema.json");
    let schema = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == schema, "stale: UPDATE_SCHEMA=1 cargo test --lib the_committed_schema");
}

#[test]
fn the_reference_names_every_field_and_its_example_is_sound() {
    let text = std::fs::read_to_string(repository().join("docs/scenario-format.md")).unwrap();
    let more = ["calls.md", "mesh.md", "protocols.md", "steps.md"]
        .map(|name| std::fs::read_to_string(repository().join("docs").join(name)).unwrap());
    let all = text.clone() + &more.concat();
    let schema = serde_json::to_value(schema()).unwrap();
    let mut objects = vec![&schema];
    while let Some(object) = objects.pop() {
        for name in object["properties"].as_object().into_iter().flatten().map(|(name, _)| name) {
            let documented = [format!("`{name}`"), format!("`{name}: "), format!("`{name}:\n")]
                .iter()
                .any(|word| all.contains(word))
                || all.contains(&format!(" {name}: "));
            assert!(documented, "neither docs/scenario-format.md nor a page that it refers to has `{name}`");
        }
        objects.extend(object.as_object().into_iter().flatten().map(|(_, v)| v).filter(|v| v.is_object()));
        objects.extend(object.as_object().into_iter().flatten().filter_map(|(_, v)| v.as_array()).flatten());
    }
    let example = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let rule = "fixtures/routing/helloworld-v2-only.yaml";
    assert!(example.contains(rule) && repository().join(rule).is_file());
    assert_eq!(problems_of(&example.replace(rule, "fixtures/rule.yaml")), "");
}

/// A project with a topology, a fixture and that scenario; paths in messages are relative to it.
fn problems_of(scenario: &str) -> String {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path: PathBuf = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for file in ["topology.yaml", "cluster1.yaml", "cluster2.yaml"] {
        let text = std::fs::read_to_string(repository().join("kind-configs/vpn").join(file)).unwrap();
        put(&format!("kind-configs/vpn/{file}"), &text);
        put(&format!("kind-configs/broken/{file}"), &text.replace("10.20.0.0", "10.10.0.0"));
    }
    put("fixtures/rule.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: rule, namespace: app1 }\n");
    put("fixtures/tab.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: rule\n");
    put("fixtures/nameless.yaml", "apiVersion: v1\nkind: ConfigMap\n");
    put("fixtures/empty.yaml", "---\n");
    put("scenarios/x.yaml", scenario);
    match open(&root.path().join("scenarios/x.yaml")) {
        Ok(_) => String::new(),
        Err(problems) => problems.under(root.path()).to_string().replace(&root.path().display().to_string(), "."),
    }
}

const WORKLOADS: &str = "\
workloads:
  - sleep: { cluster: cluster1 }
  - sleep: { cluster: cluster1, name: outside, sidecar: false }
  - helloworld: { version: v1, cluster: cluster1 }
  - helloworld: { version: v2, cluster: cluster2 }
";

fn with_steps(mesh: &str, steps: &str) -> String {
    format!("name: n\npurpose: p\ntopology: vpn\nmesh: {{ {mesh} }}\n{WORKLOADS}steps:\n{steps}")
}

fn call(rest: &str) -> String {
    format!("  - call: {{ from: sleep@cluster1, to: \"http://helloworld.app1:5000/hello\", {rest} }}\n")
}

fn expect(expectations: &[&str]) -> String {
    with_steps("", &expectations.iter().map(|e| call(&format!("expect: {{ {e} }}"))).collect::<String>())
}

#[test]
fn a_sound_scenario_has_no_problems() {
    assert_eq!(
        problems_of(&expect(&[
            "reached: [v1, v2]",
            "resolves: false",
            "split: { v1: 33.3%, v2: 66.7% }",
            "split: { by: cluster, cluster1: 50, cluster2: 50 }",
            "split: { by: zone, a: 50, b: 50 }",
            "split: { by: instance, instances: 3 }",
            "sticky: { by: cookie }",
            "mirrored_to: v2",
            "mirrored_to: { v1: 10%, v2: 100% }",
            "status: [200, 404]",
            "status: { 200: 70, 503: 30 }",
            "headers: { a: b, c: true, d: 5 }",
            "attempts: 1",
            "network: vpn",
            "trust_domain: cluster.local, source_in: cluster1.pods",
            "metrics: [client, server]",
            "latency: { at_least: 1ms, p50: 2ms, p99: 3ms, within: 4ms }"
        ])),
        ""
    );
}

#[rstest]
#[case::empty_file("".into())]
#[case::not_yaml("name: n\n\tpurpose: p\n".into())]
#[case::fields_missing_and_unknown("nam: n\ntopology: vpn\nworkloads: []\nsteps: []\nretries: 3\n".into())]
#[case::wrong_types(with_steps(
    "mtls: maybe, dns_capture: perhaps",
    "  - cal: { from: sleep@cluster1 }\n  - call: { from: sleep, to: x, calls: many, timeout: 5, detect: 120%, expect: { only: [v1], status: ok, endpoints_in: cluster2.services } }\n  - apply: { cluster: cluster1, fil: x }\n"
))]
#[case::written_twice(with_steps("", &call("calls: 500, calls: 600, expect: { only: v1 }")))]
#[case::nothing_to_do("name: ''\npurpose: ' '\nlabels: [a b, x, x]\ntopology: vpn\nworkloads: []\nsteps: []\n".into())]
#[case::no_call(with_steps("", "  - apply: { cluster: cluster1, file: fixtures/rule.yaml }\n"))]
#[case::unknown_topology(expect(&["only: v1"]).replace("topology: vpn", "topology: vpm"))]
#[case::broken_topology_and_more(expect(&["only: v3"]).replace("topology: vpn", "topology: broken"))]
#[case::unknown_clusters(with_steps("", &format!("  - apply: {{ cluster: cluster3, file: fixtures/rule.yaml }}\n  - call: {{ from: sleep@cluter1, to: \"https://{{cluster7.api}}/\", expect: {{ endpoints_in: cluster8.pods }} }}\n{}", call("expect: { reached: [v1, v2], endpoints_in: { v2: cluster9.pods } }"))).replace("version: v2, cluster: cluster2", "version: v2, cluster: CLUSTER2"))]
#[case::unknown_callers(with_steps(
    "",
    "  - call: { from: slep@cluster1, to: http://h/, expect: { status: 200 } }\n  - call: { from: helloworld@cluster1, to: http://h/, expect: { status: 200 } }\n  - call: { from: sleep@cluster2, to: http://h/, expect: { status: 200 } }\n"
))]
#[case::unknown_versions(expect(&["reached: [v1, v3]", "only: V2", "never: [w]", "split: { v1: 50%, x: 50% }", "endpoints_in: { v9: cluster1.pods }"]))]
#[case::unknown_faults(with_steps("", &format!("  - fault: {{ name: remote-secret-mising, cluster: cluster2 }}\n  - clear: {{ name: route-missing, cluster: cluster1 }}\n{}", call("expect: { only: v1 }"))))]
#[case::faults_in_disorder(with_steps("", &format!("  - clear: {{ name: route-missing, cluster: cluster2 }}\n  - fault: {{ name: route-missing, cluster: cluster2 }}\n  - fault: {{ name: route-missing, cluster: cluster2 }}\n  - clear: {{ name: route-missing, cluster: cluster1 }}\n{}", call("expect: { only: v1 }"))))]
#[case::files(with_steps("", &format!("{}{}", ["missing", "tab", "nameless", "empty"].map(|f| format!("  - apply: {{ cluster: cluster1, file: fixtures/{f}.yaml }}\n")).concat(), call("expect: { only: v1 }"))))]
#[case::splits(expect(&["split: { v1: 75%, v2: 20% }", "split: { v1: 100% }", "split: { v1: 100%, v2: 0% }", "split: {}"]))]
#[case::lists(expect(&["reached: []", "never: [v1, v1]", "endpoints_in: {}"]))]
#[case::too_few_calls(with_steps("", &[call("calls: 10, expect: { only: v2 }"), call("calls: 100, detect: 5%, expect: { split: { v1: 75%, v2: 25% } }"), call("detect: 0%, expect: { only: v1 }"), call("detect: 0.001%, expect: { split: { v1: 50%, v2: 50% } }")].concat()))]
#[case::contradictions_of_versions(expect(&["only: v2, never: [v2]", "only: v1, reached: [v1, v2]", "only: v1, split: { v1: 50%, v2: 50% }", "reached: [v1], split: { v1: 50%, v2: 50% }", "only: v1, endpoints_in: { v2: cluster2.pods }"]))]
#[case::contradictions_of_outcomes(expect(&["refused: true, status: 200, only: v1", "resolves: false, latency: 1s, captured: true", "captured: false, endpoints_in: cluster1.pods, mtls: true", "status: 503, only: v1", "status: 42", "latency: 5s"]))]
#[case::nothing_expected(expect(&[""]))]
#[case::caller_without_a_sidecar(expect(&["only: v1, endpoints_in: cluster1.pods, captured: true, mtls: true"]).replace("from: sleep@", "from: outside@"))]
#[case::identity_without_mutual_tls(with_steps("mtls: disabled", &call("expect: { mtls: true }")))]
#[case::bad_urls(with_steps("", &["helloworld.app1:5000/hello", "ftp://h/", "http://{cluster2}/x", "http://a b/", ""].map(|to| format!("  - call: {{ from: sleep@cluster1, to: \"{to}\", expect: {{ status: 200 }} }}\n")).concat()))]
#[case::already_without_a_change(with_steps("", &call("already: true, timeout: 0s, expect: { only: v1 }")))]
#[case::workloads_twice(expect(&["only: v1"]).replace(WORKLOADS, &format!("{WORKLOADS}  - sleep: {{ cluster: cluster1, namespace: Other }}\n  - helloworld: {{ version: v1, cluster: cluster1, replicas: 3 }}\n  - helloworld: {{ version: v 3, cluster: cluster1 }}\n")))]
#[case::scales(with_steps("", &format!("  - scale: {{ version: v2, cluster: cluster1, replicas: 0 }}\n  - scale: {{ version: v1, cluster: cluster1, replicas: -1 }}\n{}", call("expect: { only: v1 }"))))]
#[case::scale_of_what_is_not_there(with_steps("", &format!("  - scale: {{ version: v2, cluster: cluster1, replicas: 0 }}\n{}", call("expect: { only: v1 }"))))]
#[case::blind_to_nothing_known(expect(&["only: v1"]) + "blind: { istiod-dwn: it goes on, istiod-down: ' ', masquerade: callers are told by certificate }\n")]
#[case::call_options(with_steps("", &[call("method: GET, body: x, expect: { status: 200 }"), call("within: 0s, warm_up: 1000001, resolve: 'http://a', expect: { status: 200 }"), call("headers: { 'a b': c }, resolve: '{v9.pod}:80', expect: { status: 200 }"), call("resolve: '{cluster1.gateway}', expect: { status: 200 }").replace("helloworld.app1:5000", "{v3@cluster7.pod}:5000")].concat()))]
#[case::statuses(expect(&["status: []", "status: [200, 42]", "status: { 200: 70, 42: 20 }", "status: { 200: 100% }", "status: [200, 503], only: v1", "status: { 404: 50, 503: 50 }, reached: [v1, v2]"]))]
#[case::splits_by_something_else(expect(&["split: { cluster1: 50%, cluster2: 50% }", "split: { by: cluster, cluster1: 50%, cluster3: 50% }", "split: { by: instance }", "split: { by: instance, instances: 1, x: 5% }", "split: { instances: 2, v1: 50, v2: 50 }", "split: { by: cluster, cluster1: 50%, cluster2: 50% }, clusters: [cluster1, cluster2]"]))]
#[case::stickiness(with_steps("", &[call("expect: { sticky: { by: header } }"), call("headers: { u: '{n}' }, expect: { sticky: { by: cookie } }"), call("expect: { sticky: { by: source }, reached: [v1, v2] }"), call("calls: 200, expect: { sticky: { by: cookie } }")].concat()))]
#[case::mirrors(expect(&["mirrored_to: v3", "mirrored_to: {}", "mirrored_to: [v1, v4]", "mirrored_to: { v1: 0%, v2: 100% }"]))]
#[case::reply_headers(expect(&["headers: {}", "headers: { 'a b': c }", "headers: { a: '' }", "headers: { a: b }, refused: true"]))]
#[case::numbers_of_attempts(expect(&["attempts: {}", "attempts: { at_least: 3, at_most: 2 }", "attempts: { at_least: 0 }"]))]
#[case::latencies(with_steps("", &[call("expect: { latency: {} }"), call("expect: { latency: { at_least: 2s, within: 1s } }"), call("expect: { latency: { p50: 2s, p99: 1s } }"), call("expect: { latency: { p99: 5s } }"), call("calls: 500, expect: { latency: { p99: 1s } }")].concat()))]
#[case::wrong_types_of_expectations(with_steps("", &[call("method: GTE, expect: { status: 200 }"), call("expect: { split: { by: planet, v1: 50%, v2: 50% } }"), call("expect: { sticky: { by: moon } }"), call("expect: { latency: { p42: 5s } }"), call("expect: { mirrored_to: { v2: 101% } }"), call("expect: { headers: { a: [b] } }"), call("expect: { attempts: -1 }"), call("expect: { attempts: { most: 1 } }"), call("expect: { status: { 200: many } }"), call("expect: { status: [ok] }")].concat()))]
#[case::traces(with_steps("tracing: zipkin", &[call("expect: { traced: { clusters: [] } }"), call("expect: { traced: { clusters: [cluster2, cluster2] } }"), call("expect: { traced: { clusters: [cluster1, cluster3] } }")].concat()))]
#[case::traces_of_a_mesh_without_a_collector(expect(&["traced: { clusters: [cluster1, cluster2] }"]))]
#[case::sources_and_networks(expect(&["source_in: cluster2.gateway", "source_in: cluster3.pods", "network: nowhere", "trust_domain: nowhere.example"]))]
#[case::counters(expect(&["metrics: []", "metrics: [client, client]", "metrics: [server], mirrored_to: v2"]))]
#[case::tokens(with_steps("", &[call("token: { issuer: a, claims: { exp: 5 } }, expect: { status: 401 }"), call("headers: { authorization: x }, token: { issuer: a }, expect: { status: 401 }")].concat()))]
#[case::protocols(with_steps("", &[
    call("server_first: true, http2: true, method: GET, expect: { status: 200 }"),
    call("method: GET, server_first: true, expect: { latency: 1s }").replace("http://helloworld.app1:5000/hello", "grpc://echo.app1:7070"),
    call("headers: { a: b }, expect: { mtls: true, latency: 1s, headers: { a: true } }").replace("http://helloworld.app1:5000/hello", "tcp://echo.app1:9090"),
    call("expect: { sticky: { by: cookie }, headers: { a: true } }").replace("http://helloworld.app1:5000/hello", "ws://echo.app1/"),
    call("expect: { status: 200 }").replace("http://helloworld.app1:5000/hello", "tcp://echo.app1:9090/path"),
    call("expect: { status: 200 }").replace("http://helloworld.app1:5000/hello", "tcp://echo.app1:9090").replace("from: sleep", "from: helloworld-v1"),
].concat()))]
fn mistakes_are_reported_all_at_once_with_their_places(#[case] scenario: String) {
    let name = std::thread::current().name().and_then(|n| n.rsplit("::").next()).unwrap().to_owned();
    let problems = problems_of(&scenario);
    assert!(!problems.is_empty(), "accepted:\n{scenario}");
    // the catalogue of faults grows on its own
    let filters = vec![("known faults: [a-z-]+(, [a-z-]+)+", "known faults: [all]")];
    insta::with_settings!({ description => scenario, omit_expression => true, filters => filters }, {
        insta::assert_snapshot!(name, problems);
    });
}

#[test]
fn a_sound_scenario_of_echo_servers_has_no_problems() {
    let to = |url: &str, rest: &str| call(rest).replace("http://helloworld.app1:5000/hello", url);
    let scenario = with_steps(
        "",
        &[
            to(
                "grpc://echo.app1:7070",
                "headers: { u: '{n}' }, expect: { sticky: { by: header }, mtls: true, latency: 1s }",
            ),
            to(
                "tcp://echo.app1:9091",
                "server_first: true, expect: { split: { by: cluster, cluster1: 50%, cluster2: 50% } }",
            ),
            to("http://echo.app1:8085/", "http2: true, expect: { reached: [v1, v2], endpoints_in: cluster1.pods }"),
            to("ws://echo.app1:8080/", "expect: { clusters: [cluster1, cluster2] }")
                .replace("from: sleep", "from: echo-v1"),
        ]
        .concat(),
    );
    assert_eq!(problems_of(&scenario.replace("helloworld:", "echo:")), "");
}

#[test]
fn more_calls_than_are_ever_made_are_refused_in_their_place() {
    let problems = problems_of(&with_steps("", &call("calls: 1000001, expect: { only: v1 }")));
    assert!(problems.starts_with("scenarios/x.yaml:11:83: 1000001 calls are too many"), "{problems}");
    assert!(problems.contains("expected at most 1000000"), "{problems}");
}

#[test]
fn a_mistake_is_underlined_in_its_file() {
    let source = crate::source::Source::new("scenarios/x.yaml", expect(&["only: v2, never: [v2]"]));
    let scenario = crate::source::parse(&source).unwrap();
    let loaded = LoadedScenario { scenario, source, project: repository().into() };
    let (problems, _) = check(&loaded, None, &crate::fault::names());
    let report = problems.into_iter().next().unwrap().report();
    let mut text = String::new();
    let theme = miette::GraphicalTheme::unicode_nocolor();
    miette::GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        .render_report(&mut text, report.as_ref())
        .unwrap();
    insta::assert_snapshot!(text);
}

#[test]
fn a_split_over_pods_behind_a_gateway_is_refused() {
    let twice = "version: v2, replicas: 2, cluster: cluster2";
    let split = "split: { by: instance, instances: 3 }";
    let scenario = expect(&[split]).replace("version: v2, cluster: cluster2", twice);
    assert_eq!(problems_of(&scenario), "", "on one network");
    let gateways = "multi-primary-multi-network";
    let root = tempfile::tempdir().unwrap();
    for folder in [format!("kind-configs/{gateways}"), "fixtures/routing".into()] {
        std::fs::create_dir_all(root.path().join(&folder)).unwrap();
        for file in std::fs::read_dir(repository().join(&folder)).unwrap().flatten() {
            std::fs::copy(file.path(), root.path().join(&folder).join(file.file_name())).unwrap();
        }
    }
    let text = repository().join("scenarios").join(gateways).join("across_gateways.yaml");
    let text = std::fs::read_to_string(text)
        .unwrap()
        .replace("reached: [v1, v2], endpoints_in", &format!("{split}, endpoints_in"));
    let path = root.path().join("scenarios/x.yaml");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &text).unwrap();
    let refused = |path: &Path| open(path).err().map(|problems| problems.to_string()).unwrap_or_default();
    assert_eq!(refused(&path), "", "one pod behind the gateway");
    std::fs::write(&path, text.replace("version: v2, cluster: cluster2", twice)).unwrap();
    let refused = refused(&path);
    assert!(refused.contains("2 pods are behind the gateway of network2"), "{refused}");
}
