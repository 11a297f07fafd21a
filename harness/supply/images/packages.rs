//! The node image from packages: a Debian root, kind's own base files, and one small image per program.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::archive::{self, Content, Layer, Tree};
use super::build::{self, blocking};
use super::{BoxError, Cache, Images, LOCAL, LOCAL_HUB, Recipe, Supplied, SupplyError, Workspace};
use crate::supply::gocache::GoCaches;
use crate::supply::program::InNode;
use crate::supply::{AddOn, ImageRef, Program, Versions, gobuild, plan};
use crate::tool::Tool;
use crate::workload_kind::{KindImage, WorkloadImages};

const DEBIAN: &str = include_str!("files/debian");
const DEBIAN_JAVA: &str = include_str!("files/debian-java");
/// What runs Java archives.
const JAVA_PACKAGES: &str = "openjdk-17-jre-headless";
const SETUP: &str = include_str!("files/node-setup");
const DEFAULT_CNI: &str = include_str!("files/default-cni.yaml");

const SUITE: &str = "bookworm";
/// What a node needs: after kind's `images/base/Dockerfile`, with Debian's own containerd, runc and CNI plugins.
const PACKAGES: [&str; 20] = [
    "ca-certificates",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "ethtool",
    "findutils",
    "ipset",
    "iproute2",
    "iptables",
    "jq",
    "kmod",
    "mount",
    "nftables",
    "pigz",
    "procps",
    "runc",
    "systemd",
    "systemd-sysv",
    "tcpdump",
];

/// Istio's own images, by their names where they are built here; `versions.yaml` lists their content.
const ISTIO: [&str; 2] = ["istio/pilot", "istio/proxyv2"];

/// The name of a workload's image. Only what holds programs is Istio's.
fn app(versions: &Versions, image: &KindImage) -> String {
    let tag = if image.local.starts_with("istio/") { &versions.packages.istio.version } else { SUITE };
    format!("{LOCAL}/{}:{tag}", image.local)
}

pub(super) fn describe(supplied: &Supplied) -> Result<(Images, Recipe), SupplyError> {
    let packages = &supplied.versions.packages;
    let what = format!("the node image with Kubernetes {} and Istio {}", supplied.kubernetes, packages.istio.version);
    let mut recipe = Recipe::new("node-image", what)
        .with("debian", debian().key())
        .with("kind", &supplied.versions.kind)
        .with("scripts", digest(build::SCRIPTS.into_iter().chain([SETUP, DEFAULT_CNI])))
        .with("istio", &packages.istio.version);
    for program in in_node(|place| place != InNode::No) {
        recipe = recipe.with(program.name(), supplied.identity(program)?);
    }
    let images = Images {
        node: String::new(),
        kubernetes: supplied.kubernetes.clone(),
        istio_tag: packages.istio.version.clone(),
        istio_hub: LOCAL_HUB.to_owned(),
        workloads: WorkloadImages::of(|image| Some(app(&supplied.versions, image))),
    };
    let names: Vec<_> = images.workloads.iter().flat_map(|(_, image)| names(&supplied.versions, image)).collect();
    Ok((images, recipe.with("names", names.join(","))))
}

pub(super) fn debian() -> Recipe {
    Recipe::new("debian", format!("a node's root from Debian {SUITE}"))
        .with("suite", SUITE)
        .with("arch", plan::arch())
        .with("packages", PACKAGES.join(","))
        .with("script", digest([DEBIAN]))
}

pub(super) fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hex::encode(hash.finalize())
}

