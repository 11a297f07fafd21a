//! The logins that `docker login` writes to `~/.docker/config.json`.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::ByteString;
use serde::Deserialize;

use super::RegistryError;

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

/// Logins by registry.
#[derive(Clone, Default)]
pub(in crate::supply) struct Credentials(BTreeMap<String, Login>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    auths: BTreeMap<String, Entry>,
}

/// Of an entry without `auth`, the password is with a helper program, which is not asked.
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
        Ok(Self(logins))
    }

    /// The user's login at a registry.
    pub(super) fn login(&self, registry: &str) -> Login {
        self.0.get(registry).cloned().unwrap_or(Login::None)
    }
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

    #[test]
    fn logins_are_found_by_registry_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        // "me:secret", "hub:token"
        let text = r#"{"auths": {"localhost:5000": {"auth": "bWU6c2VjcmV0"}, "https://index.docker.io/v1/": {"auth": "aHViOnRva2Vu"},
            "helped.example": {}}, "credsStore": "desktop"}"#;
        std::fs::write(&path, text).unwrap();
        let credentials = Credentials::read(Some(&path)).unwrap();
        let password = |registry: &str| match credentials.login(registry) {
            Login::Password { user, password } => format!("{user} {password}"),
            _ => String::new(),
        };
        assert_eq!((password("localhost:5000"), password("docker.io")), ("me secret".into(), "hub token".into()));
        assert_eq!(password("helped.example"), "");
        assert!(!format!("{credentials:?}").contains("secret"));
        assert!(matches!(Credentials::read(Some(&folder.path().join("none"))).unwrap().login("x"), Login::None));
        std::fs::write(&path, "{").unwrap();
        assert!(Credentials::read(Some(&path)).unwrap_err().to_string().contains("config.json"));
    }
}
