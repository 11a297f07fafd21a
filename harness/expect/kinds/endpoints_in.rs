//! `endpoints_in: cluster2.pods`

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::check::Check;
use super::super::judgement::{Found, Judge, Ranges, pods_of};
use super::super::kind::{Kind, Need};
use super::super::seen::CallSeen;
use super::super::tally::{count, list, version};
use crate::source::{Located, PodsOf};
use crate::verdict::Class;

/// Where endpoints lie, by the caller's proxy log: one range for all calls, or one for each version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum EndpointsIn {
    /// All calls end here.
    All(PodsOf),
    /// Calls that this version answered end here.
    ByVersion(BTreeMap<String, Located<PodsOf>>),
}

impl EndpointsIn {
    /// Version (`None`: all of them) and cluster.
    fn parts(&self) -> Vec<(Option<&str>, &str)> {
        match self {
            Self::All(pods) => vec![(None, pods.0.as_str())],
            Self::ByVersion(map) => map.iter().map(|(v, pods)| (Some(v.as_str()), pods.0.as_str())).collect(),
        }
    }
}

impl Kind for EndpointsIn {
    fn wording(&self, ranges: &Ranges) -> String {
        let part = |(version, cluster): (Option<&str>, &str)| {
            let of = version.map(|version| format!(" of {version}")).unwrap_or_default();
            format!("every reply{of} from {}", pods_of(cluster, ranges))
        };
        self.parts().into_iter().map(part).collect::<Vec<_>>().join("; ")
    }

    fn judge(&self, judge: &Judge<'_>) -> Found {
        let found: Vec<Found> =
            self.parts().into_iter().map(|(version, cluster)| endpoints(judge, version, cluster)).collect();
        Found {
            class: found.iter().map(|f| f.class).max().unwrap_or(Class::Pass),
            observed: found.iter().map(|f| f.observed.as_str()).collect::<Vec<_>>().join("; "),
            needs: found.iter().map(|f| f.needs).max().unwrap_or(0),
            split: None,
        }
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::CallerLog]
    }

    fn check(&self, check: &mut Check<'_>) {
        match self {
            Self::All(range) => check.mistakes.cluster(&check.place, &range.0),
            Self::ByVersion(ranges) => {
                if ranges.is_empty() {
                    check.wrong("`endpoints_in` names no version", "expected a map such as { v2: cluster2.pods }");
                }
                let answering = check.answering();
                for (version, range) in ranges {
                    check.mistakes.version(range, version);
                    check.mistakes.cluster(range, &range.0);
                    if let Some((answering, place)) = &answering
                        && !answering.contains(&version.as_str())
                        && check.mistakes.versions.contains(version)
                    {
                        let what = format!("`{version}` has an endpoint here, but is not expected to answer");
                        check.mistakes.conflict(place, range, what, "remove the version here, or expect it");
                    }
                }
            }
        }
    }
}

/// The endpoints of the calls that `wanted` answered (all replies if `None`), by the caller's proxy.
fn endpoints(judge: &Judge<'_>, wanted: Option<&str>, cluster: &str) -> Found {
    let Some(range) = judge.ranges.get(cluster) else { return judge.unknown_range(cluster) };
    let replies = judge.replies();
    let replies: Vec<&CallSeen> =
        replies.into_iter().filter(|call| wanted.is_none() || version(call) == wanted).collect();
    let lines: Vec<_> = replies.iter().filter_map(|call| call.client_proxy.as_ref()).collect();
    let endpoints = count(lines.iter().map(|line| line.upstream.map_or("none".into(), |up| up.to_string())));
    let holds = lines.iter().all(|line| line.upstream.is_some_and(|up| range.contains(&up.ip())));
    let found = judge.holds(holds, format!("endpoints {} by the caller's proxy", list(&endpoints)));
    judge.unless_missing(found, replies.len(), lines.len(), "caller's")
}

impl<'de> Deserialize<'de> for EndpointsIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = EndpointsIn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("CLUSTER.pods, or a map from version to CLUSTER.pods")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<EndpointsIn, E> {
                text.parse().map(EndpointsIn::All).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EndpointsIn, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(EndpointsIn::ByVersion)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for EndpointsIn {
    fn schema_name() -> Cow<'static, str> {
        "EndpointsIn".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let range = generator.subschema_for::<PodsOf>();
        json_schema!({ "anyOf": [range, { "type": "object", "additionalProperties": range }] })
    }
}
