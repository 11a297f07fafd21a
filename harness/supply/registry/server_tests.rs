//! Against a real registry (Debian's docker-registry) on loopback, which holds images made here.

use std::io::Write;
use std::path::PathBuf;

use rstest::rstest;
use serde_json::json;

use super::pull::Pull;
use super::*;
use crate::supply::cache::Cache;
use crate::supply::program::Program;
use crate::supply::versions::Versions;
use crate::supply::{Origin, Overrides, Purpose, Source, ensure_in};
use crate::tool::{Started, Tool};
use crate::wait::{self, Poll};

/// A running registry. Ends with the test.
struct Server {
    address: String,
    dir: tempfile::TempDir,
    http: reqwest::Client,
    _process: Started,
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A registry, or `None` where docker-registry is not installed; on CI that is a failure.
async fn server() -> Option<Server> {
    let installed = std::env::split_paths(&std::env::var_os("PATH")?).any(|d| d.join("docker-registry").is_file());
    if !installed {
        assert!(std::env::var_os("CI").is_none(), "docker-registry is not installed (apt-get install docker-registry)");
        eprintln!("skipped: docker-registry is not installed (apt-get install docker-registry)");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let config = dir.path().join("config.yml");
    let root = dir.path().join("root");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {address}}}\n",
        root.display()
    );
    std::fs::write(&config, text).unwrap();
    let process = Tool::new("docker-registry").arg("serve").arg(&config).start(&dir.path().join("log")).unwrap();
    // Also installs the TLS provider.
    let http = Client::new(&BTreeMap::new(), Duration::from_secs(5)).unwrap().http;
    let url = format!("http://{address}/v2/");
    wait::until("the registry", Duration::from_secs(60), Duration::from_millis(50), || async {
        match http.get(&url).send().await {
            Ok(_) => Poll::<_, std::convert::Infallible>::Ready(()),
            Err(e) => Poll::NotYet(e.to_string()),
        }
    })
    .await
    .unwrap();
    Some(Server { address, dir, http, _process: process })
}

/// What an image consists of.
struct Made {
    digest: String,
    layer: String,
}