pub(super) async fn build(
    cache: &Cache,
    supplied: &Supplied,
    images: &Images,
    space: &Workspace,
) -> Result<(), BoxError> {
    let debian = cache.item(&debian(), |space| debootstrap(space, DEBIAN, PACKAGES.join(","))).await?;
    let (root, base) = (debian.path("root.tar"), debian.path("base.tar"));
    let kubeadm = supplied.program(Program::Kubeadm)?;
    let listed = ["config", "images", "list", "--kubernetes-version", &images.kubernetes];
    let listed = Tool::new(kubeadm).args(listed).run().await?.text();
    let pause = listed.lines().find(|name| short(name) == "pause").ok_or("kubeadm lists no pause image")?;
    let setup = format!("set -- {}\n{SETUP}", crate::tool::quote(pause));

    let go = GoCaches::open(cache)?;
    let node = node_files(supplied, &gobuild::kind_source(space).await?.join("images/base/files"))?;
    let programs = programs(supplied, images, &listed)?;
    let name = images.node.replace("/node:", "/node-base:");
    let (bare, preloaded) = (space.scratch.join("bare.tar"), space.scratch.join("images.tar"));
    {
        let (scratch, name, bare, preloaded) = (space.scratch.clone(), name.clone(), bare.clone(), preloaded.clone());
        blocking(move || {
            let layers = [Layer::of(root)?, Layer::write(scratch.join("node.tar"), &node)?];
            let image = archive::Image { names: vec![name], layers: layers.iter().collect(), config: node_config() };
            archive::write(&bare, plan::arch(), &[image])?;
            write_programs(&preloaded, &scratch, Layer::of(base)?, &programs)
        })
        .await?;
    }
    go.finish().await;
    Tool::new("docker").args(["load", "--quiet", "--input"]).arg(&bare).run().await?;
    let out = space.out.join(build::ARCHIVE);
    build::preload(&name, &setup, &preloaded, &images.node, &space.scratch, &out).await?;
    // Only the name goes: the layers are the node image's own.
    Tool::new("docker").args(["image", "rm", "--no-prune", &name]).run().await?;
    Ok(())
}

/// What kind's `images/base/Dockerfile` sets.
fn node_config() -> Value {
    json!({
        "Env": [PATH, "container=docker"],
        "Entrypoint": ["/kind/bin/node-entrypoint", "/sbin/init"],
        "StopSignal": "SIGRTMIN+3",
    })
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

async fn debootstrap(space: Workspace, script: &str, packages: String) -> Result<(), BoxError> {
    if !nix::unistd::geteuid().is_root() {
        return Err("a Debian root filesystem can only be created by root (hint: `sudo meshproof supply`, once)".into());
    }
    // In a mount namespace of its own: what debootstrap mounts is gone with it, however it ends.
    Tool::new("unshare")
        .args(["--mount", "--propagation", "private", "--", "bash", "-c", script, "debian"])
        .args([&space.out, &space.scratch])
        .args([SUITE, &packages, &mirror()])
        .run()
        .await
        .map(drop)
        .map_err(|e| format!("{e}\n(hint: `apt-get install debootstrap`)").into())
}

/// Where this machine's own packages come from; empty: wherever debootstrap looks by itself.
fn mirror() -> String {
    let classic = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let modern = folder.filter_map(|file| fs::read_to_string(file.path()).ok());
    std::iter::once(classic).chain(modern).find_map(|text| debian_mirror(&text)).unwrap_or_default()
}

/// The first Debian archive in the text of a file of apt's sources, of either format.
fn debian_mirror(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let mut words = lines.flat_map(str::split_whitespace);
    let archive = words.find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"));
    archive.map(str::to_owned)
}

/// A root with a Java runtime, for the images of Java archives.
pub(super) fn java() -> Recipe {
    Recipe::new("debian-java", format!("a Java runtime from Debian {SUITE}"))
        .with("suite", SUITE)
        .with("arch", plan::arch())
        .with("packages", JAVA_PACKAGES)
        .with("script", digest([DEBIAN_JAVA]))
}

pub(super) fn add_on_recipe(supplied: &Supplied, add_on: AddOn) -> Result<Recipe, SupplyError> {
    let (program, image) = (add_on.program(), add_on.local_image(&supplied.versions));
    Ok(Recipe::new(format!("image-of-{program}"), format!("the image {image}"))
        .with("image", image)
        .with("base", java().key())
        .with(program.name(), supplied.identity(program)?))
}

/// Builds an add-on's image: its Java archive on a Java runtime.
pub(super) async fn add_on(
    cache: &Cache,
    supplied: &Supplied,
    add_on: AddOn,
    space: &Workspace,
) -> Result<(), BoxError> {
    let base =
        cache.item(&java(), |space| debootstrap(space, DEBIAN_JAVA, JAVA_PACKAGES.to_owned())).await?.path("java.tar");
    let name = add_on.local_image(&supplied.versions);
    let content = content_of(&supplied.versions, &name)?;
    let file = |program: Program| Ok::<_, SupplyError>(Content::Copy(supplied.program(program)?.to_owned()));
    let mut tree = Tree::new();
    for (path, program) in &content.programs {
        tree.insert(path.trim_start_matches('/').to_owned(), (0o644, file(*program)?));
    }
    let config = json!({ "Env": [PATH], "Entrypoint": content.entrypoint });
    let (out, own) = (space.out.join(build::ARCHIVE), space.scratch.join("program.tar"));
    blocking(move || {
        let layers = [Layer::of(base)?, Layer::write(own, &tree)?];
        archive::write(
            &out,
            plan::arch(),
            &[archive::Image { names: vec![name], layers: layers.iter().collect(), config }],
        )
    })
    .await
}

/// kind's base files, and Kubernetes' programs of a node.
fn node_files(supplied: &Supplied, base: &Path) -> Result<Tree, BoxError> {
    let mut tree = Tree::new();
    let mut folders = vec![base.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(base)?.to_string_lossy().into_owned();
            let mode = if name.contains("/bin/") { 0o755 } else { 0o644 };
            tree.insert(name, (mode, Content::Copy(path)));
        }
    }
    for program in in_node(|place| place == InNode::Node) {
        let copy = Content::Copy(supplied.program(program)?.to_owned());
        tree.insert(format!("usr/bin/{program}"), (0o755, copy));
    }
    let version = Content::Text(supplied.kubernetes.clone());
    tree.insert("kind/version".to_owned(), (0o644, version));
    tree.insert("kind/manifests/default-cni.yaml".to_owned(), (0o644, Content::Text(DEFAULT_CNI.to_owned())));
    Ok(tree)
}

