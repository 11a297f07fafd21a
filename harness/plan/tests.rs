use std::path::Path;

use rstest::rstest;

use super::*;

fn plan_of(name: &str) -> View {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut plan = open(&root.join("scenarios/vpn").join(name), &crate::fault::names()).unwrap();
    // a snapshot must not know where it was made
    plan.loaded.source = crate::source::Source::new(format!("scenarios/vpn/{name}"), &plan.loaded.source.text);
    let part = |name: &str, version: &str| PartVersion { name: name.into(), version: version.into() };
    plan.view(vec![part("kubernetes", "v1.34.4"), part("istio", "1.31-dev")])
}

#[rstest]
#[case::v2_only("v2_only.yaml")]
#[case::weighted("weighted.yaml")]
#[case::header_match("header_match.yaml")]
#[case::mtls_disabled("mtls_disabled.yaml")]
#[case::remote_secret("remote_secret.yaml")]
#[case::v1_scaled_to_zero("v1_scaled_to_zero.yaml")]
#[case::stub_missing("stub_missing.yaml")]
#[case::outbound_clusters("outbound_clusters.yaml")]
fn a_plan_tells_all_that_a_run_will_do(#[case] file: &str) {
    insta::assert_snapshot!(file.trim_end_matches(".yaml"), plan_of(file));
}

#[test]
fn a_plan_can_be_read_by_programs() {
    insta::assert_json_snapshot!(plan_of("weighted.yaml"));
}

#[test]
fn certainty_is_never_claimed_by_rounding() {
    let plan = plan_of("v2_only.yaml");
    let view::StepView { action: view::ActionView::Call(call), .. } = &plan.steps[0] else { panic!("{plan:?}") };
    assert!(call.power < 1.0 && call.power > 0.999_999);
    assert!(plan.to_string().contains("with a chance of over 99.9999%"));
}
