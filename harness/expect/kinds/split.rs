//! `split: { v1: 75%, v2: 25% }`, `split: { by: cluster, cluster1: 50%, cluster2: 50% }`, `split: { by: instance, instances: 3 }`

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::check::{Check, Peer};
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};
use super::super::shares::{self, Share};
use super::super::tally::{count, instances, list_others, plural, version, versions};
use crate::source::Located;
use crate::verdict::Class;

/// What the replies are grouped by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum By {
    /// The version in the reply.
    #[default]
    Version,
    /// The cluster of the pod that answered.
    Cluster,
    /// The zone of its node.
    Zone,
    /// The pod that answered.
    Instance,
}

/// The shares of the replies, by version or by what `by` says; they add up to 100%.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Split {
    /// What the replies are grouped by (default: version).
    #[serde(default)]
    pub by: Located<By>,
    /// With `by: instance`: how many pods answer, each with the same share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Located<u32>>,
    /// The share of each.
    #[serde(flatten)]
    pub shares: BTreeMap<String, Located<Share>>,
}

/// More pods than this cannot be distinguished by a reasonable number of calls.
const MAX_INSTANCES: u32 = 20;

impl Split {
    fn fractions(&self) -> Vec<f64> {
        match &self.instances {
            Some(n) => vec![1.0 / f64::from(n.value.max(1)); n.value as usize],
            None => shares::fractions(&self.shares),
        }
    }

    /// The shares of the versions, as fractions; empty where the split is by something else.
    pub fn versions(&self) -> BTreeMap<String, f64> {
        let of_versions = self.shares.iter().filter(|_| self.by.value == By::Version);
        of_versions.map(|(version, share)| (version.clone(), share.fraction())).collect()
    }

    /// By the logs of the servers' proxies.
    fn judge_servers(&self, judge: &Judge<'_>) -> Judgement {
        let replies = judge.replies();
        let place: Vec<Option<String>> = match self.by.value {
            By::Instance => instances(&replies),
            By::Zone => replies.iter().map(|call| call.server.as_ref()?.zone.clone()).collect(),
            _ => replies.iter().map(|call| Some(call.server.as_ref()?.cluster.clone())).collect(),
        };
        let counts = count(place.iter().flatten().cloned());
        let expected: BTreeMap<String, f64> = match &self.instances {
            // Whichever they are; one that never answers has no name.
            Some(n) => {
                let silent = (0..).map(|i| format!("(no other pod {i})"));
                let names = counts.keys().cloned().chain(silent).take(n.value as usize);
                names.map(|name| (name, 1.0 / f64::from(n.value))).collect()
            }
            None => self.shares.iter().map(|(name, share)| (name.clone(), share.fraction())).collect(),
        };
        let mut found = shares::judge(judge, &expected, &counts, &[]);
        let missing = place.iter().filter(|place| place.is_none()).count();
        let stranger = counts.keys().any(|name| !expected.contains_key(name));
        if missing > 0 && !stranger {
            found.class = Class::Inconclusive;
            let what = if self.by.value == By::Zone { "zone" } else { "line in a server's proxy's log" };
            found.observed =
                format!("{}; no {what} for {missing} of {}", found.observed, plural(replies.len(), "reply"));
        }
        found
    }
}

/// Written out: serde loses the positions of what it flattens.
impl<'de> Deserialize<'de> for Split {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Split;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from version to share, such as { v1: 75%, v2: 25% }")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Split, A::Error> {
                let mut split = Split::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "by" => split.by = map.next_value()?,
                        "instances" => split.instances = Some(map.next_value()?),
                        _ => drop(split.shares.insert(key, map.next_value()?)),
                    }
                }
                Ok(split)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Kind for Split {
    fn wording(&self, _: &Ranges) -> String {
        match (&self.instances, self.by.value) {
            (Some(n), _) => format!("{} answer, with equal shares", plural(n.value as usize, "pod")),
            (None, By::Zone) => format!("by zone: {}", shares::in_words(&self.shares)),
            (None, _) => shares::in_words(&self.shares),
        }
    }

    /// Judges the shares among the replies; calls that no version answered are counted apart.
    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        if self.by.value != By::Version {
            return self.judge_servers(judge);
        }
        let counts = versions(judge.seen).into_iter().map(|(version, count)| (version.to_owned(), count)).collect();
        shares::judge(judge, &self.versions(), &counts, &list_others(judge.seen, |call| version(call).is_some()))
    }

    fn needs(&self) -> &'static [Need] {
        match self.by.value {
            By::Version => &[],
            By::Zone => &[Need::Server, Need::Zones],
            By::Cluster | By::Instance => &[Need::Server],
        }
    }

    fn calls_needed(&self, detect: f64) -> u32 {
        shares::calls_needed(&self.fractions(), detect)
    }

    fn power(&self, calls: u32, detect: f64) -> f64 {
        shares::power(&self.fractions(), calls, detect)
    }

    fn answering(&self) -> Option<Vec<&str>> {
        (self.by.value == By::Version).then(|| self.shares.keys().map(String::as_str).collect())
    }

    fn excludes(&self, other: &Peer<'_>) -> Option<&'static str> {
        (self.by.value == By::Cluster && other.key == "clusters")
            .then_some("`split` already says which clusters answer: each that has a share, and no other")
    }

    fn check(&self, check: &mut Check<'_>) {
        match (&self.instances, self.by.value) {
            (Some(n), By::Instance) => {
                if !(2..=MAX_INSTANCES).contains(&n.value) {
                    let help = format!("expected a number from 2 to {MAX_INSTANCES}");
                    check.mistakes.wrong(
                        n,
                        format!("a split among {} is no split", plural(n.value as usize, "pod")),
                        help,
                    );
                }
                if let Some((name, share)) = self.shares.first_key_value() {
                    let help = "pods have random names: `instances` says how many answer, with equal shares";
                    check.mistakes.wrong(share, format!("`{name}` has a share in a split by instance"), help);
                }
                return;
            }
            (None, By::Instance) => {
                let help = "expected the number of pods, such as { by: instance, instances: 3 }";
                return check.wrong("a split by instance needs `instances`", help);
            }
            (Some(n), _) => {
                check.mistakes.wrong(n, "`instances` without `by: instance`", "add `by: instance`, or remove it")
            }
            (None, _) => {}
        }
        for (name, share) in &self.shares {
            match self.by.value {
                By::Cluster => check.mistakes.cluster(share, name),
                By::Version if !check.mistakes.versions.contains(name) && check.mistakes.is_cluster(name) => {
                    let what = format!("no workload has version `{name}`");
                    check.mistakes.wrong(share, what, "for a split by cluster, add `by: cluster`");
                }
                By::Version => check.mistakes.version(share, name),
                By::Zone | By::Instance => {}
            }
        }
        let (things, example) = match self.by.value {
            By::Cluster => ("clusters", "{ by: cluster, cluster1: 75%, cluster2: 25% }"),
            By::Zone => ("zones", "{ by: zone, zone1: 75%, zone2: 25% }"),
            _ => ("versions", "{ v1: 75%, v2: 25% }"),
        };
        shares::check(check, things, example, &self.shares);
    }
}