/// The programs of a node image that are in such a place.
fn in_node(place: impl Fn(InNode) -> bool) -> impl Iterator<Item = Program> {
    Program::ALL.iter().copied().filter(move |p| place(p.record().in_node))
}

/// The program in an image that kubeadm lists, and its path there.
fn kubeadm_image(name: &str) -> Option<(Program, &'static str)> {
    let program = Program::ALL.iter().copied().find(|p| p.name() == short(name))?;
    match program.record().in_node {
        InNode::KubeadmImage(path) => Some((program, path)),
        _ => None,
    }
}

/// An image of programs: its full names, its files, its configuration.
type ProgramImage = (Vec<String>, Tree, Value);

fn programs(supplied: &Supplied, images: &Images, listed: &str) -> Result<Vec<ProgramImage>, BoxError> {
    let file = |program| -> Result<Content, SupplyError> { Ok(Content::Copy(supplied.program(program)?.to_owned())) };
    let mut all = Vec::new();
    for name in listed.lines() {
        let (program, path) = kubeadm_image(name).ok_or_else(|| format!("kubeadm lists the unknown image {name}"))?;
        let tree = Tree::from([(path.to_owned(), (0o755, file(program)?))]);
        all.push((vec![name.to_owned()], tree, json!({ "Env": [PATH], "Entrypoint": [format!("/{path}")] })));
    }
    let istio = ISTIO.map(|name| format!("{LOCAL}/{name}:{}", images.istio_tag));
    for name in istio.iter().map(String::as_str).chain(images.workloads.iter().map(|(_, name)| name)) {
        let content = content_of(&supplied.versions, name)?;
        let mut tree = Tree::new();
        for (path, program) in &content.programs {
            let mode = if program.is_text() { 0o644 } else { 0o755 };
            tree.insert(path.trim_start_matches('/').to_owned(), (mode, file(*program)?));
        }
        let env = content.env.iter().map(|(name, value)| format!("{name}={value}"));
        let env: Vec<_> = std::iter::once(PATH.to_owned()).chain(env).collect();
        let user = format!("{0}:{0}", content.user);
        let config = json!({ "Env": env, "Entrypoint": content.entrypoint, "User": user });
        all.push((names(&supplied.versions, name), tree, config));
    }
    Ok(all)
}

