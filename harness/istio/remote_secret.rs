//! The remote secret: how a control plane gets to read another cluster's services and endpoints.
//!
//! In the cluster that is read, a token of the account `istio-reader-service-account`; in the cluster of the control plane,
//! a kubeconfig with that token in a secret labelled `istio/multiCluster=true`. The same objects as those that
//! `istioctl create-remote-secret` makes, without starting it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use serde_json::json;

use super::{MeshError, NAMESPACE};
use crate::apply::{self, Manifest};
use crate::provider::Cluster;
use crate::wait::{self, Poll};

/// The account of those who read a cluster.
const READER: &str = "istio-reader-service-account";
/// The account of an external control plane in the cluster that its configuration is in.
const ISTIOD: &str = "istiod";
/// The secret, in an external control plane's own cluster, with the kubeconfig of the cluster that its configuration is in.
pub const KUBECONFIG: &str = "istio-kubeconfig";

/// What an account's token secret holds once Kubernetes has filled it.
struct ReaderToken {
    ca: String,
    token: String,
}

/// The name of the secret by which a control plane reads `watched`.
pub fn name(watched: &str) -> String {
    format!("istio-remote-secret-{watched}")
}

/// The name of the secret that holds an account's token.
fn token_name(account: &str) -> String {
    format!("{account}-istio-remote-secret-token")
}

/// The secret in the cluster that is read, for Kubernetes to fill with a token of that account.
fn token_request(account: &str) -> Result<Manifest, MeshError> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": token_name(account),
            "namespace": NAMESPACE,
            "annotations": { "kubernetes.io/service-account.name": account },
        },
        "type": "kubernetes.io/service-account-token",
    });
    Ok(Manifest::made("token of the reader's account", secret)?)
}

async fn token(watched: &Cluster, account: &str) -> Result<ReaderToken, MeshError> {
    let api: Api<Secret> = Api::namespaced(watched.client.clone(), NAMESPACE);
    let (name, what) =
        (&token_name(account), format!("the token of {NAMESPACE}/{account} in cluster {}", watched.name));
    let token = wait::until(what, Duration::from_secs(60), Duration::from_millis(50), || async {
        match api.get_opt(name).await {
            Ok(Some(secret)) => match filled(secret.data.unwrap_or_default()) {
                Some(token) => Poll::Ready(token),
                None => Poll::NotYet(format!("secret {name} has no `token` and `ca.crt` yet")),
            },
            Ok(None) => Poll::NotYet(format!("secret {name}")),
            Err(source) => Poll::Failed(MeshError::kube(watched, "read the reader's token", source)),
        }
    });
    Ok(token.await?)
}

fn filled(mut data: BTreeMap<String, ByteString>) -> Option<ReaderToken> {
    let ca = data.remove("ca.crt")?;
    let token = data.remove("token").filter(|t| !t.0.is_empty())?;
    Some(ReaderToken { ca: encoded(&ca)?, token: String::from_utf8(token.0).ok()? })
}

/// Base64, as Kubernetes itself writes bytes.
fn encoded(bytes: &ByteString) -> Option<String> {
    serde_json::to_value(bytes).ok()?.as_str().map(str::to_owned)
}

fn kubeconfig(watched: &str, server: &str, reader: &ReaderToken) -> ByteString {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": watched, "cluster": { "certificate-authority-data": reader.ca, "server": server } }],
        "contexts": [{ "name": watched, "context": { "cluster": watched, "user": watched } }],
        "current-context": watched,
        "preferences": {},
        "users": [{ "name": watched, "user": { "token": reader.token } }],
    });
    // JSON is YAML.
    ByteString(kubeconfig.to_string().into_bytes())
}

fn secret(watched: &str, server: &str, reader: &ReaderToken) -> Result<Manifest, MeshError> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name(watched),
            "namespace": NAMESPACE,
            "labels": { "istio/multiCluster": "true" },
            "annotations": { "networking.istio.io/cluster": watched },
        },
        "data": { watched: kubeconfig(watched, server, reader) },
    });
    Ok(Manifest::made("remote secret", secret)?)
}

