//! Trust: one root for the mesh and one intermediate per cluster, the way Istio takes them (secret `cacerts`).
//!
//! As Istio's own `tools/certs/common.mk` makes them, but with ECDSA P-256 keys. The root's key is dropped as soon as the
//! intermediates are signed; the intermediates' keys live in memory and in the clusters' secrets, never in a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::{MeshError, NAMESPACE};
use crate::apply::Manifest;
use crate::topology::MeshSpec;

/// Name of the secret that a control plane takes its CA from.
pub const SECRET: &str = "cacerts";

/// Lives longer than any environment that is kept.
const ROOT_LIFE: Duration = Duration::days(3650);
const INTERMEDIATE_LIFE: Duration = Duration::days(730);
/// The clocks of the clusters may be behind this machine's.
const BACKDATED: Duration = Duration::hours(1);

/// The roots and the intermediates of an environment.
#[derive(Debug)]
pub struct Trust {
    /// Each cluster's intermediate.
    pub intermediates: BTreeMap<String, Intermediate>,
}

/// One cluster's intermediate CA.
pub struct Intermediate {
    /// Its certificate, PEM.
    pub certificate: String,
    /// The certificate of the root that signed it, PEM.
    pub root: String,
    /// Its private key, PEM (PKCS #8).
    key: String,
}

impl fmt::Debug for Intermediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intermediate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn params(common_name: &str, locality: Option<&str>, life: Duration, depth: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Istio");
    name.push(DnType::CommonName, common_name);
    if let Some(locality) = locality {
        name.push(DnType::LocalityName, locality);
    }
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(depth);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + life;
    params
}

impl Trust {
    /// A new root for each name of one, and an intermediate signed by it for each cluster: pairs of a cluster's name and the
    /// name of its root.
    ///
    /// # Errors
    /// [`MeshError::Trust`] when the system has no randomness to give.
    pub fn generate<'a>(clusters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, MeshError> {
        let clusters: Vec<(&str, &str)> = clusters.into_iter().collect();
        let names: BTreeSet<&str> = clusters.iter().map(|(_, root)| *root).collect();
        let mut roots = BTreeMap::new();
        for name in names {
            // As Istio names it; where there are several, a certificate's issuer says which.
            let locality = (name != MeshSpec::default().root).then_some(name);
            let params = params("Root CA", locality, ROOT_LIFE, BasicConstraints::Unconstrained);
            roots.insert(name, CertifiedIssuer::self_signed(params, KeyPair::generate()?)?);
        }
        let mut intermediates = BTreeMap::new();
        for (cluster, root) in clusters {
            let Some(root) = roots.get(root) else { continue };
            let key = KeyPair::generate()?;
            let mut params =
                params("Intermediate CA", Some(cluster), INTERMEDIATE_LIFE, BasicConstraints::Constrained(0));
            params.subject_alt_names = CertificateParams::new([format!("istiod.{NAMESPACE}.svc")])?.subject_alt_names;
            params.use_authority_key_identifier_extension = true;
            let certificate = params.signed_by(&key, root)?.pem();
            let intermediate = Intermediate { certificate, root: root.pem(), key: key.serialize_pem() };
            intermediates.insert(cluster.to_owned(), intermediate);
        }
        Ok(Self { intermediates })
    }

    /// The secret `cacerts` of `cluster`; `None` when it has no intermediate.
    ///
    /// # Errors
    /// Never for the names that a topology can hold.
    pub fn secret(&self, cluster: &str) -> Result<Option<Manifest>, MeshError> {
        let Some(ca) = self.intermediates.get(cluster) else { return Ok(None) };
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": SECRET, "namespace": NAMESPACE },
            "data": {
                "ca-cert.pem": bytes(&ca.certificate),
                "ca-key.pem": bytes(&ca.key),
                "root-cert.pem": bytes(&ca.root),
                "cert-chain.pem": bytes(&format!("{}{}", ca.certificate, ca.root)),
            },
        });
        Ok(Some(Manifest::made("trust of the cluster", secret)?))
    }
}

