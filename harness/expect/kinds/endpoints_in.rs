//! `endpoints_in: cluster2.pods`, `endpoints_in: cluster2.gateway`

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges, gateway_of, pods_of};
use super::super::kind::{Kind, Need};
use super::super::seen::CallSeen;
use super::super::tally::{count, list, version};
use crate::source::{EndpointsOf, Located};
use crate::verdict::Class;

/// Where the endpoints are, by the caller's proxy log: one place for all calls, or one for each version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum EndpointsIn {
    /// All calls end here.
    All(EndpointsOf),
    /// Calls that this version answered end here.
    ByVersion(BTreeMap<String, Located<EndpointsOf>>),
}

impl EndpointsIn {
    /// Version (`None`: all of them) and place.
    fn parts(&self) -> Vec<(Option<&str>, &EndpointsOf)> {
        match self {
            Self::All(pods) => vec![(None, pods)],
            Self::ByVersion(map) => map.iter().map(|(v, pods)| (Some(v.as_str()), &pods.value)).collect(),
        }
    }
}

impl Kind for EndpointsIn {
    fn wording(&self, ranges: &Ranges) -> String {
        let part = |(version, place): (Option<&str>, &EndpointsOf)| {
            let of = version.map(|version| format!(" of {version}")).unwrap_or_default();
            match place {
                EndpointsOf::Pods(cluster) => format!("every reply{of} from {}", pods_of(cluster, ranges)),
                EndpointsOf::Gateway(cluster) => format!("every reply{of} through {}", gateway_of(cluster, ranges)),
            }
        };
        self.parts().into_iter().map(part).collect::<Vec<_>>().join("; ")
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let found: Vec<Judgement> =
            self.parts().into_iter().map(|(version, place)| endpoints(judge, version, place)).collect();
        Judgement {
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
            Self::All(place) => check.mistakes.endpoints(&check.place, place),
            Self::ByVersion(ranges) => {
                if ranges.is_empty() {
                    check.wrong("`endpoints_in` names no version", "expected a map such as { v2: cluster2.pods }");
                }
                let answering = check.answering();
                for (version, range) in ranges {
                    check.mistakes.version(range, version);
                    check.mistakes.endpoints(range, range);
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
fn endpoints(judge: &Judge<'_>, wanted: Option<&str>, place: &EndpointsOf) -> Judgement {
    let is_there = |endpoint: SocketAddr| match place {
        EndpointsOf::Pods(cluster) => judge.ranges.pods.get(cluster).map(|range| range.contains(&endpoint.ip())),
        EndpointsOf::Gateway(cluster) => judge.ranges.gateways.get(cluster).map(|gateway| *gateway == endpoint),
    };
    if is_there(SocketAddr::from(([0, 0, 0, 0], 0))).is_none() {
        return match place {
            EndpointsOf::Pods(cluster) => judge.unknown_range(cluster),
            EndpointsOf::Gateway(cluster) => judge.unknown_gateway(cluster),
        };
    }
    let replies = judge.replies();
    let replies: Vec<&CallSeen> =
        replies.into_iter().filter(|call| wanted.is_none() || version(call) == wanted).collect();
    let lines: Vec<_> = replies.iter().filter_map(|call| call.client_proxy.as_ref()).collect();
    let endpoints = count(lines.iter().map(|line| line.upstream.map_or("none".into(), |up| up.to_string())));
    let holds = lines.iter().all(|line| line.upstream.and_then(is_there) == Some(true));
    let found = judge.holds(holds, format!("endpoints {} by the caller's proxy", list(&endpoints)));
    judge.unless_missing(found, replies.len(), lines.len(), "caller's")
}

impl<'de> Deserialize<'de> for EndpointsIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = EndpointsIn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("CLUSTER.pods, CLUSTER.gateway, or a map from version to one of these")
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
        let range = generator.subschema_for::<EndpointsOf>();
        json_schema!({ "anyOf": [range, { "type": "object", "additionalProperties": range }] })
    }
}
