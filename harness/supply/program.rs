//! The files that the supply knows by name: one entry of `programs!` for each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Origin, Purpose};

/// All that the supply knows of a [`Program`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// Its name: also the name of its file in the cache.
    pub(super) name: &'static str,
    /// How it prints its version; `None` for a file that is not a program, or a program that has no version.
    pub(super) version: Option<VersionCommand>,
    /// The part of `versions.yaml` that its version is in.
    pub(super) part: Component,
    /// Where it comes from when images are not the source.
    pub(super) package: Package,
    /// The providers' purposes that need it as a file of its own, whatever the source.
    pub(super) needed_by: &'static [Purpose],
    /// Where it is in a node image that is built from packages.
    pub(super) in_node: InNode,
    /// The image that runs it, if it is an add-on.
    pub(super) add_on: Option<AddOnImage>,
    /// The command-line option that replaces it with one's own build; its name, unless given.
    option: Option<&'static str>,
}

/// How a program prints its version.
#[derive(Debug, Clone, Copy)]
pub(super) struct VersionCommand {
    /// Arguments that make it print its version and exit.
    pub(super) args: &'static [&'static str],
    /// A text in the output that no other program prints.
    pub(super) mark: &'static str,
}

/// The parts of `versions.yaml` that have a version of their own and can be replaced with one's own build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Component {
    Kubernetes,
    Istio,
    Envoy,
    /// Compared with nothing.
    Other,
}

/// Where a file comes from when images are not the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Package {
    /// A main package of a Go build (`gobuild::BUILDS`), by the build's name.
    Go { build: &'static str, package: &'static str },
    /// The Python package of Envoy.
    Wheel,
    /// A file of Istio's source: its path there.
    IstioSource(&'static str),
    /// Definitions out of a Go module that Istio is built with. No image is asked for them.
    Crds,
    /// An artifact of Maven Central (`packages.maven` in `versions.yaml`). No image is asked for it.
    Maven,
}

/// Where a program is in a node image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InNode {
    /// Nowhere.
    No,
    /// `/usr/bin` of the node.
    Node,
    /// An image that kubeadm lists, which has the program's name: the path in that image, without leading slash.
    KubeadmImage(&'static str),
    /// An image of `versions.yaml`, which says where.
    ListedImage,
}

/// What runs an add-on.
#[derive(Debug, Clone, Copy)]
pub(super) struct AddOnImage {
    /// Its published image, which clusters with a container runtime run when images are the source.
    /// `versions.yaml` may name another (`registry.add-ons`).
    pub(super) published: &'static str,
    /// Its image when it is built here: the name without tag.
    pub(super) local: &'static str,
    /// A program of the machine that runs it on netns, and what Debian's package of it is called.
    pub(super) host: (&'static str, &'static str),
}

const NETNS: &[Purpose] = &[Purpose::Netns];
const KIND: &[Purpose] = &[Purpose::Kind];

/// CustomResourceDefinitions that a mesh is installed with when a scenario asks for them.
const fn crds(name: &'static str) -> Record {
    Record {
        name,
        version: None,
        part: Component::Other,
        package: Package::Crds,
        needed_by: &[],
        in_node: InNode::No,
        add_on: None,
        option: None,
    }
}

/// A file of Istio's source that an image holds.
const fn istio_file(name: &'static str, path: &'static str) -> Record {
    Record {
        name,
        version: None,
        part: Component::Other,
        package: Package::IstioSource(path),
        needed_by: NETNS,
        in_node: InNode::ListedImage,
        add_on: None,
        option: None,
    }
}

const fn go(name: &'static str, part: Component, build: &'static str, package: &'static str) -> Record {
    let package = Package::Go { build, package };
    Record { name, version: None, part, package, needed_by: &[], in_node: InNode::No, add_on: None, option: None }
}

const fn version(args: &'static [&'static str], mark: &'static str) -> Option<VersionCommand> {
    Some(VersionCommand { args, mark })
}

const KUBERNETES_VERSION: Option<VersionCommand> = version(&["--version"], "Kubernetes v");
const ISTIO_VERSION: Option<VersionCommand> = version(&["version", "--short"], "");

macro_rules! programs {
    ($($(#[$doc:meta])* $variant:ident: $record:expr,)+) => {
        /// A file that the supply can provide. Most are programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Program {
            $($(#[$doc])* $variant,)+
        }

        impl Program {
    /// The files of CustomResourceDefinitions that a mesh can be installed with.
    pub fn crds() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|program| program.record().package == Package::Crds)
    }

            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// All that the supply knows of it.
            pub(super) const fn record(self) -> &'static Record {
                match self {
                    $(Self::$variant => const { &$record },)+
                }
            }
        }
    };
}

