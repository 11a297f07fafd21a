//! Who answered, by the words of the servers that say so.

use crate::expect::{Outcome, Server};

/// What of a body's first line is kept when no version is found in it.
const BODY_KEPT: usize = 200;

/// A reply, and the pod that sent it if the reply names its cluster.
///
/// `helloworld` answers `Hello version: v1, instance: helloworld-v1-78b9b5c87f-2sskq`; Istio's echo server one `KEY=VALUE` a line, with
/// `ServiceVersion`, `Hostname` and `Cluster` among them (`pkg/test/echo/fields.go` of Istio).
pub(super) fn reply(status: u16, text: &str) -> (Outcome, Option<Server>) {
    let greeting = text.lines().find_map(|line| line.strip_prefix("Hello version: "));
    if let Some((version, rest)) = greeting.and_then(|g| g.split_once(',')) {
        let instance = rest.trim().strip_prefix("instance: ").map(|i| i.trim().to_owned());
        let version = Some(version.trim().to_owned());
        return (Outcome::Reply { status, version, instance, body: None }, None);
    }
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
    if let (Some(version), Some(instance)) = (field("ServiceVersion"), field("Hostname")) {
        let server = |cluster| Server { cluster, pod: instance.clone(), version: Some(version.clone()), zone: None };
        let server = field("Cluster").map(server);
        return (Outcome::Reply { status, version: Some(version), instance: Some(instance), body: None }, server);
    }
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    let body = first.map(|line| line.chars().take(BODY_KEPT).collect());
    (Outcome::Reply { status, version: None, instance: None, body }, None)
}
