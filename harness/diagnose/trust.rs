//! The CAs of both ends come of one root: in the control planes' secrets, and in what the proxies hold.

use std::collections::BTreeMap;

use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

use super::facts::Facts;
use super::federation;
use super::rung::{Broken, Check, Checked};
use super::scene::Scene;
use crate::istio::{NAMESPACE, trust};
use crate::observe::snapshot::ProxySnapshot;
use crate::workload::PodInfo;

pub(super) async fn look(scene: &Scene<'_>) -> Checked {
    let mut parts = secrets(scene);
    parts.extend(federation::trust(scene).await);
    let caller = scene.caller_proxy().await;
    let servers = scene.server_proxies().await;
    let behind = scene.servers();
    match caller {
        Err(why) => parts.push(Check::Unseen(why.clone())),
        Ok(caller) => {
            let home = scene.home();
            for (at, proxy) in servers {
                let Some(server) = behind.get(*at) else { continue };
                match proxy {
                    Err(why) => parts.push(Check::Unseen(why.clone())),
                    Ok(proxy) => {
                        parts.push(verifies(scene, (home, caller), (server.facts, proxy)));
                        parts.push(verifies(scene, (server.facts, proxy), (home, caller)));
                    }
                }
            }
        }
    }
    let command =
        scene.caller_pod().map(|pod| scene.ask_envoy(&scene.home().cluster, &PodInfo::of(pod).reference(), "certs"));
    Checked { expected: "one root at both ends".into(), command, parts }
}

/// The roots in the secrets that control planes take their CA from. A cluster without the secret has nothing to differ.
fn secrets(scene: &Scene<'_>) -> Vec<Check> {
    let mut roots: BTreeMap<String, (&Facts, String)> = BTreeMap::new();
    let mut parts = Vec::new();
    for facts in &scene.facts {
        let secret = match &facts.cacerts {
            Err(why) => {
                parts.push(Check::Unseen(why.clone()));
                continue;
            }
            Ok(None) => continue,
            Ok(Some(secret)) => secret,
        };
        let data = secret.data.as_ref();
        let pem = |key: &str| data.and_then(|d| d.get(key)).map(|b| String::from_utf8_lossy(&b.0).into_owned());
        let root = pem("root-cert.pem").unwrap_or_default();
        let command = scene.kubectl(
            &facts.cluster,
            &format!(
                "-n {NAMESPACE} get secret {} -o 'go-template={{{{index .data \"root-cert.pem\"}}}}' | base64 -d | \
                 openssl x509 -noout -serial -fingerprint",
                trust::SECRET
            ),
        );
        let fix = "create a `cacerts` secret of one root in both clusters, and restart istiod";
        if let Some(ca) = pem("ca-cert.pem")
            && let Err(why) = signed(&ca, &root, ASN1Time::now())
        {
            parts.push(Check::from(Broken {
                expected: format!(
                    "the intermediate in {} of {} is signed by the root beside it",
                    trust::SECRET,
                    facts.name()
                ),
                observed: why,
                command: command.clone(),
                fix: fix.into(),
            }));
        }
        // Another mesh may have another root.
        let same_mesh = |other: &Facts| {
            let mesh = |f: &Facts| scene.question.topology.and_then(|t| t.cluster(f.name())).map(|c| &c.mesh.id);
            mesh(other) == mesh(facts)
        };
        let known = roots.values().find(|(other, _)| same_mesh(other)).map(|(other, root)| (*other, root.clone()));
        match known {
            Some((other, known)) if known.trim() != root.trim() => parts.push(Check::from(Broken {
                expected: format!("{} and {} have one root in {}", other.name(), facts.name(), trust::SECRET),
                observed: format!(
                    "{} has {}, {} has {}",
                    other.name(),
                    root_in_words(&known),
                    facts.name(),
                    root_in_words(&root)
                ),
                command,
                fix: fix.into(),
            })),
            Some(_) => parts.push(Check::Holds(format!("{} has it too", facts.name()))),
            None => parts.push(Check::Holds(format!("{} has {}", facts.name(), root_in_words(&root)))),
        }
        roots.insert(facts.name().to_owned(), (facts, root));
    }
    parts
}