programs! {
    /// The Kubernetes API server.
    KubeApiserver: Record {
        version: KUBERNETES_VERSION,
        needed_by: NETNS,
        in_node: InNode::KubeadmImage("usr/local/bin/kube-apiserver"),
        ..go("kube-apiserver", Component::Kubernetes, "kubernetes-control", "k8s.io/kubernetes/cmd/kube-apiserver")
    },
    /// The Kubernetes controller manager.
    KubeControllerManager: Record {
        version: KUBERNETES_VERSION,
        needed_by: NETNS,
        in_node: InNode::KubeadmImage("usr/local/bin/kube-controller-manager"),
        ..go(
            "kube-controller-manager",
            Component::Kubernetes,
            "kubernetes-control",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
        )
    },
    /// The Kubernetes scheduler.
    KubeScheduler: Record {
        version: KUBERNETES_VERSION,
        in_node: InNode::KubeadmImage("usr/local/bin/kube-scheduler"),
        ..go("kube-scheduler", Component::Kubernetes, "kubernetes-node", "k8s.io/kubernetes/cmd/kube-scheduler")
    },
    /// Implements ClusterIPs on a node.
    KubeProxy: Record {
        version: KUBERNETES_VERSION,
        needed_by: NETNS,
        in_node: InNode::KubeadmImage("usr/local/bin/kube-proxy"),
        ..go("kube-proxy", Component::Kubernetes, "kubernetes-control", "k8s.io/kubernetes/cmd/kube-proxy")
    },
    /// The Kubernetes kubelet.
    Kubelet: Record {
        version: KUBERNETES_VERSION,
        in_node: InNode::Node,
        ..go("kubelet", Component::Kubernetes, "kubernetes-node", "k8s.io/kubernetes/cmd/kubelet")
    },
    /// Sets up a Kubernetes node.
    Kubeadm: Record {
        version: version(&["version", "-o", "short"], ""),
        in_node: InNode::Node,
        ..go("kubeadm", Component::Kubernetes, "kubernetes-node", "k8s.io/kubernetes/cmd/kubeadm")
    },
    /// The Kubernetes command line.
    Kubectl: Record {
        version: version(&["version", "--client"], ""),
        needed_by: KIND,
        in_node: InNode::Node,
        ..go("kubectl", Component::Kubernetes, "kubernetes-node", "k8s.io/kubernetes/cmd/kubectl")
    },
    /// The store of the API server.
    Etcd: Record {
        version: version(&["--version"], "etcd Version: "),
        needed_by: NETNS,
        in_node: InNode::KubeadmImage("usr/local/bin/etcd"),
        ..go("etcd", Component::Other, "etcd", "go.etcd.io/etcd/server/v3")
    },
    /// The DNS server of a cluster.
    Coredns: Record {
        version: version(&["-version"], "CoreDNS-"),
        needed_by: NETNS,
        in_node: InNode::KubeadmImage("coredns"),
        ..go("coredns", Component::Other, "coredns", ".")
    },
    /// kind.
    Kind: Record {
        version: version(&["version"], ""),
        needed_by: KIND,
        ..go("kind", Component::Other, "kind", "sigs.k8s.io/kind")
    },
    /// Istio's control plane (istiod).
    PilotDiscovery: Record {
        version: ISTIO_VERSION,
        needed_by: NETNS,
        in_node: InNode::ListedImage,
        add_on: None,
        option: Some("istiod"),
        ..go("pilot-discovery", Component::Istio, "istio-control", "istio.io/istio/pilot/cmd/pilot-discovery")
    },
    /// The Istio command line. Istio's charts are inside it.
    Istioctl: Record {
        version: version(&["version", "--remote=false", "--short"], ""),
        needed_by: &[Purpose::Netns, Purpose::Kind, Purpose::Mesh],
        ..go("istioctl", Component::Istio, "istio-control", "istio.io/istio/istioctl/cmd/istioctl")
    },
    /// Runs beside Envoy in every proxy.
    PilotAgent: Record {
        version: ISTIO_VERSION,
        needed_by: NETNS,
        in_node: InNode::ListedImage,
        ..go("pilot-agent", Component::Istio, "istio-agent", "istio.io/istio/pilot/cmd/pilot-agent")
    },
    /// The proxy.
    Envoy: Record {
        name: "envoy",
        version: version(&["--version"], "  version: "),
        part: Component::Envoy,
        package: Package::Wheel,
        needed_by: NETNS,
        in_node: InNode::ListedImage,
        add_on: None,
        option: None,
    },
    /// `envoy_bootstrap_tmpl.json`, from which pilot-agent writes Envoy's bootstrap configuration.
    EnvoyBootstrap: istio_file("envoy-bootstrap", "tools/packaging/common/envoy_bootstrap.json"),
    /// The server of the helloworld sample.
    Helloworld: Record {
        needed_by: NETNS,
        in_node: InNode::ListedImage,
        ..go("helloworld", Component::Other, "helloworld", ".")
    },
    /// Istio's echo server, which speaks every protocol.
    EchoServer: Record {
        needed_by: NETNS,
        in_node: InNode::ListedImage,
        ..go("echo-server", Component::Other, "echo", "istio.io/istio/pkg/test/echo/cmd/server")
    },
    /// The client of Istio's echo server.
    EchoClient: Record {
        needed_by: NETNS,
        in_node: InNode::ListedImage,
        ..go("echo-client", Component::Other, "echo", "istio.io/istio/pkg/test/echo/cmd/client")
    },
    /// The certificate that Istio's echo server shows; its image has it, and its key is public.
    EchoCertificate: istio_file("echo-certificate", "tests/testdata/certs/dns/cert-chain.pem"),
    /// The key of [`Self::EchoCertificate`].
    EchoKey: istio_file("echo-key", "tests/testdata/certs/dns/key.pem"),
    /// Holds a pod's namespaces.
    Pause: Record {
        in_node: InNode::KubeadmImage("pause"),
        ..go("pause", Component::Other, "pause", ".")
    },
    /// The CustomResourceDefinitions of the Gateway API.
    GatewayApi: crds("gateway-api"),
    /// The CustomResourceDefinitions of the Multi-Cluster Services API.
    McsApi: crds("mcs-api"),
    /// The Zipkin server: a Java archive.
    Zipkin: Record {
        name: "zipkin",
        version: None,
        part: Component::Other,
        package: Package::Maven,
        needed_by: &[],
        in_node: InNode::No,
        add_on: Some(AddOnImage {
            published: "docker.io/openzipkin/zipkin:latest",
            local: "meshproof.local/zipkin",
            host: ("java", "openjdk-17-jre-headless"),
        }),
        option: None,
    },
}

