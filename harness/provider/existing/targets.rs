//! The contexts that were given, in the kubeconfig files that kubectl would read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};
use kube::{Client, Config};

use super::netns_environment;
use crate::journal::External;
use crate::provider::ProviderError;
use crate::topology::Topology;

/// How long an API server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// What the user gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// A context for each cluster of the topology.
    pub contexts: BTreeMap<String, String>,
    /// The kubeconfig; none: where kubectl looks (`KUBECONFIG`, then `~/.kube/config`).
    pub kubeconfig: Option<PathBuf>,
}

/// One cluster of the user's.
#[derive(Debug, Clone)]
pub(super) struct ClusterContext {
    /// Its name in the topology.
    pub(super) cluster: String,
    /// The context that was given for it.
    pub(super) context: String,
    /// The kubeconfig that has its context.
    pub(super) file: PathBuf,
    /// The netns environment that it is part of.
    pub(super) netns: Option<PathBuf>,
    endpoint: Cluster,
    user: AuthInfo,
}

impl Given {
    /// The clusters of `topology`, in its order.
    ///
    /// # Errors
    /// All that is missing or too much, at once.
    pub(super) fn targets(&self, topology: &Topology) -> Result<Vec<ClusterContext>, ProviderError> {
        let files = self.read()?;
        let mut problems = self.misfits(topology);
        let mut targets = Vec::new();
        for spec in &topology.clusters {
            let Some(context) = self.contexts.get(&spec.name) else { continue };
            match find(&files, &spec.name, context) {
                Ok(target) => targets.push(target),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            return Ok(targets);
        }
        let hint = format!(
            "each cluster of the topology {} needs `--context CLUSTER=CONTEXT`; `kubectl config get-contexts` lists the contexts",
            topology.name
        );
        Err(ProviderError::Refused { what: problems.join("\n"), hint })
    }

    /// All clusters that were given, whatever topology they are of.
    ///
    /// # Errors
    /// All contexts that are not there, at once.
    pub(super) fn all(&self) -> Result<Vec<ClusterContext>, ProviderError> {
        let files = self.read()?;
        let found = self.contexts.iter().map(|(cluster, context)| find(&files, cluster, context));
        let (found, missing): (Vec<_>, Vec<_>) = found.partition(Result::is_ok);
        if missing.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        let what: Vec<String> = missing.into_iter().filter_map(Result::err).collect();
        let hint = "`kubectl config get-contexts` lists the contexts".to_owned();
        Err(ProviderError::Refused { what: what.join("\n"), hint })
    }

    /// Contexts for clusters that the topology does not have, and clusters without a context.
    fn misfits(&self, topology: &Topology) -> Vec<String> {
        let names: Vec<&str> = topology.clusters.iter().map(|c| c.name.as_str()).collect();
        let unknown = self.contexts.keys().filter(|name| !names.contains(&name.as_str()));
        let unknown = unknown.map(|name| {
            format!("`{name}` is not a cluster of the topology {} (clusters: {})", topology.name, names.join(", "))
        });
        let missing = names.iter().filter(|name| !self.contexts.contains_key(**name));
        unknown.chain(missing.map(|name| format!("no context is given for {name}"))).collect()
    }

    /// Whether all of the contexts are clusters of netns environments of this machine.
    ///
    /// # Errors
    /// When some are and some are not: they cannot run the same images.
    pub fn on_netns(&self) -> Result<bool, ProviderError> {
        if self.contexts.is_empty() {
            return Ok(false);
        }
        let files = self.read()?;
        // A missing context is reported when the topology is known.
        let found = self.contexts.iter().filter_map(|(cluster, context)| find(&files, cluster, context).ok());
        let (ours, others): (Vec<ClusterContext>, Vec<ClusterContext>) =
            found.partition(|target| target.netns.is_some());
        match (ours.first(), others.first()) {
            (Some(ours), Some(other)) => Err(ProviderError::Refused {
                what: format!(
                    "{} is part of a netns environment on this machine and {} is not: no image runs in both",
                    ours.cluster, other.cluster
                ),
                hint: "use contexts of one kind".into(),
            }),
            (ours, _) => Ok(ours.is_some()),
        }
    }

    fn read(&self) -> Result<Vec<(PathBuf, Kubeconfig)>, ProviderError> {
        if let Some(path) = &self.kubeconfig {
            return Ok(vec![(path.clone(), read(path)?)]);
        }
        let paths = kubectls();
        let present = paths.iter().filter(|path| path.is_file());
        let read = present.map(|path| Ok((path.clone(), read(path)?))).collect::<Result<Vec<_>, ProviderError>>()?;
        if read.is_empty() {
            let looked: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
            return Err(ProviderError::Refused {
                what: format!("no kubeconfig found (tried {})", looked.join(", ")),
                hint: "use `--kubeconfig FILE`, or set KUBECONFIG".into(),
            });
        }
        Ok(read)
    }

    /// What identifies these clusters: for fingerprints.
    pub fn identity(&self) -> String {
        let files = self.read().unwrap_or_default();
        let each = self.contexts.iter().map(|(cluster, context)| {
            let server = find(&files, cluster, context).map(|target| target.server()).unwrap_or_default();
            format!("{cluster}={context}@{server}")
        });
        each.collect::<Vec<_>>().join(" ")
    }
}

/// Where kubectl looks.
fn kubectls() -> Vec<PathBuf> {
    match std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
        Some(value) => std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => vec![PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".kube/config")],
    }
}

