//! `clusters: [cluster1, cluster2]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::check::Check;
use super::super::judgement::{Judge, Judgement, Ranges};
use super::super::kind::{Kind, Need};
use super::super::tally::{and, count, list};
use crate::source::Located;
use crate::verdict::Class;

/// A server in each of these clusters answers, and in no other, by the servers' proxies.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Clusters(pub Vec<Located<String>>);

impl Clusters {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|cluster| cluster.as_str()).collect()
    }
}

impl Kind for Clusters {
    fn wording(&self, _: &Ranges) -> String {
        match self.names().as_slice() {
            [one] => format!("{one} answers, and no other cluster"),
            many => format!("{} each answer, and no other cluster", and(many)),
        }
    }

    fn judge(&self, judge: &Judge<'_>) -> Judgement {
        let replies = judge.replies();
        let served: Vec<&str> =
            replies.iter().filter_map(|call| Some(call.server.as_ref()?.cluster.as_str())).collect();
        let counts = count(served.iter().copied());
        let by_replies = replies.iter().any(|call| call.server.is_some() && call.server_proxy.is_none());
        let by = if by_replies { "the replies" } else { "the servers' proxies" };
        let observed = format!("{} by {by}", list(&counts));
        let mut found = judge.each_answers("cluster", &self.names(), &counts, observed);
        let stranger = counts.keys().any(|cluster| !self.names().contains(cluster));
        if !stranger && (replies.is_empty() || served.len() < replies.len()) {
            // A cluster that seems never to answer may have written the lines that are missing.
            found.class = Class::Pass;
        }
        judge.unless_missing(found, replies.len(), served.len(), "server's")
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Server]
    }

    fn check(&self, check: &mut Check<'_>) {
        check.clusters("clusters", &self.0);
    }
}