impl Program {
    /// Its name: also the name of its file in the cache.
    pub fn name(self) -> &'static str {
        self.record().name
    }

    /// Whether it is a file that is read, not a program.
    pub(super) fn is_text(self) -> bool {
        matches!(self.record().package, Package::IstioSource(_) | Package::Crds)
    }

    /// The command-line option, without dashes, that replaces it with one's own build.
    pub(super) fn option(self) -> &'static str {
        self.record().option.unwrap_or(self.name())
    }
}

impl Purpose {
    /// The files that it needs. From packages, a node image is built, and all that is in it.
    pub fn programs(self, origin: Origin) -> Vec<Program> {
        let builds_node = self == Self::Kind && origin == Origin::Packages;
        let needs = |p: &Program| {
            let record = p.record();
            record.needed_by.contains(&self) || builds_node && record.in_node != InNode::No
        };
        Program::ALL.iter().copied().filter(needs).collect()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Program {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|p| p.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|p| p.name()).collect();
            format!("unknown program {name:?} (known: {})", known.join(", "))
        })
    }
}

impl Serialize for Program {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Program {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_reads_back_the_same_way_everywhere() {
        for program in Program::ALL {
            assert_eq!(program.name().parse(), Ok(*program));
            let json = serde_json::to_value(program).unwrap();
            assert_eq!(json, program.name());
            assert_eq!(serde_json::from_value::<Program>(json).unwrap(), *program);
        }
        assert!("kube".parse::<Program>().unwrap_err().contains("kube-apiserver, "));
    }

    #[test]
    fn each_purpose_needs_what_its_clusters_run() {
        let names = |purpose: Purpose, origin| {
            let mut names: Vec<_> = purpose.programs(origin).iter().map(|p| p.name()).collect();
            names.sort_unstable();
            names.join(" ")
        };
        let netns = "coredns echo-certificate echo-client echo-key echo-server envoy envoy-bootstrap etcd helloworld istioctl kube-apiserver kube-controller-manager \
                     kube-proxy pilot-agent pilot-discovery";
        assert_eq!(names(Purpose::Netns, Origin::Packages), netns);
        assert_eq!(names(Purpose::Netns, Origin::Registry), netns);
        assert_eq!(names(Purpose::Kind, Origin::Registry), "istioctl kind kubectl");
        assert_eq!(Purpose::Kind.programs(Origin::Packages).len(), 21);
        assert_eq!(names(Purpose::Mesh, Origin::Registry), "istioctl");
        assert_eq!(names(Purpose::Workloads, Origin::Registry), "");
    }
}