/// As a secret's `data` holds it.
fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    fn pem(text: &str) -> Pem {
        parse_x509_pem(text.as_bytes()).unwrap().1
    }

    #[test]
    fn every_cluster_has_an_intermediate_of_its_own_under_one_root() {
        let trust = Trust::generate([("cluster1", "root1"), ("cluster2", "root1")]).unwrap();
        let root = pem(&trust.intermediates["cluster1"].root);
        let root = root.parse_x509().unwrap();
        assert!(root.verify_signature(None).is_ok(), "the root signs itself");
        for (cluster, ca) in &trust.intermediates {
            let ca = pem(&ca.certificate);
            let ca = ca.parse_x509().unwrap();
            assert!(ca.verify_signature(Some(root.public_key())).is_ok(), "the root signs {cluster}'s");
            assert_eq!(ca.issuer(), root.subject());
            assert_eq!(ca.subject().iter_locality().next().unwrap().as_str().unwrap(), cluster);
            assert_ne!(ca.public_key(), root.public_key());
        }
        let keys: Vec<_> = trust.intermediates.values().map(|i| &i.key).collect();
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn clusters_that_name_another_root_are_not_trusted() {
        let trust = Trust::generate([("cluster1", "root1"), ("cluster2", "root2")]).unwrap();
        let (one, two) = (&trust.intermediates["cluster1"], &trust.intermediates["cluster2"]);
        assert_ne!(one.root, two.root);
        let (ca, root) = (pem(&two.certificate), pem(&one.root));
        let (ca, root) = (ca.parse_x509().unwrap(), root.parse_x509().unwrap());
        assert!(ca.verify_signature(Some(root.public_key())).is_err(), "root1 does not sign cluster2's");
        assert_eq!(ca.issuer().to_string(), "O=Istio, CN=Root CA, L=root2");
    }

    #[test]
    fn an_intermediate_signs_workloads_but_no_further_authority() {
        let trust = Trust::generate([("cluster1", "root1"), ("cluster2", "root1")]).unwrap();
        let ca = pem(&trust.intermediates["cluster1"].certificate);
        let ca = ca.parse_x509().unwrap();
        let constraints = ca.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = ca.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && usage.digital_signature());
        let names = &ca.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names, &[GeneralName::DNSName("istiod.istio-system.svc")]);
    }

    #[test]
    fn certificates_are_valid_now_and_for_longer_than_an_environment_lives() {
        let trust = Trust::generate([("cluster1", "root1"), ("cluster2", "root1")]).unwrap();
        let year = ASN1Time::from_timestamp(OffsetDateTime::now_utc().unix_timestamp() + 365 * 86_400).unwrap();
        let ca = &trust.intermediates["cluster1"];
        for text in [&ca.root, &ca.certificate] {
            let pem = pem(text);
            let validity = pem.parse_x509().unwrap().validity().clone();
            assert!(validity.is_valid() && validity.is_valid_at(year));
        }
    }

    #[test]
    fn the_secret_holds_what_istio_reads_and_the_chain_ends_at_the_root() {
        let trust = Trust::generate([("cluster1", "root1"), ("cluster2", "root1")]).unwrap();
        let secret = trust.secret("cluster1").unwrap().unwrap();
        let data: BTreeMap<String, ByteString> = serde_json::from_value(secret.object.data["data"].clone()).unwrap();
        let data: BTreeMap<&str, &str> =
            data.iter().map(|(k, v)| (k.as_str(), std::str::from_utf8(&v.0).unwrap())).collect();
        let keys: Vec<_> = data.keys().copied().collect();
        assert_eq!(keys, ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"]);
        let chain: Vec<_> = Pem::iter_from_buffer(data["cert-chain.pem"].as_bytes())
            .map(|p| p.unwrap().parse_x509().unwrap().subject().to_string())
            .collect();
        assert_eq!(chain, ["O=Istio, CN=Intermediate CA, L=cluster1", "O=Istio, CN=Root CA"]);
        assert_eq!(data["root-cert.pem"], trust.intermediates["cluster1"].root);
        // The key belongs to the certificate.
        let key = KeyPair::from_pem(data["ca-key.pem"]).unwrap();
        let ca = pem(data["ca-cert.pem"]);
        assert_eq!(ca.parse_x509().unwrap().public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        assert!(trust.secret("cluster9").unwrap().is_none());
    }

    #[test]
    fn keys_are_not_printed() {
        let trust = Trust::generate([("cluster1", "root1"), ("cluster2", "root1")]).unwrap();
        assert!(!format!("{trust:?}").contains("PRIVATE KEY"));
    }
}
