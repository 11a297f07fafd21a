//! A cluster's own authority: its CA, service-account key, certificates and kubeconfigs.
//!
//! Nothing is shared between clusters, so a token or certificate of one is worth nothing in the
//! other, as on kind. All keys are ECDSA P-256, all files have mode 0600.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::kubelet::api::Serving;
use super::layout::ClusterLayout;
use crate::journal::write_private;
use crate::provider::ProviderError;

/// The files of one cluster's authority.
#[derive(Debug, Clone)]
pub struct Pki {
    folder: PathBuf,
}

/// Who a kubeconfig speaks as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity<'a> {
    /// May do everything (`system:masters`).
    Admin,
    /// The controllers.
    ControllerManager,
    /// Binds pods to nodes.
    Scheduler,
    /// Any node's kube-proxy.
    Proxy,
    /// Cluster DNS.
    Dns,
    /// A node's kubelet: sees what the Node authorizer shows to that node.
    Node(&'a str),
}

impl Identity<'_> {
    /// Common name and organisation: Kubernetes' user and group.
    fn subject(self) -> (String, Option<&'static str>) {
        match self {
            Self::Admin => ("kubernetes-admin".into(), Some("system:masters")),
            Self::ControllerManager => ("system:kube-controller-manager".into(), None),
            Self::Scheduler => ("system:kube-scheduler".into(), None),
            Self::Proxy => ("system:kube-proxy".into(), None),
            Self::Dns => (super::objects::DNS_USER.into(), None),
            Self::Node(name) => (format!("system:node:{name}"), Some("system:nodes")),
        }
    }

    fn file(self) -> String {
        match self {
            Self::Admin => "admin.kubeconfig".into(),
            Self::ControllerManager => "kube-controller-manager.kubeconfig".into(),
            Self::Scheduler => "kube-scheduler.kubeconfig".into(),
            Self::Proxy => "kube-proxy.kubeconfig".into(),
            Self::Dns => "coredns.kubeconfig".into(),
            Self::Node(name) => format!("{name}.kubeconfig"),
        }
    }
}

impl Pki {
    /// The authority whose files are, or will be, in `folder`.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// A file of it: `ca.crt`, `sa.key`, `sa.pub`, `apiserver.{crt,key}`, `apiserver-kubelet-client.{crt,key}`,
    /// `<node>.{crt,key}` (a node's serving certificate).
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What a node's kubelet serves with.
    pub fn serving(&self, node: &str) -> Serving {
        Serving {
            certificate: self.file(&format!("{node}.crt")),
            key: self.file(&format!("{node}.key")),
            ca: self.file("ca.crt"),
        }
    }

    /// The kubeconfig of an identity, for use inside the environment's namespaces.
    pub fn kubeconfig(&self, identity: Identity<'_>) -> PathBuf {
        self.folder.join(identity.file())
    }

    /// Makes everything: keys, certificates, kubeconfigs.
    ///
    /// # Errors
    /// When a certificate cannot be created or a file not written.
    pub fn generate(&self, cluster: &ClusterLayout) -> Result<(), ProviderError> {
        let ca = Authority::new(&cluster.name)?;
        self.write("ca.crt", &ca.0.pem())?;
        let service_accounts = KeyPair::generate().map_err(crypto)?;
        self.write("sa.key", &service_accounts.serialize_pem())?;
        self.write("sa.pub", &service_accounts.public_key_pem())?;

        let node = &cluster.control_plane;
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut names: Vec<String> = service.into_iter().map(str::to_owned).collect();
        names.extend(["kubernetes.default.svc.cluster.local".into(), "localhost".into(), node.name.clone()]);
        names.extend([cluster.api_service, node.address, Ipv4Addr::LOCALHOST].map(|a| a.to_string()));
        self.issue(&ca, "apiserver", "kube-apiserver", None, &names)?;
        self.issue(&ca, "apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), &[])?;
        for node in cluster.nodes() {
            let (user, group) = Identity::Node(&node.name).subject();
            self.issue(&ca, &node.name, &user, group, &[node.name.clone(), node.address.to_string()])?;
        }

        let mut identities =
            vec![Identity::Admin, Identity::ControllerManager, Identity::Scheduler, Identity::Proxy, Identity::Dns];
        identities.extend(cluster.nodes().map(|n| Identity::Node(&n.name)));
        for identity in identities {
            let (user, group) = identity.subject();
            let (certificate, key) = ca.certify(&user, group, &[])?;
            let text = kubeconfig(cluster, &ca.0.pem(), &certificate, &key)?;
            self.write(&identity.file(), &text)?;
        }
        Ok(())
    }

    /// Writes the administrator's kubeconfig for another address of the API server.
    ///
    /// # Errors
    /// When the one inside the environment cannot be read or the new one not written.
    pub fn admin_kubeconfig_for(&self, cluster: &ClusterLayout, server: &str, to: &Path) -> Result<(), ProviderError> {
        let from = self.kubeconfig(Identity::Admin);
        let text = std::fs::read_to_string(&from)
            .map_err(|source| ProviderError::Io { what: format!("cannot read {}", from.display()), source })?;
        write(to, &text.replace(&cluster.api_server(), server))
    }

    /// Issues a certificate for serving and calling, as `<name>.crt` and `<name>.key`.
    fn issue(
        &self,
        ca: &Authority,
        name: &str,
        user: &str,
        group: Option<&str>,
        names: &[String],
    ) -> Result<(), ProviderError> {
        let (certificate, key) = ca.certify(user, group, names)?;
        self.write(&format!("{name}.crt"), &certificate)?;
        self.write(&format!("{name}.key"), &key)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), ProviderError> {
        write(&self.file(name), text)
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(cluster: &str) -> Result<Self, ProviderError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{cluster} kubernetes"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params);
        CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(crypto)?).map(Self).map_err(crypto)
    }