/// Lets the external control plane in `istiod` read its configuration from `config`, and write there what istiod writes. As
/// `istioctl create-remote-secret --type=config --service-account istiod`. It must be there before istiod starts.
///
/// # Errors
/// [`MeshError`] when Kubernetes makes no token or a cluster does not answer.
pub async fn configuration(istiod: &Cluster, config: &Cluster, owner: &str) -> Result<(), MeshError> {
    apply::apply(config, &[token_request(ISTIOD)?], Some(owner)).await?;
    let token = token(config, ISTIOD).await?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": KUBECONFIG, "namespace": NAMESPACE },
        "data": { "config": kubeconfig(&config.name, &config.peer_api_server, &token) },
    });
    apply::apply(istiod, &[Manifest::made("kubeconfig of the config cluster", secret)?], Some(owner)).await?;
    Ok(())
}

/// Lets the control plane in `watcher` read `watched`: at installation, and to clear what [`remove`] or [`flawed`] broke. The
/// namespace, annotated with the cluster whose istiod serves it, and the reader's account must be in `watched` already: istiod reads
/// them once. `owner` is the environment's identifier.
///
/// # Errors
/// [`MeshError`] when Kubernetes makes no token or a cluster does not answer.
pub async fn restore(watcher: &Cluster, watched: &Cluster, owner: &str) -> Result<(), MeshError> {
    write(watcher, watched, owner, None).await
}

/// What can be wrong with a remote secret that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its token is not the account's: the API server answers 401, as it does to an expired one.
    Token,
    /// Its server is the loopback address, as in a kubeconfig that was created on a node for the host.
    Server,
}

/// As [`restore`], but with one thing wrong. An istiod that read the cluster before keeps what it read until it has
/// synced again: [`remove`] comes first.
///
/// # Errors
/// As [`restore`].
pub async fn flawed(watcher: &Cluster, watched: &Cluster, owner: &str, flaw: Flaw) -> Result<(), MeshError> {
    write(watcher, watched, owner, Some(flaw)).await
}

async fn write(watcher: &Cluster, watched: &Cluster, owner: &str, flaw: Option<Flaw>) -> Result<(), MeshError> {
    apply::apply(watched, &[token_request(READER)?], Some(owner)).await?;
    let mut reader = token(watched, READER).await?;
    let mut server = watched.peer_api_server.clone();
    match flaw {
        None => {}
        Some(Flaw::Token) => reader.token = forged(&reader.token),
        Some(Flaw::Server) => server = "https://127.0.0.1:6443".to_owned(),
    }
    apply::apply(watcher, &[secret(&watched.name, &server, &reader)?], Some(owner)).await?;
    Ok(())
}

/// The same claims with an invalid signature.
fn forged(token: &str) -> String {
    let claims = token.rsplit_once('.').map_or(token, |(claims, _)| claims);
    format!("{claims}.meshproof")
}

/// Takes away the secret by which the control plane in `watcher` reads the cluster `watched`: its endpoints leave every proxy.
///
/// # Errors
/// [`MeshError`] when the cluster does not answer.
pub async fn remove(watcher: &Cluster, watched: &str) -> Result<(), MeshError> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name(watched), "namespace": NAMESPACE },
    });
    apply::delete(watcher, &[Manifest::made("remote secret", secret)?]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_what_istiod_looks_for() {
        let reader = ReaderToken { ca: "Q0E=".into(), token: "a.b.c".into() };
        let secret = secret("cluster2", "https://172.18.0.4:6443", &reader).unwrap();
        let mut object = secret.object;
        let data: BTreeMap<String, ByteString> = serde_json::from_value(object.data["data"].take()).unwrap();
        insta::assert_json_snapshot!(object);
        let kubeconfig: serde_json::Value = serde_json::from_slice(&data["cluster2"].0).unwrap();
        insta::assert_json_snapshot!("kubeconfig", kubeconfig);
    }

    #[test]
    fn a_forged_token_claims_the_same() {
        assert_eq!(forged("head.claims.signature"), "head.claims.meshproof");
    }

    #[test]
    fn a_token_that_is_not_filled_yet_is_not_taken() {
        let data = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()))).collect()
        };
        assert!(filled(data(&[])).is_none());
        assert!(filled(data(&[("ca.crt", "CA"), ("token", "")])).is_none());
        let token = filled(data(&[("ca.crt", "CA"), ("token", "a.b.c")])).unwrap();
        assert_eq!((token.ca.as_str(), token.token.as_str()), ("Q0E=", "a.b.c"));
    }
}
