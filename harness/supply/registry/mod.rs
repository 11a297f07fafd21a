//! Images from container registries, with no container engine: the OCI distribution protocol as far
//! as pulling needs it (<https://github.com/opencontainers/distribution-spec>).
//!
//! Whatever comes is checked against the digest that was asked for: by `versions.yaml` for the
//! manifest, by the manifest for everything else. Plain HTTP is spoken with loopback only.
//!
//! The crate `oci-client` (0.18) was tried in its place. It knows mirrors as hosts only, not as addresses with a path,
//! sets no limit on the size of what a registry sends, and asks a token server over plain HTTP; and it adds 26 crates,
//! six of them procedural macros and a second SHA-2, for the 250 lines here.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::io::AsyncWriteExt;

use super::image::{ImageRef, is_digest};

mod credentials;
pub(super) mod layers;
pub(super) mod pull;
#[cfg(test)]
mod server_tests;

pub(super) use credentials::Credentials;
use credentials::Login;

/// Why an image could not be had.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// No TLS, no root certificates.
    #[error(
        "cannot create the registry client: {0} (hint: are the system's root certificates installed? Debian: ca-certificates)"
    )]
    Client(String),
    /// A registry, mirror or token server that is not spoken to.
    #[error("{url}: plain http is for loopback only (expected https://…)")]
    Insecure {
        /// What was to be asked.
        url: String,
    },
    /// A mirror that is none.
    #[error("mirror of {registry}: {mirror:?} is not an address such as https://mirror.example")]
    Mirror {
        /// The registry.
        registry: String,
        /// What was given.
        mirror: String,
    },
    /// No answer, or one that broke off.
    #[error("{url} does not respond: {why}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What happened.
        why: String,
    },
    /// An answer that is no success.
    #[error("{image}: {url} responded {status}{hint}")]
    Refused {
        /// The image.
        image: String,
        /// What was asked.
        url: String,
        /// The answer.
        status: StatusCode,
        /// What may help.
        hint: &'static str,
    },
    /// The content is not what its digest says.
    #[error("{image}: {what} has digest {got}, expected {expected}, and is not used")]
    Digest {
        /// The image.
        image: String,
        /// Manifest or layer.
        what: String,
        /// What was asked for.
        expected: String,
        /// What came.
        got: String,
    },
    /// Less or more came than was announced.
    #[error("{image}: {what} is {got} bytes long, expected {expected}")]
    Length {
        /// The image.
        image: String,
        /// Which layer.
        what: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        got: u64,
    },
    /// Not for this machine.
    #[error("{image} is not for linux/{arch} (it is for: {there})")]
    Platform {
        /// The image.
        image: String,
        /// This machine's architecture.
        arch: String,
        /// What there is, parted by commas.
        there: String,
    },
    /// An answer that is not understood.
    #[error("{image}: {why}")]
    Malformed {
        /// The image.
        image: String,
        /// What is wrong.
        why: String,
    },
    /// The user's logins.
    #[error("{path}: {why} (hint: `docker login` writes it again)")]
    Credentials {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file.
    #[error("{image}: cannot write {path}: {source}")]
    Io {
        /// The image.
        image: String,
        /// The file.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Speaks to registries.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    mirrors: BTreeMap<String, Url>,
    tokens: std::sync::Arc<std::sync::Mutex<BTreeMap<String, String>>>,
    credentials: Credentials,
}

/// A piece of content: what it is, how long, and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// The manifest of one image for one platform.
#[derive(Debug, Clone)]
pub(super) struct ImageManifest {
    /// The digest of what the reference named: of the index, if there is one.
    pub(super) digest: String,
    /// The configuration, as it came.
    pub(super) config: Vec<u8>,
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ManifestOrIndex {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// OCI's and Docker's names for an index and a manifest.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// The largest manifest that registries must take is 4 MiB.
const LARGEST_MANIFEST: u64 = 4 << 20;

impl Client {
    /// A client with those mirrors (registry → address), which gives up connecting after `patience`.
    pub(super) fn new(mirrors: &BTreeMap<String, String>, patience: Duration) -> Result<Self, RegistryError> {
        // An error says that another provider is installed: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(patience)
            .read_timeout(Duration::from_secs(60))
            .user_agent(concat!("meshproof/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| RegistryError::Client(chain(&e)))?;
        let parse = |(registry, mirror): (&String, &String)| {
            let wrong = || RegistryError::Mirror { registry: registry.clone(), mirror: mirror.clone() };
            let url = Url::parse(&format!("{}/", mirror.trim_end_matches('/'))).map_err(|_| wrong())?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(wrong());
            }
            Ok((registry.clone(), secure(url)?))
        };
        let mirrors = mirrors.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { http, mirrors, tokens: Default::default(), credentials: Credentials::default() })
    }

    /// With a user's logins.
    pub(super) fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// The manifest of an image for linux on `arch`.
    pub(super) async fn manifest(&self, image: &ImageRef, arch: &str) -> Result<ImageManifest, RegistryError> {
        let (digest, raw) = self.raw_manifest(image, image.reference()).await?;
        let Some(entries) = raw.manifests else {
            return self.checked(image, arch, digest, raw).await;
        };
        let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == arch);
        let Some(entry) = entries.iter().find(fits) else {
            let there: Vec<_> = entries
                .iter()
                .filter_map(|d| d.platform.as_ref())
                .map(|p| format!("{}/{}", p.os, p.architecture))
                .collect();
            return Err(not_for(image, arch, &there.join(", ")));
        };
        let (_, raw) = self.raw_manifest(image, &entry.digest).await?;
        self.checked(image, arch, digest, raw).await
    }

    /// A manifest whose configuration says the right platform.
    async fn checked(
        &self,
        image: &ImageRef,
        arch: &str,
        digest: String,
        raw: ManifestOrIndex,
    ) -> Result<ImageManifest, RegistryError> {
        let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
            return Err(malformed(image, "the manifest has no configuration and layers"));
        };
        let response = self.get(image, &format!("blobs/{}", config.digest)).await?;
        let bytes = bounded(image, response).await?;
        verify(image, "the configuration", &config.digest, &bytes)?;
        let platform: Platform = serde_json::from_slice(&bytes).map_err(|e| malformed(image, e))?;
        if platform.os != "linux" || platform.architecture != arch {
            return Err(not_for(image, arch, &format!("{}/{}", platform.os, platform.architecture)));
        }
        Ok(ImageManifest { digest, config: bytes, layers })
    }

    async fn raw_manifest(
        &self,
        image: &ImageRef,
        reference: &str,
    ) -> Result<(String, ManifestOrIndex), RegistryError> {
        let response = self.get(image, &format!("manifests/{reference}")).await?;
        let bytes = bounded(image, response).await?;
        let digest = if is_digest(reference) {
            verify(image, "the manifest", reference, &bytes)?;
            reference.to_owned()
        } else {
            format!("sha256:{}", hex::encode(Sha256::digest(&bytes)))
        };
        Ok((digest, serde_json::from_slice(&bytes).map_err(|e| malformed(image, e))?))
    }

    /// Downloads a blob into a file, checking length and digest on the way.
    pub(super) async fn blob(&self, image: &ImageRef, blob: &Descriptor, to: &Path) -> Result<(), RegistryError> {
        let io = |source| RegistryError::Io { image: image.to_string(), path: to.to_owned(), source };
        let what = format!("layer {}", blob.digest);
        if !is_digest(&blob.digest) {
            return Err(malformed(image, format!("{what}: only sha256 is supported")));
        }
        let response = self.get(image, &format!("blobs/{}", blob.digest)).await?;
        let url = response.url().to_string();
        let mut stream = response.bytes_stream();
        let mut file = tokio::fs::File::create(to).await.map_err(io)?;
        let (mut hash, mut got) = (Sha256::new(), 0);
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|e| RegistryError::Unreachable { url: url.clone(), why: chain(&e) })?;
            got += piece.len() as u64;
            if got > blob.size {
                break;
            }
            hash.update(&piece);
            file.write_all(&piece).await.map_err(io)?;
        }
        file.flush().await.map_err(io)?;
        if got != blob.size {
            return Err(RegistryError::Length { image: image.to_string(), what, expected: blob.size, got });
        }
        let got = format!("sha256:{}", hex::encode(hash.finalize()));
        if got != blob.digest {
            let (image, expected) = (image.to_string(), blob.digest.clone());
            return Err(RegistryError::Digest { image, what, expected, got });
        }
        Ok(())
    }

    /// Asks the image's registry, and again with a token when it requires one.
    async fn get(&self, image: &ImageRef, path: &str) -> Result<Response, RegistryError> {
        let base = self.base(image)?;
        let url = format!("{base}v2/{}/{path}", image.repository);
        let mut answer = self.send(&url, self.token(image).map_or(Login::None, Login::Token)).await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && let Some(challenge) = answer.headers().get(WWW_AUTHENTICATE).and_then(|v| v.to_str().ok())
        {
            let basic = challenge.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic "));
            let login = if basic {
                self.credentials.login(&image.registry).await
            } else {
                self.new_token(image, challenge).await?.map_or(Login::None, Login::Token)
            };
            if !matches!(login, Login::None) {
                answer = self.send(&url, login).await?;
            }
        }
        let hint = match answer.status() {
            status if status.is_success() => return Ok(answer),
            StatusCode::NOT_FOUND => " (hint: is the tag or digest in versions.yaml right?)",
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                " (hint: does the image exist, and does it need a login? `docker login` writes one to ~/.docker/config.json)"
            }
            StatusCode::TOO_MANY_REQUESTS => " (hint: too many pulls; name a mirror in MESHPROOF_REGISTRY_MIRRORS)",
            _ => "",
        };
        Err(RegistryError::Refused { image: image.to_string(), url, status: answer.status(), hint })
    }

    async fn send(&self, url: &str, login: Login) -> Result<Response, RegistryError> {
        let request = self.http.get(url).header(ACCEPT, MANIFESTS);
        let request = match login {
            Login::None => request,
            Login::Token(token) => request.bearer_auth(token),
            Login::Password { user, password } => request.basic_auth(user, Some(password)),
        };
        request.send().await.map_err(|e| RegistryError::Unreachable { url: url.to_owned(), why: chain(&e) })
    }

    fn base(&self, image: &ImageRef) -> Result<Url, RegistryError> {
        if let Some(mirror) = self.mirrors.get(&image.registry) {
            return Ok(mirror.clone());
        }
        // Docker Hub's registry has another name than its images do.
        let host = if image.registry == "docker.io" { "registry-1.docker.io" } else { &image.registry };
        let parse = |scheme: &str| Url::parse(&format!("{scheme}://{host}/"));
        let url = parse("https").map_err(|e| malformed(image, e))?;
        if is_loopback(&url) { parse("http").map_err(|e| malformed(image, e)) } else { Ok(url) }
    }

    fn token(&self, image: &ImageRef) -> Option<String> {
        self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&image.name()).cloned()
    }

    /// A token for pulls, anonymous or with the user's login, from where the challenge says.
    async fn new_token(&self, image: &ImageRef, challenge: &str) -> Result<Option<String>, RegistryError> {
        let Some(parameters) = challenge.strip_prefix("Bearer ") else { return Ok(None) };
        let parameter = |name: &str| {
            let (_, rest) = parameters.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let Some(realm) = parameter("realm") else { return Ok(None) };
        let mut url = secure(Url::parse(&realm).map_err(|e| malformed(image, e))?)?;
        let scope = parameter("scope").unwrap_or_else(|| format!("repository:{}:pull", image.repository));
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = parameter("service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let answer = self.send(url.as_str(), self.credentials.login(&image.registry).await).await?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let answer: Answer = serde_json::from_slice(&bounded(image, answer).await?).map_err(|e| malformed(image, e))?;
        let token = answer.token.or(answer.access_token);
        if let Some(token) = &token {
            let mut tokens = self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            tokens.insert(image.name(), token.clone());
        }
        Ok(token)
    }
}

/// Mirrors of `versions.yaml`, and those of `MESHPROOF_REGISTRY_MIRRORS` (`docker.io=https://…,…`) over them.
pub(super) fn mirrors(configured: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, RegistryError> {
    let mut mirrors = configured.clone();
    let from_env = std::env::var("MESHPROOF_REGISTRY_MIRRORS").unwrap_or_default();
    for entry in from_env.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        let (registry, mirror) = entry.split_once('=').ok_or_else(|| RegistryError::Mirror {
            registry: "MESHPROOF_REGISTRY_MIRRORS".into(),
            mirror: entry.to_owned(),
        })?;
        mirrors.insert(registry.to_owned(), mirror.to_owned());
    }
    Ok(mirrors)
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

/// The same address, if it may be spoken to.
fn secure(url: Url) -> Result<Url, RegistryError> {
    if url.scheme() == "https" || is_loopback(&url) {
        return Ok(url);
    }
    Err(RegistryError::Insecure { url: url.to_string() })
}

/// The body of an answer that must be small.
async fn bounded(image: &ImageRef, answer: Response) -> Result<Vec<u8>, RegistryError> {
    let url = answer.url().to_string();
    let (mut stream, mut bytes) = (answer.bytes_stream(), Vec::new());
    while let Some(piece) = stream.next().await {
        bytes.extend(piece.map_err(|e| RegistryError::Unreachable { url: url.clone(), why: chain(&e) })?);
        if bytes.len() as u64 > LARGEST_MANIFEST {
            return Err(malformed(image, format!("{url} answered more than {LARGEST_MANIFEST} bytes")));
        }
    }
    Ok(bytes)
}

fn verify(image: &ImageRef, what: &str, expected: &str, bytes: &[u8]) -> Result<(), RegistryError> {
    let got = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    if got == expected {
        return Ok(());
    }
    Err(RegistryError::Digest { image: image.to_string(), what: what.into(), expected: expected.into(), got })
}

fn not_for(image: &ImageRef, arch: &str, there: &str) -> RegistryError {
    RegistryError::Platform { image: image.to_string(), arch: arch.into(), there: there.into() }
}

fn malformed(image: &ImageRef, why: impl ToString) -> RegistryError {
    RegistryError::Malformed { image: image.to_string(), why: why.to_string() }
}

/// What an error says, and what the errors behind it say: reqwest's own text leaves the cause out.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(one) = next {
        texts.push(one.to_string());
        next = one.source();
    }
    texts.dedup();
    texts.join(": ")
}
