//! The topology as SVG: clusters under each other (so that it fits a phone), routes between them, and for a call who
//! called whom with what share. Calls run down the corridor between caller and answers, where no text is.

use std::collections::BTreeSet;

use maud::{Markup, html};

use crate::report::{Answer, CallsReport, ClusterReport, TopologyReport};
use crate::stats::percent;

const WIDTH: f64 = 400.0;
const GAP: f64 = 44.0;
const HEAD: f64 = 78.0;
const ROW: f64 = 46.0;
const PILL: f64 = 38.0;
const CALLER: (f64, f64) = (14.0, 128.0);
/// Where a route between neighbours is drawn: beside the corridor.
const ROUTE: f64 = 216.0;
/// Room at the right edge for each step that a route goes around clusters in between.
const BYPASS: f64 = 16.0;
const ANSWER: (f64, f64) = (194.0, 192.0);

/// The colour of the n-th version.
pub(super) fn colour(n: usize) -> &'static str {
    ["--v0", "--v1", "--v2", "--v3"].get(n % 4).copied().unwrap_or("--v0")
}

/// Where a cluster is drawn.
struct Placed<'a> {
    cluster: &'a ClusterReport,
    top: f64,
    height: f64,
    answers: Vec<&'a Answer>,
}

/// The clusters and routes, and the calls of one step.
pub(super) fn topology(topology: &TopologyReport, calls: Option<&CallsReport>) -> Markup {
    let placed = place(topology, calls);
    let below = placed.last().map_or(0.0, |last| last.top + last.height);
    let nowhere: Vec<&Answer> =
        calls.iter().flat_map(|calls| &calls.answers).filter(|a| !at_home(topology, a)).collect();
    let height = below + nowhere.len() as f64 * ROW + if nowhere.is_empty() { 1.0 } else { 12.0 };
    let width = WIDTH + BYPASS * (topology.clusters.len().max(2) - 2) as f64;
    let label = format!("topology {}: {}", topology.name, names(topology).join(", "));
    let calls = calls.map(|calls| Drawn::new(calls, &placed, &nowhere, below));
    html! {
        svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(label) {
            @for one in &placed {
                rect.cluster x="1" y=(one.top) width=(WIDTH - 2.0) height=(one.height) rx="8" {}
            }
            // Edges cross clusters' texts, so they lie below them.
            @if let Some(calls) = &calls { (calls.edges()) }
            @for one in &placed { (cluster(one)) }
            (routes(topology, &placed))
            @if let Some(calls) = &calls { (calls.ends()) }
        }
    }
}

fn names(topology: &TopologyReport) -> Vec<&str> {
    topology.clusters.iter().map(|cluster| cluster.name.as_str()).collect()
}

fn at_home(topology: &TopologyReport, answer: &Answer) -> bool {
    answer.cluster.as_ref().is_some_and(|home| topology.clusters.iter().any(|cluster| &cluster.name == home))
}

fn place<'a>(topology: &'a TopologyReport, calls: Option<&'a CallsReport>) -> Vec<Placed<'a>> {
    let mut top = 1.0;
    let one = |cluster: &'a ClusterReport| {
        let answers: Vec<&Answer> = calls
            .iter()
            .flat_map(|calls| &calls.answers)
            .filter(|a| a.cluster.as_ref() == Some(&cluster.name))
            .collect();
        let calls_from_here = calls.is_some_and(|calls| calls.cluster == cluster.name);
        let rows = answers.len().max(usize::from(calls_from_here));
        let placed = Placed { cluster, top, height: HEAD + rows as f64 * ROW, answers };
        top += placed.height + GAP;
        placed
    };
    topology.clusters.iter().map(one).collect()
}

fn cluster(placed: &Placed<'_>) -> Markup {
    let Placed { cluster, top, .. } = placed;
    let role = if cluster.name == cluster.control_plane {
        "control plane".to_owned()
    } else {
        format!("served by the istiod in {}", cluster.control_plane)
    };
    let nodes = if cluster.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", cluster.nodes) };
    html! {
        text.strong x="14" y=(top + 22.0) { (cluster.name) }
        text.small x=(WIDTH - 14.0) y=(top + 22.0) text-anchor="end" { (role) }
        text.small x="14" y=(top + 42.0) { "pods " (cluster.pods) }
        text.small x=(WIDTH - 14.0) y=(top + 42.0) text-anchor="end" { "network " (cluster.network) @if cluster.gateway { ", gateway" } ", " (nodes) }
        text.small x="14" y=(top + 60.0) { "services " (cluster.services) }
    }
}

