//! Pods of any image on netns: Debian with nginx, Python's http.server, a static Go program, pulled from a loopback registry or
//! given as an archive; and images that cannot be run, each with a clear reason.
//!
//! Needs root, `docker-registry`, `debootstrap` and the programs of the supply. Without them the test skips locally, with the
//! reason, and fails where `CI` is set.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use meshproof::journal::EnvDir;
use meshproof::provider::netns::{self, Programs};
use meshproof::provider::{Cluster, PodRef};
use meshproof::supply::containers::{Store, StoreSettings};
use meshproof::supply::{self, Overrides, Purpose, Source, Versions, program::Program};
use meshproof::topology::{ClusterSpec, Cni, MeshSpec, NodeRole, Role, Topology};
use meshproof::wait::{self, Poll};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn sha(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Docker's own registry on a free loopback port. Ends with the value.
struct Registry {
    address: String,
    child: Child,
    http: reqwest::Client,
    login: Option<(&'static str, &'static str)>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// `login`: it asks for `me` and `secret`.
    async fn new(folder: &Path, login: bool) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let passwords = folder.join("passwords");
        std::fs::write(&passwords, "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n").unwrap();
        let auth = json!({"htpasswd": {"realm": "test", "path": passwords}});
        let mut config = json!({
            "version": 0.1, "storage": {"filesystem": {"rootdirectory": folder.join("data")}}, "http": {"addr": address}
        });
        if login {
            config["auth"] = auth;
        }
        let file = folder.join("config.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let http = reqwest::Client::new();
        let registry = Self { address, child, http, login: login.then_some(("me", "secret")) };
        let url = format!("http://{}/v2/", registry.address);
        wait::until("the registry", Duration::from_secs(30), Duration::from_millis(50), || async {
            match registry.http.get(&url).send().await {
                Ok(_) => Poll::<_, std::io::Error>::Ready(()),
                Err(error) => Poll::NotYet(error.to_string()),
            }
        })
        .await
        .unwrap();
        registry
    }

    fn logged_in(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    async fn blob(&self, name: &str, bytes: &[u8]) -> Value {
        let digest = sha(bytes);
        let start = self.http.post(format!("http://{}/v2/{name}/blobs/uploads/", self.address));
        let begun = self.logged_in(start).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let put = self.http.put(format!("{location}&digest={digest}")).body(bytes.to_vec());
        assert!(self.logged_in(put).send().await.unwrap().status().is_success());
        json!({"mediaType": "application/octet-stream", "digest": digest, "size": bytes.len()})
    }

    /// Pushes an image; answers its name.
    async fn push(&self, name: &str, arch: &str, layers: &[&[u8]], config: Value) -> String {
        let mut descriptors = Vec::new();
        for layer in layers {
            descriptors.push(self.blob(name, layer).await);
        }
        let config = json!({"os": "linux", "architecture": arch, "config": config}).to_string();
        let config = self.blob(name, config.as_bytes()).await;
        let media = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": descriptors});
        let url = format!("http://{}/v2/{name}/manifests/1", self.address);
        let put = self.http.put(url).header("content-type", media).body(manifest.to_string());
        let answer = self.logged_in(put).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        format!("{}/{name}:1", self.address)
    }
}

fn tar(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Debian with nginx and Python, as one layer: made by debootstrap, or the tar file that `MESHPROOF_TEST_DEBIAN` names.
fn debian(folder: &Path) -> Vec<u8> {
    if let Some(made) = std::env::var_os("MESHPROOF_TEST_DEBIAN") {
        return std::fs::read(made).unwrap();
    }
    let root = folder.join("debian");
    let made = Command::new("debootstrap")
        .args(["--variant=minbase", "--include=nginx-light,python3", "bookworm"])
        .arg(&root)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    Command::new("tar").arg("-C").arg(&root).args(["--exclude=./var/cache/apt", "-c", "."]).output().unwrap().stdout
}

fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn topology() -> Topology {
    let cluster = ClusterSpec {
        name: "cluster1".into(),
        network: "network1".into(),
        role: Role::Primary,
        mesh: MeshSpec::default(),
        gateway: false,
        pods: "10.10.0.0/16".parse().unwrap(),
        services: "10.11.0.0/16".parse().unwrap(),
        nodes: vec![NodeRole::ControlPlane.into()],
        cni: Cni::Static,
        kind_config: String::new(),
    };
    Topology { name: "one".into(), purpose: String::new(), clusters: vec![cluster], istio: Default::default() }
}

struct World {
    cluster: Cluster,
    pods: Api<Pod>,
}

impl World {
    async fn create(&self, name: &str, image: &str, policy: &str) {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "c", "image": image, "imagePullPolicy": policy}]
            }
        });
        wait::until("the service account", Duration::from_secs(30), Duration::from_millis(50), || async {
            match self.pods.create(&PostParams::default(), &serde_json::from_value(pod.clone()).unwrap()).await {
                Ok(_) => Poll::<_, kube::Error>::Ready(()),
                Err(error) => Poll::NotYet(error.to_string()),
            }
        })
        .await
        .unwrap();
    }

    /// Waits until the pod's only container satisfies; answers what `state` said.
    async fn until(&self, name: &str, what: &str, state: impl Fn(&Value) -> Option<String>) -> String {
        wait::until(format!("{name}: {what}"), Duration::from_secs(180), Duration::from_millis(50), || async {
            let pod = self.pods.get(name).await.unwrap();
            let status = serde_json::to_value(pod.status.unwrap()).unwrap();
            match state(&status["containerStatuses"][0]["state"]) {
                Some(found) => Poll::<_, std::io::Error>::Ready(found),
                None => Poll::NotYet(status.to_string()),
            }
        })
        .await
        .unwrap()
    }

    async fn runs(&self, name: &str) {
        self.until(name, "it runs", |state| state["running"].is_object().then(String::new)).await;
    }

    fn at(&self, name: &str) -> PodRef {
        PodRef { namespace: "default".into(), name: name.into() }
    }

    async fn get(&self, name: &str, port: u16, path: &str) -> String {
        wait::until(format!("an answer of {name}"), Duration::from_secs(60), Duration::from_millis(100), || async {
            let Ok(mut stream) = self.cluster.dial(&self.at(name), port).await else {
                return Poll::<_, std::io::Error>::NotYet("nobody listens".into());
            };
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            Poll::Ready(answer)
        })
        .await
        .unwrap()
    }

    async fn sh(&self, name: &str, script: &str) -> String {
        let output = self.cluster.exec(&self.at(name), "c", &["sh", "-c", script], b"").await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    async fn is_refused(&self, name: &str, image: &str, policy: &str, expected: &str) {
        self.create(name, image, policy).await;
        let why = self.until(name, "it is refused", |state| {
            let waiting = &state["waiting"];
            let reason = waiting["reason"].as_str()?;
            reason.contains("Err").then(|| format!("{reason}: {}", waiting["message"].as_str().unwrap_or_default()))
        });
        let why = why.await;
        eprintln!("{name}: {why}");
        assert!(why.contains(expected) && why.contains(image), "{why}");
        self.pods.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_image_runs_and_one_that_cannot_says_why() {
    if std::env::var_os("CI").is_none() && std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_none() {
        return eprintln!(
            "skipped: it needs root and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)"
        );
    }
    let root = tempfile::tempdir().unwrap();
    let versions = Versions::built_in().unwrap();
    let supplied = supply::ensure(Purpose::Netns, Source::Auto, &versions, &Overrides::new()).await.unwrap();
    let program = std::fs::read(supplied.program(Program::Helloworld).unwrap()).unwrap();
    let (debian, open) = (debian(root.path()), Registry::new(&root.path().join("open"), false).await);
    let private = Registry::new(&root.path().join("private"), true).await;

    let page = tar(&[("var/www/html/index.html", b"hello from nginx", 0o644), ("usr/share/.wh.doc", b"", 0o644)]);
    let nginx = open.push("nginx", arch(), &[&debian, &page], json!({"Cmd": ["nginx", "-g", "daemon off;"]})).await;
    let page = tar(&[("srv/index.html", b"hello from python", 0o644)]);
    let config = json!({
        "Entrypoint": ["python3", "-m", "http.server"], "Cmd": ["8000"], "User": "www-data", "WorkingDir": "/srv",
        "Env": ["GREETING=hi"]
    });
    let python = open.push("python", arch(), &[&debian, &page], config).await;
    let layer = tar(&[("app", &program, 0o755)]);
    let go = json!({"Entrypoint": ["/app"], "User": "65534:65534"});
    let secret = private.push("go", arch(), &[&layer], go.clone()).await;
    let foreign = open.push("foreign", "s390x", &[&layer], go.clone()).await;
    let broken = open.push("broken", arch(), &[b"this is no layer"], go.clone()).await;

    let mut programs = Programs::of(&supplied, env!("CARGO_BIN_EXE_meshproof").as_ref()).unwrap();
    let logins = root.path().join("config.json");
    programs.store =
        StoreSettings { root: root.path().join("cache"), credentials: Some(logins.clone()), mirrors: BTreeMap::new() };
    // An archive, as `docker save` writes it.
    let archive = root.path().join("go.tar");
    let config = json!({"os": "linux", "architecture": arch(), "config": go}).to_string();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["archived/go:1"], "Layers": ["l.tar"]}]).to_string();
    let files =
        [("c.json", config.as_bytes(), 0o644), ("manifest.json", manifest.as_bytes(), 0o644), ("l.tar", &layer, 0o644)];
    std::fs::File::create(&archive).unwrap().write_all(&tar(&files)).unwrap();
    let names = Store::open(&programs.store).unwrap().import(&archive).await.unwrap();
    assert_eq!(names, ["docker.io/archived/go:1"]);

    let env = EnvDir::create(root.path(), &format!("i{}", std::process::id())).unwrap();
    let cluster = netns::create(&topology(), &env, &programs).await.unwrap().remove(0);
    let world = World { pods: Api::default_namespaced(cluster.client.clone()), cluster };
    let tried = tokio::spawn(async move {
        world.create("nginx", &nginx, "IfNotPresent").await;
        world.create("python", &python, "Always").await;
        world.create("archived", "archived/go:1", "Never").await;
        for name in ["nginx", "python", "archived"] {
            world.runs(name).await;
        }
        assert!(world.get("nginx", 80, "/").await.ends_with("hello from nginx"));
        assert!(world.get("python", 8000, "/").await.ends_with("hello from python"));
        assert!(world.get("archived", 5000, "/hello").await.contains("200 OK"));
        assert_eq!(
            world.sh("python", "id -u; id -g; pwd; echo $GREETING; echo $HOME").await,
            "33\n33\n/srv\nhi\n/var/www\n"
        );
        let layers = world.sh("nginx", "ls /usr/share/doc 2>&1 | head -1; echo x > /etc/written; cat /etc/os-release");
        let layers = layers.await;
        assert!(layers.contains("No such file") && layers.contains("bookworm"), "a layer's removals count: {layers}");
        assert_eq!(world.sh("python", "ls /etc/written 2>/dev/null").await, "", "what one container writes is its own");

        world.is_refused("none", &format!("{}/none:1", open.address), "Always", "404").await;
        world.is_refused("foreign", &foreign, "Always", "it is for: linux/s390x").await;
        world.is_refused("broken", &broken, "Always", "layer sha256:").await;
        world.is_refused("never", &format!("{}/never:1", open.address), "Never", "pull policy of Never").await;
        world.is_refused("nowhere", "127.0.0.1:1/x:1", "Always", "does not respond").await;
        world.is_refused("private", &secret, "Always", "docker login").await;
        secret
    });
    let tried = tried.await;
    let removed = async |env: EnvDir| {
        for owned in env.owned().unwrap() {
            assert!(netns::remove(&owned).await.unwrap(), "{owned:?}");
        }
        env.forget().unwrap();
    };
    removed(env).await;
    let secret = tried.unwrap();

    // With the login of ~/.docker/config.json (here of the test's own).
    let auth = k8s_openapi::ByteString(b"me:secret".to_vec());
    std::fs::write(&logins, json!({"auths": {private.address.clone(): {"auth": auth}}}).to_string()).unwrap();
    let pulled = Store::open(&programs.store).unwrap().pull(&secret).await.unwrap();
    assert_eq!((pulled.uid, pulled.layers.len()), (65534, 1));

    let cache = std::fs::read_dir(root.path().join("cache/layers")).unwrap().flatten();
    let names: Vec<String> = cache.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(names.len() == 4 && names.iter().all(|name| name.len() == 64), "whole layers only: {names:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(root.path().to_str().unwrap()), "no mount is left");
}
