use rstest::rstest;

use super::*;
use crate::stats::{DETECT, PRESENCE_MISS, SPLIT_MISS};

fn expect(yaml: &str) -> Expect {
    serde_saphyr::from_str(yaml).unwrap()
}

#[rstest]
#[case("reached: [v1, v2]", 132..=132)]
#[case("only: v2", 132..=132)]
#[case("{}", 132..=132)]
#[case("resolves: false", 1..=1)]
#[case("{ resolves: true, only: v1 }", 132..=132)]
#[case("split: { v1: 50%, v2: 50% }", 1500..=1700)]
#[case("split: { v1: 75%, v2: 25% }", 1200..=1400)]
#[case("split: { v1: 25%, v2: 75% }", 1200..=1400)]
#[case("split: { v1: 100%, v2: 0% }", 132..=132)]
fn calls_needed_to_detect_a_tenth(#[case] yaml: &str, #[case] calls: std::ops::RangeInclusive<u32>) {
    let expect = expect(yaml);
    let needed = expect.calls_needed(DETECT);
    assert!(calls.contains(&needed), "{needed}");
    let miss = if expect.get::<Split>().is_some() { SPLIT_MISS } else { PRESENCE_MISS };
    assert!(expect.power(needed, DETECT) >= 1.0 - miss, "{}", expect.power(needed, DETECT));
    if needed > 1 {
        assert!(expect.power(needed / 2, DETECT) < 1.0 - PRESENCE_MISS);
    }
}

#[test]
fn a_split_among_three_is_planned_too() {
    let expect = expect("split: { v1: 50%, v2: 30%, v3: 20% }");
    let needed = expect.calls_needed(0.2);
    assert!((300..=600).contains(&needed), "{needed}");
    assert!(expect.power(needed, 0.2) >= 1.0 - SPLIT_MISS);
}

#[test]
fn an_effect_too_small_to_show_is_said_to_be() {
    assert_eq!(expect("split: { v1: 50%, v2: 50% }").calls_needed(0.0001), u32::MAX);
}