fn read(path: &Path) -> Result<Kubeconfig, ProviderError> {
    // Its own relative paths count from its folder.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Kubeconfig::read_from(absolute).map_err(|e| ProviderError::Refused {
        what: format!("cannot read the kubeconfig {}: {e}", path.display()),
        hint: format!("`kubectl --kubeconfig {} config view` shows what kubectl reads", path.display()),
    })
}

/// The context's cluster and user, each from the first file that has it, as kubectl merges files. The problem in words when
/// one is missing.
fn find(files: &[(PathBuf, Kubeconfig)], cluster: &str, context: &str) -> Result<ClusterContext, String> {
    let contexts = || files.iter().flat_map(|(path, file)| file.contexts.iter().map(move |c| (path, c)));
    let Some((path, found)) = contexts().find(|(_, c)| c.name == context) else {
        let known: Vec<&str> = contexts().map(|(_, c)| c.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let of = if cluster == context { String::new() } else { format!(" for {cluster}") };
        return Err(format!("no context `{context}`{of} (known: {known})"));
    };
    let empty = |what: &str| format!("context `{context}` for {cluster} refers to no {what} in {}", path.display());
    let inner = found.context.as_ref().ok_or_else(|| empty("cluster"))?;
    let mut clusters = files.iter().flat_map(|(_, file)| &file.clusters);
    let endpoint = clusters.find(|c| c.name == inner.cluster).and_then(|c| c.cluster.clone());
    let mut users = files.iter().flat_map(|(_, file)| &file.auth_infos);
    let user = users.find(|u| Some(&u.name) == inner.user.as_ref()).and_then(|u| u.auth_info.clone());
    Ok(ClusterContext {
        cluster: cluster.to_owned(),
        context: context.to_owned(),
        file: path.clone(),
        netns: netns_environment(path),
        endpoint: endpoint.ok_or_else(|| empty("cluster"))?,
        user: user.unwrap_or_default(),
    })
}

/// The cluster behind a context of one kubeconfig.
pub(super) fn target(cluster: &str, external: &External) -> Result<ClusterContext, ProviderError> {
    let files = [(external.kubeconfig.clone(), read(&external.kubeconfig)?)];
    find(&files, cluster, &external.context)
        .map_err(|what| ProviderError::Refused { what, hint: format!("check {}", files[0].0.display()) })
}

impl ClusterContext {
    /// The API server's URL, as the kubeconfig says it.
    pub(super) fn server(&self) -> String {
        self.endpoint.server.clone().unwrap_or_default()
    }

    fn config(&self) -> Kubeconfig {
        let name = &self.cluster;
        let context = Context { cluster: name.clone(), user: Some(name.clone()), ..Context::default() };
        Kubeconfig {
            clusters: vec![NamedCluster { name: name.clone(), cluster: Some(self.endpoint.clone()), ..<_>::default() }],
            auth_infos: vec![NamedAuthInfo {
                name: name.clone(),
                auth_info: Some(self.user.clone()),
                ..<_>::default()
            }],
            contexts: vec![NamedContext { name: name.clone(), context: Some(context), ..<_>::default() }],
            current_context: Some(name.clone()),
            ..Kubeconfig::default()
        }
    }

    /// A kubeconfig with this cluster alone, whose one context has the cluster's name. (JSON is YAML.)
    pub(super) fn kubeconfig(&self) -> Result<Vec<u8>, ProviderError> {
        serde_json::to_vec_pretty(&self.config()).map_err(|e| ProviderError::Io {
            what: format!("cannot write a kubeconfig for {}", self.cluster),
            source: e.into(),
        })
    }

    /// A client.
    pub(super) async fn client(&self) -> Result<Client, ProviderError> {
        let refused = |why: String| ProviderError::Refused {
            what: format!("cluster {}: the kubeconfig cannot be used to connect: {why}", self.cluster),
            hint: format!("run: kubectl --context {} version", self.context),
        };
        let config = Config::from_custom_kubeconfig(self.config(), &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|e| refused(e.to_string()))?;
        config.connect_timeout = Some(CONNECT);
        Client::try_from(config).map_err(|e| refused(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "
clusters: [{ name: c, cluster: { server: 'https://one:6443', certificate-authority: ca.crt } }]
contexts: [{ name: same, context: { cluster: c, user: u } }, { name: broken, context: { cluster: nowhere, user: u } }]
";
    const TWO: &str = "
clusters: [{ name: c, cluster: { server: 'https://two:6443' } }]
contexts: [{ name: same, context: { cluster: c, user: u } }, { name: other, context: { cluster: c, user: u } }]
users: [{ name: u, user: { token: t } }]
";

    fn files() -> (tempfile::TempDir, Vec<(PathBuf, Kubeconfig)>) {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let config = read(&path).unwrap();
            (path, config)
        };
        let files = vec![file("one", ONE), file("two", TWO)];
        (folder, files)
    }

    #[test]
    fn as_kubectl_does_the_first_file_wins_for_each_part() {
        let (folder, files) = files();
        let target = find(&files, "cluster1", "same").unwrap();
        assert_eq!((target.server().as_str(), target.file), ("https://one:6443", folder.path().join("one")));
        assert_eq!(target.netns, None);
        assert!(target.user.token.is_some(), "the user is in the second file");
        let ca = target.endpoint.certificate_authority.unwrap();
        assert_eq!(Path::new(&ca), folder.path().join("ca.crt"), "paths count from the file's folder");
    }

    #[test]
    fn a_context_that_is_not_there_lists_those_that_are() {
        let (_folder, files) = files();
        let known = find(&files, "cluster1", "nope").unwrap_err();
        assert_eq!(known, "no context `nope` for cluster1 (known: same, broken, same, other)");
        let broken = find(&files, "cluster1", "broken").unwrap_err();
        assert!(broken.starts_with("context `broken` for cluster1 refers to no cluster in "), "{broken}");
    }

    #[test]
    fn the_copy_for_an_environment_leads_to_the_same_cluster_under_its_own_name() {
        let (folder, files) = files();
        let copy = folder.path().join("cluster1.kubeconfig");
        std::fs::write(&copy, find(&files, "cluster1", "same").unwrap().kubeconfig().unwrap()).unwrap();
        let external = External { kubeconfig: copy, context: "cluster1".into() };
        let again = target("cluster1", &external).unwrap();
        assert_eq!(again.server(), "https://one:6443");
        assert!(again.user.token.is_some());
    }
}
