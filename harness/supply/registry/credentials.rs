//! The logins that `docker login` writes to `~/.docker/config.json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::ByteString;
use serde::Deserialize;

use super::RegistryError;
use crate::tool::Tool;

/// How long a helper program may take: some ask a key store that is locked.
const HELPER_LIMIT: Duration = Duration::from_secs(20);

/// How a request is made.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    /// By nobody in particular.
    None,
    /// With a token.
    Token(String),
    /// By a user.
    Password {
        /// Name.
        user: String,
        /// Password, or a token in its place.
        password: String,
    },
}

/// Logins by registry, and the helper programs that keep others.
#[derive(Clone, Default)]
pub(in crate::supply) struct Credentials {
    logins: BTreeMap<String, Login>,
    /// `credHelpers`: the helper that keeps a registry's login, by registry.
    helpers: BTreeMap<String, String>,
    /// `credsStore`: the helper of every other registry.
    store: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.logins.keys()).finish()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

/// Of an entry without `auth`, a helper program has the password.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<ByteString>,
}

impl Credentials {
    /// Reads the file, which need not exist.
    ///
    /// # Errors
    /// When it is not understood.
    pub(in crate::supply) fn read(path: Option<&Path>) -> Result<Self, RegistryError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let wrong = |why: String| RegistryError::Credentials { path: path.to_owned(), why };
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(|e| wrong(e.to_string()))?,
        };
        let document: Document = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        let mut logins = BTreeMap::new();
        for (registry, entry) in document.auths {
            let Some(ByteString(auth)) = entry.auth else { continue };
            let text = String::from_utf8_lossy(&auth).into_owned();
            let (user, password) = text.split_once(':').ok_or_else(|| wrong(format!("auth of {registry}: no `:`")))?;
            let login = Login::Password { user: user.to_owned(), password: password.trim_end_matches('\0').to_owned() };
            logins.insert(host(&registry).to_owned(), login);
        }
        let helpers = document.helpers.iter().map(|(registry, helper)| (host(registry).to_owned(), helper.clone()));
        Ok(Self { logins, helpers: helpers.collect(), store: document.store })
    }

    /// The user's login at a registry, from the file or from its helper program.
    pub(super) async fn login(&self, registry: &str) -> Login {
        if let (None, Some(login)) = (self.helpers.get(registry), self.logins.get(registry)) {
            return login.clone();
        }
        let Some(helper) = self.helpers.get(registry).or(self.store.as_ref()) else { return Login::None };
        match by_helper(&format!("docker-credential-{helper}"), registry).await {
            Ok(login) => login,
            Err(why) => {
                // A helper that has no login for a registry fails as one that is broken does; public images need none.
                tracing::debug!(helper, registry, why, "no login from the credential helper");
                Login::None
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    username: String,
    secret: String,
}

/// Asks a helper: `docker-credential-NAME get` (<https://github.com/docker/docker-credential-helpers>).
async fn by_helper(program: &str, registry: &str) -> Result<Login, String> {
    let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let tool = Tool::new(program).arg("get").stdin(server).prints_a_secret();
    let output = tool.timeout(HELPER_LIMIT).run().await.map_err(|e| e.to_string())?;
    let kept: Kept = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    if kept.username == "<token>" {
        return Err("an identity token, which is not supported".into());
    }
    Ok(Login::Password { user: kept.username, password: kept.secret })
}

/// The registry that an entry is for: Docker Hub's has an old name, and others may have a scheme and a path.
fn host(entry: &str) -> &str {
    let name = entry.trim_start_matches("https://").trim_start_matches("http://");
    let name = name.split('/').next().unwrap_or(name);
    if name == "index.docker.io" { "docker.io" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn logins_are_found_by_registry_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        // "me:secret", "hub:token"
        let text = r#"{"auths": {"localhost:5000": {"auth": "bWU6c2VjcmV0"}, "https://index.docker.io/v1/": {"auth": "aHViOnRva2Vu"},
            "helped.example": {}}, "credsStore": "no-such-helper"}"#;
        std::fs::write(&path, text).unwrap();
        let credentials = Credentials::read(Some(&path)).unwrap();
        let password = async |registry: &str| match credentials.login(registry).await {
            Login::Password { user, password } => format!("{user} {password}"),
            _ => String::new(),
        };
        assert_eq!(password("localhost:5000").await, "me secret");
        assert_eq!(password("docker.io").await, "hub token");
        assert_eq!(password("helped.example").await, "");
        assert!(!format!("{credentials:?}").contains("secret"));
        let none = Credentials::read(Some(&folder.path().join("none"))).unwrap();
        assert!(matches!(none.login("x").await, Login::None));
        std::fs::write(&path, "{").unwrap();
        assert!(Credentials::read(Some(&path)).unwrap_err().to_string().contains("config.json"));
    }

    #[tokio::test]
    async fn a_helper_gives_the_login_that_it_keeps() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("docker-credential-test");
        let script = "#!/bin/sh\n[ \"$1\" = get ] && read server\n[ \"$server\" = a.example ] || { echo none; exit 1; }\n\
                      echo '{\"ServerURL\":\"a.example\",\"Username\":\"me\",\"Secret\":\"hidden\"}'\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let program = program.to_str().unwrap();
        let Ok(Login::Password { user, password }) = by_helper(program, "a.example").await else { panic!("no login") };
        assert_eq!((user.as_str(), password.as_str()), ("me", "hidden"));
        assert!(by_helper(program, "b.example").await.is_err_and(|why| why.contains("none")));
    }
}