    /// A certificate and its key, both PEM.
    fn certify(&self, user: &str, group: Option<&str>, names: &[String]) -> Result<(String, String), ProviderError> {
        let mut params = CertificateParams::new(names).map_err(crypto)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        validity(&mut params);
        let key = KeyPair::generate().map_err(crypto)?;
        let certificate = params.signed_by(&key, &self.0).map_err(crypto)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// A year, as kubeadm gives; an hour back, for clocks that jump.
fn validity(params: &mut CertificateParams) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + time::Duration::days(365);
}

fn kubeconfig(cluster: &ClusterLayout, ca: &str, certificate: &str, key: &str) -> Result<String, ProviderError> {
    let data = |text: &str| ByteString(text.as_bytes().to_vec());
    let name = &cluster.name;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": cluster.api_server(), "certificate-authority-data": data(ca)}}],
        "users": [{"name": name, "user": {"client-certificate-data": data(certificate), "client-key-data": data(key)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    });
    serde_saphyr::to_string(&config).map_err(|e| ProviderError::Io {
        what: format!("cannot write a kubeconfig of cluster {name}"),
        source: std::io::Error::other(e),
    })
}

fn write(path: &Path, text: &str) -> Result<(), ProviderError> {
    write_private(path, text.as_bytes()).map_err(|e| ProviderError::Io {
        what: format!("cannot write {}", path.display()),
        source: std::io::Error::other(e),
    })
}

fn crypto(source: rcgen::Error) -> ProviderError {
    ProviderError::Io { what: "cannot create a certificate".into(), source: std::io::Error::other(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::netns::layout::{
        Layout,
        tests::{spec, topology},
    };
    use std::os::unix::fs::PermissionsExt;
    use x509_parser::prelude::*;

    #[test]
    fn the_api_server_is_named_by_every_address_it_has_and_keys_are_private() {
        let clusters = vec![spec("cluster1", "n", "10.10.0.0/16", "10.11.0.0/16")];
        let layout = Layout::new(&topology(clusters), "a1").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::at(folder.path());
        pki.generate(&layout.clusters[0]).unwrap();

        let (_, pem) = parse_x509_pem(&std::fs::read(pki.file("apiserver.crt")).unwrap()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.iter();
        let names: Vec<String> = names
            .map(|name| match name {
                GeneralName::IPAddress(bytes) => bytes.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
                GeneralName::DNSName(name) => (*name).to_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        for wanted in ["10.11.0.1", "172.18.1.1", "127.0.0.1", "kubernetes.default.svc", "cluster1-control-plane"] {
            assert!(names.iter().any(|n| n == wanted), "{wanted} is not in {names:?}");
        }

        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
        let host = folder.path().join("host");
        pki.admin_kubeconfig_for(&layout.clusters[0], "https://127.0.0.1:1234", &host).unwrap();
        let host = kube::config::Kubeconfig::read_from(host).unwrap();
        let cluster = host.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:1234"));
    }
}