fn content_of<'a>(versions: &'a Versions, name: &str) -> Result<&'a crate::supply::versions::Image, BoxError> {
    let image = name.parse()?;
    versions.image(&image).ok_or_else(|| format!("versions.yaml does not list the content of {name}").into())
}

/// The names of an image that is built here as `local`: those of the published images with the same content come after it,
/// because manifests name these. Istio's own images have no such: nothing but its charts names them.
fn names(versions: &Versions, local: &str) -> Vec<String> {
    let same = |published: &ImageRef| short(&published.to_string()) == short(local);
    let published = versions.registry.apps.values().find(|image| same(image));
    let tagged = published.into_iter().flat_map(|published| {
        let listed = versions.image(published).map(|content| content.names.as_slice()).unwrap_or_default();
        let tag = published.tag.as_deref().unwrap_or("latest");
        listed.iter().filter(|name| !name.starts_with(LOCAL)).map(move |name| format!("{name}:{tag}"))
    });
    std::iter::once(local.to_owned()).chain(tagged).collect()
}

/// `etcd` of `registry.k8s.io/etcd:3.6.5-0`.
fn short(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split(':').next().unwrap_or(name)
}

fn write_programs(out: &Path, scratch: &Path, base: Layer, all: &[ProgramImage]) -> std::io::Result<()> {
    let mut own = Vec::new();
    for (number, (_, tree, _)) in all.iter().enumerate() {
        own.push(
            (!tree.is_empty())
                .then(|| Layer::write(scratch.join(format!("program-{number}.tar")), tree))
                .transpose()?,
        );
    }
    let images: Vec<_> = all
        .iter()
        .zip(&own)
        .map(|((names, _, config), own)| archive::Image {
            names: names.clone(),
            layers: std::iter::once(&base).chain(own).collect(),
            config: config.clone(),
        })
        .collect();
    archive::write(out, plan::arch(), &images)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("deb http://a.example/debian bookworm main", Some("http://a.example/debian"))]
    #[case("deb [signed-by=/x] https://a.example/debian/ bookworm main", Some("https://a.example/debian/"))]
    #[case(
        "# deb http://a.example/debian x\nTypes: deb\nURIs: http://b.example/debian\n",
        Some("http://b.example/debian")
    )]
    #[case("deb http://a.example/debian-security bookworm main\ndeb http://a.example/ubuntu noble main", None)]
    fn the_machines_own_debian_archive_is_used(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(debian_mirror(text).as_deref(), expected);
    }

    #[test]
    fn images_are_known_by_the_last_part_of_their_name() {
        assert_eq!(short("registry.k8s.io/coredns/coredns:v1.12.1"), "coredns");
    }

    /// A manifest that names a published image finds the one that was built here.
    #[rstest]
    #[case("meshproof.local/istio/examples-helloworld-v2:1.31-dev", &["registry.istio.io/release/examples-helloworld-v2:1.0",
        "docker.io/istio/examples-helloworld-v2:1.0"])]
    #[case("meshproof.local/curl:bookworm", &["docker.io/curlimages/curl:8.16.0"])]
    #[case("meshproof.local/istio/pilot:1.31-dev", &[])]
    fn images_have_the_names_of_published_ones(#[case] local: &str, #[case] published: &[&str]) {
        let names = names(&Versions::built_in().unwrap(), local);
        assert_eq!(names[0], local);
        assert_eq!(names[1..], *published);
    }

    #[test]
    fn what_istios_images_hold_is_reported() {
        let versions = Versions::built_in().unwrap();
        let workloads = crate::workload_kind::all().flat_map(|kind| kind.images).map(|image| image.local);
        for local in ISTIO.into_iter().chain(workloads) {
            let content = content_of(&versions, &format!("{LOCAL}/{local}")).unwrap();
            assert!(!content.programs.is_empty() || local == "curl", "{local}");
        }
    }
}
