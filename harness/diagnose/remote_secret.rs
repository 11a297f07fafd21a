//! The remote secrets: there, pointing at the right server, with a token that is valid and may read what a control plane reads.

use futures::future::join_all;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};

use super::facts::Facts;
use super::rung::{Broken, Check, Checked, within};
use super::scene::Scene;
use super::servers::{certain_server, is_loopback, kubeconfig, read_by, secrets_by_hand, server_of, told_server};
use crate::apply::Reason;
use crate::istio::{NAMESPACE, remote_secret};
use crate::provider::Cluster;

/// What a control plane reads in another cluster (istio/istio
/// `manifests/charts/istio-control/istio-discovery/templates/reader-clusterrole.yaml`): verb, group, resource.
const RIGHTS: [(&str, &str, &str); 11] = [
    ("list", "", "namespaces"),
    ("list", "", "nodes"),
    ("list", "", "pods"),
    ("watch", "", "pods"),
    ("list", "", "services"),
    ("watch", "", "services"),
    ("list", "", "endpoints"),
    ("list", "discovery.k8s.io", "endpointslices"),
    ("watch", "discovery.k8s.io", "endpointslices"),
    ("get", "", "pods"),
    ("create", "authentication.k8s.io", "tokenreviews"),
];

/// The address to make a remote secret with.
fn proposed(cluster: &Cluster, named: Option<String>) -> String {
    let mut known = [certain_server(cluster), named, told_server(cluster)].into_iter().flatten();
    known.find(|server| !is_loopback(server)).unwrap_or_else(|| "https://ADDRESS:PORT".to_owned())
}

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let planes = scene.planes();
    // The API server that configuration is read from has a kubeconfig of its own.
    let config = |plane: &Facts| scene.question.topology.and_then(|t| t.cluster(plane.name())?.reads_config_from());
    let by_secret = |plane| read_by(scene, plane).filter(move |read| config(plane) != Some(read.name()));
    let pairs = planes.iter().flat_map(|plane| by_secret(plane).map(move |read| (*plane, read)));
    let mut parts = join_all(pairs.map(|(plane, read)| one(scene, plane, read))).await.concat();
    if parts.is_empty() {
        parts.push(Check::Unseen("no istiod reads another cluster".into()));
    }
    let command = planes.first().map(|plane| secrets_by_hand(scene, plane));
    Checked { expected: "a valid token that may read, at the right server".into(), command, parts }
}

pub(super) async fn one(scene: &Scene<'_>, plane: &Facts, read: &Facts) -> Vec<Check> {
    let (watcher, watched) = (plane.name(), read.name());
    if let Err(why) = &plane.remote_secrets {
        return vec![Check::Unseen(why.clone())];
    }
    let shown = proposed(&read.cluster, server_of(plane, watched));
    let context = scene.question.contexts.get(watched).map(|c| format!(" --context {c}")).unwrap_or_default();
    let broken = |expected: String, observed: String| {
        let create = format!(
            "istioctl create-remote-secret --kubeconfig {}{context} --name {watched} --server {shown}",
            read.cluster.kubeconfig.display()
        );
        Check::from(Broken {
            expected,
            observed,
            command: secrets_by_hand(scene, plane),
            fix: format!("{create} | {}", scene.kubectl(&plane.cluster, "apply -f -")),
        })
    };
    let label = "label istio/multiCluster=true";
    let config = match kubeconfig(plane, watched) {
        None => {
            let expected =
                format!("secret {} in {NAMESPACE} of {watcher}, with the {label}", remote_secret::name(watched));
            let secrets = plane.remote_secrets.as_ref().map_or(0, Vec::len);
            return vec![broken(
                expected,
                format!("no secret with that label is for {watched} ({secrets} for other clusters)"),
            )];
        }
        Some(Err(why)) => return vec![broken(format!("a kubeconfig of {watched} in its remote secret"), why)],
        Some(Ok(config)) => config,
    };
    let endpoint = config.clusters.into_iter().map(|c| c.cluster).next().unwrap_or_default();
    if is_loopback(&endpoint.server) {
        let expected = format!("the remote secret of {watched} names {shown}");
        return vec![broken(expected, format!("it names {}, which is istiod's own pod", endpoint.server))];
    }
    let same = |right: &String| right.trim_end_matches('/') == endpoint.server.trim_end_matches('/');
    if let Some(right) = certain_server(&read.cluster).filter(|right| !same(right)) {
        let expected = format!("the remote secret of {watched} names {right}");
        return vec![broken(expected, format!("it names {}", endpoint.server))];
    }
    let token = config.users.into_iter().find_map(|u| u.user.token).filter(|token| !token.is_empty());
    let (Some(token), None) = (token, read.silent()) else {
        let why = read.silent().unwrap_or("the remote secret has no token: its user cannot be checked");
        return vec![Check::Unseen(why.to_owned())];
    };
    // The secrets of several control planes for one cluster often have one token.
    let reviewed = scene.live.reviewed(watched, &token).await;
    let user = reviewed.get_or_init(|| async {
        match review(read, token).await? {
            Err(refused) => Ok(Err(refused)),
            Ok(user) => Ok(Ok(rights(scene, read, user).await)),
        }
    });
    let (ca, user) = tokio::join!(authority(read, endpoint.certificate_authority_data.as_deref()), user);
    let mut parts = Vec::new();
    parts.extend(ca.err().map(|observed| broken(format!("the remote secret trusts the CA of {watched}"), observed)));
    match user.clone() {
        Err(why) => parts.push(Check::Unseen(why)),
        Ok(Err(refused)) => parts.push(broken(format!("a token that {watched} accepts"), refused)),
        Ok(Ok(rights)) => parts.push(rights),
    }
    parts
}

