//! Values as people write them: `75%`, `10s`, `sleep@cluster1`, `cluster2.pods`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A share in hundredths: `75%`, `0.5%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// From a fraction: 0.75 is `75%`.
    pub fn from_fraction(fraction: f64) -> Self {
        Self(fraction * 100.0)
    }
    /// As a fraction: `75%` is 0.75.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
    /// In hundredths: `75%` is 75.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl FromStr for Percent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!("`{text}` is not a percentage (expected a number from 0 to 100 and a percent sign, such as 75%)")
        };
        let number = text.strip_suffix('%').ok_or_else(expected)?.trim_end();
        let value: f64 = number.parse().map_err(|_| expected())?;
        if (0.0..=100.0).contains(&value) { Ok(Self(value)) } else { Err(expected()) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A length of time: `250ms`, `10s`, `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed: Result<jiff::SignedDuration, _> = text.parse();
        let duration = parsed.ok().and_then(|d| Duration::try_from(d).ok());
        duration.map(Self).ok_or_else(|| {
            format!("`{text}` is not a length of time (expected a number and a unit, such as 250ms, 10s or 1m 30s)")
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::SignedDuration::try_from(self.0) {
            Ok(duration) => write!(f, "{duration:#}"),
            Err(_) => write!(f, "{:?}", self.0),
        }
    }
}

/// A workload in a cluster: `sleep@cluster1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadRef {
    /// The workload's name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
}

impl FromStr for WorkloadRef {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('@') {
            Some((name, cluster)) if !name.is_empty() && !cluster.is_empty() && !cluster.contains('@') => {
                Ok(Self { name: name.into(), cluster: cluster.into() })
            }
            _ => Err(format!("`{text}` does not name a workload (expected NAME@CLUSTER, such as sleep@cluster1)")),
        }
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.cluster)
    }
}

/// What a call ends at or comes from, as the proxy at the other end sees it: a pod of a cluster (`cluster2.pods`), or its east-west
/// gateway (`cluster2.gateway`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointsOf {
    /// A pod of this cluster.
    Pods(String),
    /// The east-west gateway of this cluster.
    Gateway(String),
}

impl EndpointsOf {
    /// The cluster.
    pub fn cluster(&self) -> &str {
        match self {
            Self::Pods(cluster) | Self::Gateway(cluster) => cluster,
        }
    }
}

impl FromStr for EndpointsOf {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once('.') {
            Some((cluster, "pods")) if !cluster.is_empty() => Ok(Self::Pods(cluster.into())),
            Some((cluster, "gateway")) if !cluster.is_empty() => Ok(Self::Gateway(cluster.into())),
            _ => Err(format!(
                "`{text}` is not a place of endpoints (expected CLUSTER.pods or CLUSTER.gateway, such as cluster2.pods)"
            )),
        }
    }
}

impl fmt::Display for EndpointsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(cluster) => write!(f, "{cluster}.pods"),
            Self::Gateway(cluster) => write!(f, "{cluster}.gateway"),
        }
    }
}

macro_rules! text_value {
    ($type:ty, $name:literal, $pattern:literal, $example:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

text_value!(Percent, "Percent", r"^[0-9]+(\.[0-9]+)? *%$", "75%");
text_value!(Span, "Span", r"^[0-9].*[a-z]$", "250ms");
text_value!(WorkloadRef, "WorkloadRef", r"^[^@]+@[^@]+$", "sleep@cluster1");
text_value!(EndpointsOf, "EndpointsOf", r"^.+\.(pods|gateway)$", "cluster2.pods");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn again<T: FromStr<Err = String> + fmt::Display>(value: &T) -> T {
        value.to_string().parse().unwrap_or_else(|why| panic!("{value}: {why}"))
    }

    proptest! {
        #[test]
        fn a_percentage_survives_being_written(hundredths in 0.0..=100.0_f64) {
            let percent = Percent(hundredths);
            prop_assert_eq!(again(&percent), percent);
            prop_assert!((0.0..=1.0).contains(&percent.fraction()));
        }

        #[test]
        fn a_length_of_time_survives_being_written(millis in 0..10_000_000_000_u64) {
            let span = Span(Duration::from_millis(millis));
            prop_assert_eq!(again(&span), span);
        }

        #[test]
        fn a_workload_survives_being_written(name in "[a-z][a-z0-9-]{0,20}", cluster in "[a-z][a-z0-9-]{0,20}") {
            let workload = WorkloadRef { name, cluster };
            prop_assert_eq!(again(&workload), workload);
            for place in [EndpointsOf::Pods("a.b".into()), EndpointsOf::Gateway("c".into())] {
                prop_assert_eq!(again(&place), place);
            }
        }

        /// What is accepted is in bounds, whatever was typed.
        #[test]
        fn no_text_makes_an_impossible_percentage(text in "[0-9a-zA-Z.+%-]{0,8}") {
            if let Ok(percent) = text.parse::<Percent>() {
                prop_assert!((0.0..=1.0).contains(&percent.fraction()), "{text}");
            }
        }
    }

    #[rstest]
    #[case("75%", Some(0.75))]
    #[case("0.5 %", Some(0.005))]
    #[case("100%", Some(1.0))]
    #[case("75", None)]
    #[case("-1%", None)]
    #[case("100.1%", None)]
    #[case("NaN%", None)]
    #[case("inf%", None)]
    fn percentages_are_read_as_people_write_them(#[case] text: &str, #[case] fraction: Option<f64>) {
        assert_eq!(text.parse::<Percent>().ok().map(Percent::fraction), fraction);
    }

    #[rstest]
    #[case("250ms", Some(250))]
    #[case("1m 30s", Some(90_000))]
    #[case("2s", Some(2_000))]
    #[case("5", None)]
    #[case("-2s", None)]
    #[case("soon", None)]
    fn lengths_of_time_are_read_as_people_write_them(#[case] text: &str, #[case] millis: Option<u64>) {
        assert_eq!(text.parse::<Span>().ok().map(|span| span.0), millis.map(Duration::from_millis));
    }

    #[rstest]
    #[case("sleep")]
    #[case("sleep@")]
    #[case("@cluster1")]
    #[case("a@b@c")]
    fn a_workload_needs_a_name_and_a_cluster(#[case] text: &str) {
        assert!(text.parse::<WorkloadRef>().is_err());
    }
}
