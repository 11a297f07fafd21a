//! "Did you mean …?"

/// The name among `known` that `typed` was most likely meant to be.
pub fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&typed.to_lowercase(), &name.to_lowercase());
    let best = known.into_iter().map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance)?;
    // a third of the word may be wrong: `wieghts` for `weights`, but not `delay` for `retry`
    (best.0 <= typed.chars().count() / 3).then_some(best.1)
}

/// A hint that names the likely alternative, and all of them: ``did you mean `vpn`? known topologies: vpn, vpn3``.
pub fn known<'a>(typed: &str, what: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return format!("there are no {what}");
    }
    let list = format!("known {what}: {}", names.join(", "));
    match did_you_mean(typed, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? {list}"),
        None => list,
    }
}

/// Words of the files that had another name before: what it is, the former name, the name now.
const RENAMED: &[(&str, &str, &str)] = &[("step", "mend", "clear")];

/// What `typed` is and how it is called now, if it is the former name of one of `known`.
pub(super) fn renamed(typed: &str, known: &[&str]) -> Option<(&'static str, &'static str)> {
    let mut renamed = RENAMED.iter().filter(|(_, old, new)| *old == typed && known.contains(new));
    renamed.next().map(|(what, _, new)| (*what, *new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::transposed("wieghts", Some("weights"))]
    #[case::wrong_case("CLUSTER1", Some("cluster1"))]
    #[case::one_letter("cluter1", Some("cluster1"))]
    #[case::too_short_to_tell("r1", None)]
    #[case::unlike("expectation", None)]
    fn the_nearest_name_is_offered_only_when_it_is_near(#[case] typed: &str, #[case] expected: Option<&str>) {
        assert_eq!(did_you_mean(typed, ["weights", "cluster1", "retry"]), expected);
    }

    #[rstest]
    #[case::known_here("mend", &["call", "clear"], Some(("step", "clear")))]
    #[case::not_known_here("mend", &["call"], None)]
    #[case::never_renamed("clean", &["call", "clear"], None)]
    fn a_former_name_leads_to_the_new_one(
        #[case] typed: &str,
        #[case] known: &[&str],
        #[case] expected: Option<(&str, &str)>,
    ) {
        assert_eq!(renamed(typed, known), expected);
    }

    #[test]
    fn every_alternative_is_listed() {
        assert_eq!(known("vpm", "topologies", ["vpn", "vpn3"]), "did you mean `vpn`? known topologies: vpn, vpn3");
        assert_eq!(known("x", "workloads", []), "there are no workloads");
    }
}
