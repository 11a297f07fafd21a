//! A cluster that was not made here, by a context of a kubeconfig: enough to look at it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::access::Access;
use super::{Cluster, ProviderError};

/// The cluster that `context` leads to, under the name that `name` gives it. It is not asked anything.
///
/// Nobody says where its pods and services get their addresses, nor at which address other clusters reach its API server:
/// the ranges are "anywhere", the address is empty, and it has no nodes.
///
/// # Errors
/// When there is no such kubeconfig or context.
pub async fn cluster(name: &str, kubeconfig: Option<&Path>, context: &str) -> Result<Cluster, ProviderError> {
    let path = kubeconfig.map_or_else(kubectls, Path::to_owned);
    let refused = |why: String| ProviderError::Refused {
        what: format!("cluster {name} cannot be reached by context {context} of {}: {why}", path.display()),
        hint: "`kubectl config get-contexts` lists what there is".to_owned(),
    };
    let read = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let read = read.map_err(|e| refused(e.to_string()))?;
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(read, &options).await.map_err(|e| refused(e.to_string()))?;
    config.connect_timeout = Some(Duration::from_secs(3));
    let client = Client::try_from(config).map_err(|e| refused(e.to_string()))?;
    let anywhere = IpNet::V4(Ipv4Net::default());
    Ok(Cluster {
        name: name.to_owned(),
        client,
        kubeconfig: path,
        peer_api_server: String::new(),
        pods: anywhere,
        services: anywhere,
        nodes: Vec::new(),
        access: Access::Existing,
    })
}

/// Where kubectl looks. (Several files in `KUBECONFIG` are read together; commands name the first.)
fn kubectls() -> PathBuf {
    let named = std::env::var_os("KUBECONFIG").and_then(|paths| std::env::split_paths(&paths).next());
    named.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".kube/config"))
}