/// Routes between neighbours are drawn in the gap, others around the right edge.
fn routes(topology: &TopologyReport, placed: &[Placed<'_>]) -> Markup {
    let goes = |a: &Placed<'_>, b: &Placed<'_>| {
        topology.routes.iter().any(|(from, to)| *from == a.cluster.name && *to == b.cluster.name)
    };
    let pairs = (0..placed.len()).flat_map(|i| (i + 1..placed.len()).map(move |j| (i, j)));
    html! {
        @for (i, j) in pairs {
            @let (a, b) = (&placed[i], &placed[j]);
            @match (goes(a, b), goes(b, a)) {
                (false, false) if j == i + 1 && a.cluster.network != b.cluster.network => (through_gateways(a.top + a.height, b.top)),
                (false, false) => {},
                (down, up) if j == i + 1 => (between(a.top + a.height, b.top, down, up)),
                (down, up) => (around(a.top + 16.0, b.top + 16.0, BYPASS * (j - i - 1) as f64, down, up)),
            }
        }
    }
}

/// Neighbours on two networks.
fn through_gateways(from: f64, to: f64) -> Markup {
    html! { text.small x=(ROUTE + 12.0) y=((from + to) / 2.0 + 4.0) { "pods reach each other through gateways only" } }
}

fn between(from: f64, to: f64, down: bool, up: bool) -> Markup {
    let words = match (down, up) {
        (true, true) => "pods reach each other",
        (true, false) => "pods reach down only",
        _ => "pods reach up only",
    };
    html! {
        path.route d=(format!("M{ROUTE} {from} V{to}")) {}
        @if down { path.head d=(format!("M{} {} h10 l-5 8 z", ROUTE - 5.0, to - 8.0)) {} }
        @if up { path.head d=(format!("M{} {} h10 l-5 -8 z", ROUTE - 5.0, from + 8.0)) {} }
        text.small x=(ROUTE + 12.0) y=((from + to) / 2.0 + 4.0) { (words) }
    }
}

fn around(from: f64, to: f64, out: f64, down: bool, up: bool) -> Markup {
    let edge = WIDTH - 1.0;
    html! {
        path.route d=(format!("M{edge} {from} h{} V{to} H{edge}", out - 4.0)) {}
        @if down { path.head d=(format!("M{} {} v10 l-8 -5 z", edge + 8.0, to - 5.0)) {} }
        @if up { path.head d=(format!("M{} {} v10 l-8 -5 z", edge + 8.0, from - 5.0)) {} }
    }
}

/// The caller, who answered, and an edge to each, as wide as its share.
struct Drawn<'a> {
    calls: &'a CallsReport,
    /// The top of the caller's box.
    top: f64,
    /// Each answer, the top of its box, and its colour.
    answers: Vec<(f64, &'a Answer, &'static str)>,
}

impl<'a> Drawn<'a> {
    fn new(calls: &'a CallsReport, placed: &[Placed<'a>], nowhere: &[&'a Answer], below: f64) -> Self {
        let home = placed.iter().find(|one| one.cluster.name == calls.cluster);
        let rows = |top: f64| move |(row, answer): (usize, &&'a Answer)| (top + row as f64 * ROW, *answer);
        let mut answers: Vec<(f64, &Answer)> = Vec::new();
        for one in placed {
            answers.extend(one.answers.iter().enumerate().map(rows(one.top + HEAD)));
        }
        let versions: BTreeSet<&str> = answers.iter().map(|(_, answer)| answer.who.as_str()).collect();
        answers.extend(nowhere.iter().enumerate().map(rows(below + 12.0)));
        let paint = |a: &Answer| versions.iter().position(|version| *version == a.who).map_or("--none", colour);
        Self {
            calls,
            top: home.map_or(0.0, |one| one.top + HEAD),
            answers: answers.into_iter().map(|(top, answer)| (top, answer, paint(answer))).collect(),
        }
    }

    fn share(&self, answer: &Answer) -> f64 {
        answer.count as f64 / self.calls.calls.max(1) as f64
    }

    fn edges(&self) -> Markup {
        let (x, y) = (CALLER.0 + CALLER.1, self.top + PILL / 2.0);
        let path = |top: f64| {
            let (to_x, to_y) = (ANSWER.0, top + PILL / 2.0);
            format!("M{x} {y} C{} {y} {} {to_y} {to_x} {to_y}", x + 34.0, to_x - 34.0)
        };
        let line = |answer: &Answer, paint: &str| {
            format!("stroke:var({paint});stroke-width:{:.1}", 1.5 + 7.0 * self.share(answer))
        };
        html! {
            @for (top, answer, paint) in &self.answers { path.edge style=(line(answer, paint)) d=(path(*top)) {} }
        }
    }

    fn ends(&self) -> Markup {
        let CallsReport { from, calls, .. } = self.calls;
        let name = from.split('@').next().unwrap_or(from);
        let (x, right) = (ANSWER.0 + 10.0, ANSWER.0 + ANSWER.1 - 10.0);
        html! {
            rect.pill x=(CALLER.0) y=(self.top) width=(CALLER.1) height=(PILL) rx="8" {}
            text.strong x=(CALLER.0 + 10.0) y=(self.top + 16.0) { (name) }
            text.small x=(CALLER.0 + 10.0) y=(self.top + 31.0) { (calls) @if *calls == 1 { " call" } @else { " calls" } }
            @for (top, answer, paint) in &self.answers {
                rect.pill style=(format!("stroke:var({paint})"))
                    x=(ANSWER.0) y=(top) width=(ANSWER.1) height=(PILL) rx="8" {}
                text.strong x=(x) y=(top + 16.0) { (answer.who) }
                text.small x=(x) y=(top + 31.0) { (answer.endpoint.as_deref().unwrap_or("no endpoint known")) }
                text.strong x=(right) y=(top + 16.0) text-anchor="end" { (percent((self.share(answer) * 1e3).round() / 1e3)) }
                text.small x=(right) y=(top + 31.0) text-anchor="end" {
                    (answer.count) @if answer.count == 1 { " call" } @else { " calls" }
                }
            }
        }
    }
}