impl Server {
    async fn push_blob(&self, repository: &str, bytes: &[u8]) -> serde_json::Value {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let begun = self.http.post(url).send().await.unwrap();
        let mut place = Url::parse(begun.headers()["location"].to_str().unwrap()).unwrap();
        place.query_pairs_mut().append_pair("digest", &sha256(bytes));
        let put = self.http.put(place).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED);
        json!({ "digest": sha256(bytes), "size": bytes.len() })
    }

    async fn push_manifest(&self, repository: &str, tag: &str, manifest: &serde_json::Value) -> String {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let kind = manifest["mediaType"].as_str().unwrap().to_owned();
        let put = self.http.put(url).header("content-type", kind).body(bytes.clone()).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED, "{}", put.text().await.unwrap());
        sha256(&bytes)
    }

    /// An image of one layer that holds those scripts.
    async fn push(&self, repository: &str, tag: &str, arch: &str, files: &[(&str, &str)]) -> Made {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path.trim_start_matches('/'), content.as_bytes()).unwrap();
        }
        let bytes = tar.into_inner().unwrap().finish().unwrap();
        let mut layer = self.push_blob(repository, &bytes).await;
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
        let text = json!({ "os": "linux", "architecture": arch, "rootfs": {"type": "layers", "diff_ids": []} });
        let mut config = self.push_blob(repository, text.to_string().as_bytes()).await;
        config["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": config,
            "layers": [layer],
        });
        let digest = self.push_manifest(repository, tag, &manifest).await;
        Made { digest, layer: sha256(&bytes) }
    }

    fn image(&self, rest: &str) -> ImageRef {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    fn client(&self) -> Client {
        Client::new(&BTreeMap::new(), Duration::from_secs(5)).unwrap()
    }

    /// The registry's own copy of a blob.
    fn file_of(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir.path().join("root/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// Takes `/bin/etcd` out of an image, as the supply does.
    async fn pull(&self, image: &str) -> Result<String, String> {
        let cache = Cache::at(&tempfile::tempdir_in(self.dir.path()).unwrap().keep()).unwrap();
        let files = BTreeMap::from([("/bin/etcd".to_owned(), Program::Etcd)]);
        let reports = "3.6".to_owned();
        let pull = Pull { client: self.client(), image: self.image(image), arch: "amd64", files, reports };
        let recipe = pull.recipe();
        let item = cache.item(&recipe, |space| async move { pull.fetch(&space).await }).await;
        item.map(|i| std::fs::read_to_string(i.path("etcd")).unwrap()).map_err(|e| e.to_string())
    }
}

const ETCD: &str = "#!/bin/sh\necho etcd Version: 3.6.5\n";

#[tokio::test]
async fn programs_come_out_of_images_by_tag_and_by_digest() {
    let Some(server) = server().await else { return };
    let made = server.push("a/etcd", "1", "amd64", &[("/bin/etcd", ETCD)]).await;
    assert_eq!(server.pull("a/etcd:1").await.unwrap(), ETCD);
    assert_eq!(server.pull(&format!("a/etcd@{}", made.digest)).await.unwrap(), ETCD);
}

#[tokio::test]
async fn what_is_not_there_or_not_right_is_refused() {
    let Some(server) = server().await else { return };
    server.push("a/etcd", "1", "amd64", &[("/bin/etcd", ETCD)]).await;
    server.push("a/old", "1", "amd64", &[("/bin/etcd", "#!/bin/sh\necho etcd Version: 3.4.1")]).await;
    server.push("a/empty", "1", "amd64", &[("/bin/other", ETCD)]).await;
    server.push("a/arm", "1", "arm64", &[("/bin/etcd", ETCD)]).await;
    for (image, why) in [
        ("a/etcd:2", "responded 404 Not Found (hint: is the tag or digest in versions.yaml right?)"),
        ("b/etcd:1", "responded 404 Not Found"),
        ("a/old:1", "etcd reports version \"etcd Version: 3.4.1\", expected 3.6"),
        ("a/empty:1", "the image does not contain /bin/etcd (there is no such file)"),
        ("a/arm:1", "is not for linux/amd64 (it is for: linux/arm64)"),
    ] {
        let error = server.pull(image).await.unwrap_err();
        assert!(error.contains(why) && error.contains(image), "{error}");
    }
    let unknown = format!("a/etcd@sha256:{}", "0".repeat(64));
    assert!(server.pull(&unknown).await.unwrap_err().contains("404"));
}

#[rstest]
#[case::truncated(&|bytes: &mut Vec<u8>| bytes.truncate(40), "is 40 bytes long, expected")]
#[case::longer(&|bytes: &mut Vec<u8>| bytes.extend([0; 9]), "bytes long, expected")]
#[case::changed(&|bytes: &mut Vec<u8>| bytes[30] ^= 1, "and is not used")]
#[tokio::test]
async fn a_layer_that_was_changed_is_refused(#[case] change: &dyn Fn(&mut Vec<u8>), #[case] why: &str) {
    let Some(server) = server().await else { return };
    let made = server.push("a/etcd", "1", "amd64", &[("/bin/etcd", ETCD)]).await;
    let file = server.file_of(&made.layer);
    let mut bytes = std::fs::read(&file).unwrap();
    change(&mut bytes);
    std::fs::write(&file, bytes).unwrap();
    let error = server.pull("a/etcd:1").await.unwrap_err();
    assert!(error.contains(why) && error.contains(&made.layer), "{error}");
}

#[tokio::test]
async fn a_manifest_that_was_changed_is_refused() {
    let Some(server) = server().await else { return };
    let made = server.push("a/etcd", "1", "amd64", &[("/bin/etcd", ETCD)]).await;
    let mut file = std::fs::OpenOptions::new().append(true).open(server.file_of(&made.digest)).unwrap();
    file.write_all(b" ").unwrap();
    let error = server.pull(&format!("a/etcd@{}", made.digest)).await.unwrap_err();
    assert!(error.contains("the manifest has digest sha256:") && error.contains("and is not used"), "{error}");
}

#[tokio::test]
async fn an_index_gives_the_image_of_this_platform() {
    let Some(server) = server().await else { return };
    let mut entries = Vec::new();
    for (arch, text) in [("arm64", "#!/bin/sh\necho arm"), ("amd64", ETCD)] {
        let made = server.push("a/etcd", arch, arch, &[("/bin/etcd", text)]).await;
        let size = std::fs::metadata(server.file_of(&made.digest)).unwrap().len();
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let platform = json!({ "os": "linux", "architecture": arch });
        entries.push(json!({ "mediaType": kind, "digest": made.digest, "size": size, "platform": platform }));
    }
    let kind = "application/vnd.docker.distribution.manifest.list.v2+json";
    let index = |entries: &[serde_json::Value]| json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
    let digest = server.push_manifest("a/etcd", "both", &index(&entries)).await;
    server.push_manifest("a/etcd", "arm", &index(&entries[..1])).await;
    assert_eq!(server.pull("a/etcd:both").await.unwrap(), ETCD);
    assert_eq!(server.pull(&format!("a/etcd@{digest}")).await.unwrap(), ETCD);
    let error = server.pull("a/etcd:arm").await.unwrap_err();
    assert!(error.contains("a/etcd:arm is not for linux/amd64 (it is for: linux/arm64)"), "{error}");
}

/// Every image of the built-in versions, as scripts that say what the real programs say.
async fn publish(server: &Server, versions: &Versions) {
    let kubernetes = versions.kubernetes_images(versions.registry.kubernetes_minor).unwrap();
    let istio = versions.istio_images(versions.registry.istio_minor).unwrap();
    let sets = [
        (&kubernetes.images, &kubernetes.version),
        (&versions.registry.cluster, &String::new()),
        (&istio.images, &istio.version),
    ];
    for (images, version) in sets {
        let script = format!("#!/bin/sh\necho {version}\n");
        for image in images {
            let files: Vec<_> =
                versions.image(image).unwrap().programs.keys().map(|p| (p.as_str(), script.as_str())).collect();
            server.push(&image.repository, image.tag.as_deref().unwrap(), crate::supply::plan::arch(), &files).await;
        }
    }
}

#[tokio::test]
async fn the_whole_supply_comes_from_mirrors_and_then_from_the_cache() {
    let Some(server) = server().await else { return };
    let mut versions = Versions::built_in().unwrap();
    let mirror = format!("http://{}", server.address);
    versions.registry.mirrors = ["registry.k8s.io", "registry.istio.io"].map(|r| (r.into(), mirror.clone())).into();
    publish(&server, &versions).await;
    let cache = Cache::at(&server.dir.path().join("cache")).unwrap();
    // What no image has is built with Go, which takes minutes and which not every machine has.
    let own = server.dir.path().join("own");
    std::fs::write(&own, "program").unwrap();
    let built =
        [Program::Helloworld, Program::EchoServer, Program::EchoClient, Program::EchoCertificate, Program::EchoKey];
    let overrides: Overrides = built.into_iter().map(|program| (program, own.clone())).collect();
    let first = ensure_in(&cache, Purpose::Netns, Source::Auto, &versions, &overrides).await.unwrap();
    assert_eq!((first.origin, first.stock_envoy), (Origin::Registry, false));
    assert_eq!((first.kubernetes.as_str(), first.istio.as_str()), ("v1.34.11", "1.30.4"));
    assert_eq!(first.programs().count(), Purpose::Netns.programs(Origin::Registry).len());
    let agent = std::fs::read_to_string(first.program(Program::PilotAgent).unwrap()).unwrap();
    assert_eq!(agent, "#!/bin/sh\necho 1.30.4\n");

    // Without the registry, what is here is found again, and quickly.
    drop(server._process);
    versions.registry.mirrors.values_mut().for_each(|m| *m = "http://127.0.0.1:1".into());
    let begun = std::time::Instant::now();
    let second = ensure_in(&cache, Purpose::Netns, Source::Auto, &versions, &overrides).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(second.fingerprint(), first.fingerprint());

    // What is not in the cache is not available, which is reported with the address.
    let other = Cache::at(&server.dir.path().join("other")).unwrap();
    let error = ensure_in(&other, Purpose::Netns, Source::Registry, &versions, &overrides).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("http://127.0.0.1:1/v2/") && text.contains("does not respond"), "{text}");
}

#[tokio::test]
async fn auto_takes_packages_where_no_registry_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut versions = Versions::built_in().unwrap();
    let nowhere = "http://127.0.0.1:1".to_owned();
    versions.registry.mirrors = ["registry.k8s.io", "registry.istio.io"].map(|r| (r.into(), nowhere.clone())).into();
    let cache = Cache::at(dir.path()).unwrap();
    let needed = |_| vec![Program::Etcd];
    let begun = std::time::Instant::now();
    let origin = crate::supply::choose::origin(&cache, Source::Auto, &versions, &needed).await.unwrap();
    assert_eq!(origin, Origin::Packages);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// A registry that requires a token, as Docker Hub does.
#[tokio::test]
async fn a_token_is_fetched_where_one_is_wanted() {
    use axum::extract::{Path, Query, State};
    use axum::http::{HeaderMap, header};
    use axum::response::{IntoResponse, Response};
    use axum::routing::get;

    async fn content(State(address): State<String>, Path(path): Path<String>, headers: HeaderMap) -> Response {
        let config = json!({ "os": "linux", "architecture": "amd64" }).to_string();
        if headers.get(header::AUTHORIZATION).is_none_or(|a| a != "Bearer let-me-in") {
            let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"the registry\"");
            return (axum::http::StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
        }
        match path.as_str() {
            "a/b/manifests/1" => {
                let config = json!({ "digest": sha256(config.as_bytes()), "size": config.len() });
                json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string().into_response()
            }
            path if path == format!("a/b/blobs/{}", sha256(config.as_bytes())) => config.into_response(),
            _ => axum::http::StatusCode::NOT_FOUND.into_response(),
        }
    }
    async fn token(Query(query): Query<BTreeMap<String, String>>) -> Response {
        let right = query["scope"] == "repository:a/b:pull" && query["service"] == "the registry";
        if right { json!({ "token": "let-me-in" }).to_string().into_response() } else { "{}".into_response() }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routes =
        axum::Router::new().route("/v2/{*path}", get(content)).route("/token", get(token)).with_state(address.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });

    let client = Client::new(&BTreeMap::new(), Duration::from_secs(5)).unwrap();
    let image = |rest: &str| format!("{address}/{rest}").parse::<ImageRef>().unwrap();
    client.manifest(&image("a/b:1"), "amd64").await.unwrap();
    let error = client.manifest(&image("a/private:1"), "amd64").await.unwrap_err().to_string();
    assert!(error.contains("401 Unauthorized (hint: does the image exist, and does it need a login? "), "{error}");
    serving.abort();
}

#[rstest]
#[case("http://10.0.0.1:5000", "plain http is for loopback only")]
#[case("http://registry.example", "plain http is for loopback only")]
#[case("ftp://registry.example", "is not an address such as https://mirror.example")]
#[case("registry.example", "is not an address such as https://mirror.example")]
fn only_safe_mirrors_are_spoken_to(#[case] mirror: &str, #[case] why: &str) {
    let mirrors = BTreeMap::from([("docker.io".to_owned(), mirror.to_owned())]);
    let error = Client::new(&mirrors, Duration::from_secs(1)).unwrap_err().to_string();
    assert!(error.contains(why) && error.contains(mirror.trim_end_matches('/')), "{error}");
}

#[rstest]
#[case("docker.io/a/b", "https://registry-1.docker.io/")]
#[case("registry.k8s.io/a", "https://registry.k8s.io/")]
#[case("localhost:5000/a", "http://localhost:5000/")]
#[case("127.0.0.1:5000/a", "http://127.0.0.1:5000/")]
#[case("quay.io/a", "https://mirror.example/quay/")]
fn images_are_asked_for_at_their_registry(#[case] image: &str, #[case] base: &str) {
    let mirrors = BTreeMap::from([("quay.io".to_owned(), "https://mirror.example/quay".to_owned())]);
    let client = Client::new(&mirrors, Duration::from_secs(1)).unwrap();
    assert_eq!(client.base(&image.parse().unwrap()).unwrap().as_str(), base);
}