/// Compares the CA in the secret with that of the cluster, which every namespace has.
async fn authority(read: &Facts, encoded: Option<&str>) -> Result<(), String> {
    let Some(encoded) = encoded else { return Ok(()) };
    let maps: Api<ConfigMap> = Api::namespaced(read.cluster.client.clone(), NAMESPACE);
    let Ok(Some(map)) = within("kube-root-ca.crt", maps.get_opt("kube-root-ca.crt")).await else { return Ok(()) };
    let Some(own) = map.data.and_then(|mut data| data.remove("ca.crt")) else { return Ok(()) };
    let decoded: Result<k8s_openapi::ByteString, _> = serde_json::from_value(encoded.into());
    let same = decoded.is_ok_and(|bytes| String::from_utf8_lossy(&bytes.0).trim() == own.trim());
    if same { Ok(()) } else { Err("it has another CA: istiod cannot verify the API server's certificate".into()) }
}

/// Asks the API server whose token it is; the inner error is its refusal.
async fn review(read: &Facts, token: String) -> Result<Result<UserInfo, String>, String> {
    let spec = TokenReviewSpec { token, ..TokenReviewSpec::default() };
    let review = TokenReview { spec, ..TokenReview::default() };
    let api: Api<TokenReview> = Api::all(read.cluster.client.clone());
    let params = PostParams::default();
    let answer = within(format!("a review of the token by {}", read.name()), async {
        api.create(&params, &review).await.map_err(|e| Reason(&e).to_string())
    });
    let status = answer.await?.status.unwrap_or_default();
    Ok(match status.user.filter(|_| status.authenticated == Some(true)) {
        Some(user) => Ok(user),
        None => {
            let why =
                status.error.filter(|e| !e.is_empty()).unwrap_or_else(|| "it does not accept the token".to_owned());
            Err(format!("{} refuses it (401): {why}", read.name()))
        }
    })
}

/// Asks the API server what the token's user may do.
async fn rights(scene: &Scene<'_>, read: &Facts, user: UserInfo) -> Check {
    let name = user.username.clone().unwrap_or_default();
    let asked = join_all(RIGHTS.map(|(verb, group, resource)| may(read, &user, verb, group, resource))).await;
    let mut refused = Vec::new();
    for ((verb, _, resource), answer) in RIGHTS.iter().zip(asked) {
        match answer {
            Err(why) => return Check::Unseen(why),
            Ok(true) => {}
            Ok(false) => refused.push(format!("{verb} {resource}")),
        }
    }
    if refused.is_empty() {
        return Check::Holds(format!("{name} may read {}", read.name()));
    }
    let (verb, resource) = refused[0].split_once(' ').unwrap_or(("list", "pods"));
    Check::from(Broken {
        expected: format!("{name} may read what istiod reads in {}", read.name()),
        observed: format!("it may not (403): {}", refused.join(", ")),
        command: scene.kubectl(&read.cluster, &format!("auth can-i {verb} {resource} --as {name}")),
        fix: format!(
            "install Istio's remote profile in {} again: it creates ClusterRole istio-reader-clusterrole-{NAMESPACE} and its binding",
            read.name()
        ),
    })
}

async fn may(read: &Facts, user: &UserInfo, verb: &str, group: &str, resource: &str) -> Result<bool, String> {
    let attributes = ResourceAttributes {
        verb: Some(verb.into()),
        group: Some(group.into()),
        resource: Some(resource.into()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: user.username.clone(),
        groups: user.groups.clone(),
        uid: user.uid.clone(),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let api: Api<SubjectAccessReview> = Api::all(read.cluster.client.clone());
    let params = PostParams::default();
    let answer = within(format!("a review of rights by {}", read.name()), async {
        api.create(&params, &review).await.map_err(|e| Reason(&e).to_string())
    });
    Ok(answer.await?.status.is_some_and(|s| s.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::served_by;
    use crate::provider::{Access, kind, through_api_server};
    use rstest::rstest;

    #[rstest]
    #[case::kind(kind::access(), "https://172.18.0.3:6443", Some("https://172.18.0.3:6443"), "https://172.18.0.3:6443")]
    #[case::existing(through_api_server(), "https://gate.example.org", None, "https://10.0.0.9:6443")]
    #[case::not_told(through_api_server(), "", None, "https://10.0.0.9:6443")]
    #[tokio::test]
    async fn only_clusters_that_were_made_here_have_a_certain_address(
        #[case] access: std::sync::Arc<dyn Access>,
        #[case] given: &str,
        #[case] certain: Option<&str>,
        #[case] shown: &str,
    ) {
        let cluster = Cluster { access, peer_api_server: given.into(), ..served_by("cluster2", axum::Router::new()) };
        assert_eq!(certain_server(&cluster).as_deref(), certain);
        assert_eq!(proposed(&cluster, Some("https://10.0.0.9:6443".into())), shown);
        let fallback = if given.is_empty() { "https://ADDRESS:PORT" } else { given };
        assert_eq!(proposed(&cluster, Some("https://127.0.0.1:6443".into())), fallback);
    }
}
