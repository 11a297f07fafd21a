//! Objects that meshproof installs: a scenario may not apply over them, as the mesh would not be what the harness takes it for.

use crate::apply::Written;
use crate::observe::NAMESPACE;
use crate::source::Problem;

/// Kinds and the beginnings of names in the mesh's namespace, and what to do instead. A name ends there or goes on with a dash (a
/// revision).
const IN_ISTIO_SYSTEM: &[(&str, &str, &str)] = &[
    ("ConfigMap", "istio", "set MeshConfig with `mesh: { config: { … } }`"),
    ("ConfigMap", "istio-sidecar-injector", "set chart values with `mesh: { values: { … } }`"),
    ("ConfigMap", "values", "set chart values with `mesh: { values: { … } }`"),
    ("Deployment", "istiod", "set chart values with `mesh: { values: { pilot: { … } } }`"),
    ("Service", "istiod", "set chart values with `mesh: { values: { pilot: { … } } }`"),
    ("Deployment", "istio-eastwestgateway", "the topology has the east-west gateways"),
    ("Service", "istio-eastwestgateway", "the topology has the east-west gateways"),
    ("Secret", "cacerts", "the topology names the root certificates (`root`)"),
    ("Secret", "istio-remote-secret", "the topology says which istiod reads which cluster"),
];

/// Kinds and names in any namespace, or in none.
const ANYWHERE: &[(&str, &str, &str)] = &[
    ("ConfigMap", "istio-ca-root-cert", "istiod writes it into every namespace"),
    ("ConfigMap", "kube-root-ca.crt", "Kubernetes writes it into every namespace"),
    ("MutatingWebhookConfiguration", "istio-sidecar-injector", "set chart values with `mesh: { values: { … } }`"),
    ("ValidatingWebhookConfiguration", "istio-validator", "set chart values with `mesh: { values: { … } }`"),
    ("ValidatingWebhookConfiguration", "istiod-default-validator", "set chart values with `mesh: { values: { … } }`"),
];

/// What is wrong with an object that a scenario applies, if meshproof owns it.
pub fn problem(object: &Written) -> Option<Problem> {
    let manifest = &object.manifest;
    let (kind, name) = (manifest.kind(), manifest.name());
    let names = |(of, owned, _): &&(&str, &str, &str)| {
        kind == *of && name.strip_prefix(owned).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let here = IN_ISTIO_SYSTEM.iter().filter(|_| manifest.namespace() == Some(NAMESPACE)).find(names);
    let (_, _, instead) = here.or_else(|| ANYWHERE.iter().find(names))?;
    let what = format!("meshproof installs {} itself", manifest.label());
    Some(object.problem("metadata.name", what).label("may not be applied over").help((*instead).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;
    use crate::source::Source;
    use rstest::rstest;

    #[rstest]
    #[case("v1", "ConfigMap", "istio-system", "istio", true)]
    #[case("v1", "ConfigMap", "istio-system", "istio-canary", true)]
    #[case("v1", "ConfigMap", "istio-system", "mine", false)]
    #[case("v1", "ConfigMap", "app1", "istio", false)]
    #[case("v1", "ConfigMap", "app1", "istio-ca-root-cert", true)]
    #[case("v1", "Secret", "istio-system", "cacerts", true)]
    #[case("v1", "Secret", "istio-system", "cacerts2", false)]
    #[case("security.istio.io/v1", "PeerAuthentication", "istio-system", "default", false)]
    fn what_meshproof_installs_is_not_applied_over(
        #[case] api: &str,
        #[case] kind: &str,
        #[case] namespace: &str,
        #[case] name: &str,
        #[case] owned: bool,
    ) {
        let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{ namespace: {namespace}, name: {name} }}\n");
        let read = apply::read(&Source::new("f.yaml", text)).unwrap();
        let found = problem(&read[0]);
        assert_eq!(found.is_some(), owned);
        let at = found.and_then(|problem| problem.position());
        assert!(at.is_none_or(|(line, _)| line == 3), "{at:?}");
    }
}
