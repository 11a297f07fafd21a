//! What can be known to be wrong with expectations before anything runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::source::{EndpointsOf, Located, Problem, Source, known};

/// The mistakes of a file so far, and the names that it may use.
pub struct Mistakes {
    /// The file.
    pub source: Arc<Source>,
    /// The topology and its clusters; `None`: not known, so no name is refused.
    pub clusters: Option<(String, Vec<String>)>,
    /// The clusters that have an east-west gateway; `None`: not known.
    pub gateways: Option<Vec<String>>,
    /// The networks of the topology; `None`: not known.
    pub networks: Option<BTreeSet<String>>,
    /// The trust domains of the topology's meshes; `None`: not known.
    pub trust_domains: Option<BTreeSet<String>>,
    /// Every version that some workload answers with.
    pub versions: BTreeSet<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl Mistakes {
    /// Something is wrong with a value.
    pub fn wrong<T>(&mut self, value: &Located<T>, what: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::with(&self.source, value, what).help(help));
    }

    /// `first` and `second` cannot both be written.
    pub fn conflict<T, U>(&mut self, first: &Located<T>, second: &Located<U>, what: impl Into<String>, help: &str) {
        self.problems.push(Problem::with(&self.source, second, what).also(first, "and this").help(help));
    }

    /// Whether the topology has a cluster of that name.
    pub fn is_cluster(&self, name: &str) -> bool {
        self.clusters.as_ref().is_some_and(|(_, clusters)| clusters.iter().any(|cluster| cluster == name))
    }

    /// A cluster's name that is the value, or a part of it.
    pub fn cluster<T>(&mut self, value: &Located<T>, name: &str) {
        let Some((topology, clusters)) = &self.clusters else { return };
        if !clusters.iter().any(|cluster| cluster == name) {
            let help = known(name, "clusters", clusters.iter().map(String::as_str));
            let help = format!("{help} (topology {topology})");
            self.wrong(value, format!("unknown cluster `{name}`"), help);
        }
    }

    /// A place of endpoints that is the value, or a part of it.
    pub fn endpoints<T>(&mut self, value: &Located<T>, place: &EndpointsOf) {
        self.cluster(value, place.cluster());
        if let (EndpointsOf::Gateway(cluster), Some(gateways)) = (place, &self.gateways)
            && !gateways.contains(cluster)
            && self.clusters.as_ref().is_none_or(|(_, clusters)| clusters.contains(cluster))
        {
            let help = match gateways.as_slice() {
                [] => "no cluster of this topology has one: expected CLUSTER.pods".to_owned(),
                some => format!("clusters with a gateway: {}", some.join(", ")),
            };
            self.wrong(value, format!("`{cluster}` has no east-west gateway"), help);
        }
    }

    /// A version's name that is the value, or a part of it.
    pub fn version<T>(&mut self, value: &Located<T>, name: &str) {
        if !self.versions.contains(name) {
            let help = known(name, "versions", self.versions.iter().map(String::as_str));
            self.wrong(value, format!("no workload has version `{name}`"), help);
        }
    }
}

/// The names that there are, if `name` is none of them and all are known.
pub(super) fn unlisted(names: &Option<BTreeSet<String>>, what: &str, name: &str) -> Option<String> {
    let names = names.as_ref().filter(|names| !names.contains(name))?;
    Some(known(name, what, names.iter().map(String::as_str)))
}

/// What calls speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, with or without TLS. curl sends it; the rest is for the client of Istio's echo server, which opens a connection for
    /// every call.
    #[default]
    Http,
    /// HTTP/2, with or without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// WebSocket.
    WebSocket,
    /// One message on a connection.
    Tcp,
}

impl Protocol {
    /// That of calls to a URL; `http2`: whether HTTP is to be HTTP/2.
    pub fn of(url: &str, http2: bool) -> Self {
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("grpc") => Self::Grpc,
            Some("ws") => Self::WebSocket,
            Some("tcp") => Self::Tcp,
            _ if http2 => Self::Http2,
            _ => Self::Http,
        }
    }

    /// In a sentence: `a gRPC call`.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Http => "an HTTP request",
            Self::Http2 => "an HTTP/2 request",
            Self::Grpc => "a gRPC call",
            Self::WebSocket => "a WebSocket call",
            Self::Tcp => "a TCP call",
        }
    }
}

/// What a call's other fields say.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whether the caller has a sidecar.
    pub sidecar: bool,
    /// The cluster it is in.
    pub cluster: String,
    /// Whether the mesh uses mutual TLS at all.
    pub mutual_tls: bool,
    /// Whether the mesh sends traces to a collector.
    pub traced: bool,
    /// The longest that one request may take.
    pub timeout: Duration,
    /// The number of calls, where it is written.
    pub calls: Option<Located<u32>>,
    /// The smallest deviation that must not go unnoticed, as a share of the calls, and where it is written.
    pub detect: Located<f64>,
    /// What the calls speak.
    pub protocol: Protocol,
    /// Whether a header holds the number of the user that calls ([`super::USER`]).
    pub headers_vary: bool,
}

/// An expectation as the others of its call see it.
pub(super) struct Peer<'a> {
    /// Its key.
    pub key: &'static str,
    /// Its place.
    pub place: Located<()>,
    /// Whether it is about replies: it cannot hold where none comes.
    pub about_replies: bool,
    /// The versions that are to answer, each of them and no other; `None`: it does not say.
    pub answering: Option<Vec<&'a str>>,
    /// Whether it needs the caller's proxy: its log, or its identity.
    pub needs_caller_proxy: bool,
}

/// The check of one expectation.
pub(super) struct Check<'a> {
    /// Its place.
    pub place: Located<()>,
    /// All expectations of the call.
    pub peers: &'a [Peer<'a>],
    /// The call.
    pub caller: &'a Caller,
    /// What is wrong so far.
    pub mistakes: &'a mut Mistakes,
}

impl<'a> Check<'a> {
    /// Something is wrong with the expectation as a whole.
    pub fn wrong(&mut self, what: impl Into<String>, help: impl Into<String>) {
        self.mistakes.wrong(&self.place, what, help);
    }

    /// The versions that are to answer, and the expectation that says so.
    pub fn answering(&self) -> Option<(Vec<&'a str>, Located<()>)> {
        self.peers.iter().find_map(|peer| Some((peer.answering.clone()?, peer.place.clone())))
    }

    /// A list of clusters: not empty, each known, none twice.
    pub fn clusters(&mut self, key: &str, list: &[Located<String>]) {
        self.listed(key, list, "cluster", "[cluster1, cluster2]", Mistakes::cluster);
    }

    /// A list of versions: not empty, each known, none twice.
    pub fn versions(&mut self, key: &str, list: &[Located<String>]) {
        self.listed(key, list, "version", "[v1, v2]", Mistakes::version);
    }

    fn listed(
        &mut self,
        key: &str,
        list: &[Located<String>],
        what: &str,
        such: &str,
        is_known: fn(&mut Mistakes, &Located<String>, &str),
    ) {
        if list.is_empty() {
            self.wrong(format!("`{key}` names no {what}"), format!("expected a list such as {such}"));
        }
        let mut first: BTreeMap<&str, &Located<String>> = BTreeMap::new();
        for name in list {
            is_known(self.mistakes, name, name);
            if let Some(first) = first.get(name.as_str()) {
                let twice = format!("{what} `{}` is listed twice", name.value);
                self.mistakes.conflict(first, name, twice, "remove one");
            }
            first.entry(name.as_str()).or_insert(name);
        }
    }
}