/// Whether what `at` trusts has signed what `shows` shows.
fn verifies(scene: &Scene<'_>, at: (&Facts, &ProxySnapshot), shows: (&Facts, &ProxySnapshot)) -> Check {
    let (roots, (_, chain)) = (at.1.certificates().0, shows.1.certificates());
    let (who, whom) =
        (format!("{} ({})", at.1.pod.name, at.0.name()), format!("{} ({})", shows.1.pod.name, shows.0.name()));
    // Envoy loads certificates when something in its configuration asks for them.
    for (holder, held) in [(&who, &roots), (&whom, &chain)] {
        if pems(held).is_empty() {
            return Check::Unseen(format!("{holder} has no certificate: nothing uses mutual TLS with it"));
        }
    }
    match signed(&chain, &roots, ASN1Time::now()) {
        Ok(()) => Check::Holds("the proxies verify each other".to_owned()),
        Err(why) => Check::from(Broken {
            expected: format!("{who} trusts the root of {whom}"),
            observed: why,
            command: scene.ask_envoy(&shows.0.cluster, &shows.1.pod, "certs"),
            fix: format!(
                "sign the CAs of {} and {} by one root (secret {}), restart istiod and then the workloads",
                at.0.name(),
                shows.0.name(),
                trust::SECRET
            ),
        }),
    }
}

/// Whether every certificate of `chain` is signed by the next and the last of them by one of `roots`; all PEM.
fn signed(chain: &str, roots: &str, now: ASN1Time) -> Result<(), String> {
    let (chain, roots) = (pems(chain), pems(roots));
    let (chain, roots) = (parsed(&chain), parsed(&roots));
    let (Some(leaf), false) = (chain.first(), roots.is_empty()) else {
        return Err("there is no certificate".into());
    };
    if let Some(old) = chain.iter().chain(&roots).find(|c| !c.validity().is_valid_at(now)) {
        return Err(format!(
            "`{}` ({}) is valid until {}",
            old.subject(),
            old.raw_serial_as_string(),
            old.validity().not_after
        ));
    }
    let mut current = leaf;
    for _ in 0..=chain.len() {
        if roots.iter().any(|root| issued(current, root)) {
            return Ok(());
        }
        match chain.iter().find(|next| !std::ptr::eq(*next, current) && issued(current, next)) {
            Some(next) => current = next,
            None => break,
        }
    }
    let trusted: Vec<String> =
        roots.iter().map(|r| format!("`{}` ({})", r.subject(), r.raw_serial_as_string())).collect();
    Err(format!("it is signed by `{}`; trusted are {}", current.issuer(), trusted.join(", ")))
}

/// Whether `issuer` made `certificate`.
fn issued(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer() == issuer.subject() && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

fn pems(text: &str) -> Vec<Pem> {
    Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok).collect()
}

fn parsed(pems: &[Pem]) -> Vec<X509Certificate<'_>> {
    pems.iter().filter_map(|pem| pem.parse_x509().ok()).collect()
}

/// A root in words: its name and serial number.
fn root_in_words(root: &str) -> String {
    let pems = pems(root);
    match parsed(&pems).first() {
        Some(root) => format!("root {}", root.raw_serial_as_string()),
        None => "no root".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::trust::Trust;

    #[test]
    fn a_chain_of_another_root_is_refused_though_the_names_are_the_same() {
        let (one, two) = (Trust::generate([("c", "root1")]).unwrap(), Trust::generate([("c", "root1")]).unwrap());
        let (intermediate, now) = (&one.intermediates["c"].certificate, ASN1Time::now());
        assert_eq!(signed(intermediate, &one.intermediates["c"].root, now), Ok(()));
        let why = signed(intermediate, &two.intermediates["c"].root, now).unwrap_err();
        assert!(why.starts_with("it is signed by `O=Istio, CN=Root CA`; trusted are"), "{why}");
        assert_eq!(signed("", &one.intermediates["c"].root, now).unwrap_err(), "there is no certificate");
        let later = ASN1Time::from_timestamp(now.timestamp() + 800 * 86_400).unwrap();
        let why = signed(intermediate, &one.intermediates["c"].root, later).unwrap_err();
        assert!(why.contains("CN=Intermediate CA") && why.contains("is valid until"), "{why}");
    }

    #[test]
    fn what_a_proxy_shows_comes_of_what_it_trusts() {
        let (roots, chain) = crate::observe::snapshot::tests::recorded().certificates();
        // The leaf lived for a day.
        let then = ASN1Time::from_timestamp(1795507200).unwrap();
        assert_eq!(signed(&chain, &roots, then), Ok(()));
    }
}
