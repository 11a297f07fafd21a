//! The rights that the ladder needs, as a role that changes nothing.

use serde_json::{Value, json};

/// The name of the role and of its binding.
pub const ROLE: &str = "meshproof-reader";

/// What is read in every namespace: API group, kinds.
const READ: [(&str, &[&str]); 4] = [
    ("", &["configmaps", "namespaces", "nodes", "pods", "services"]),
    ("apps", &["deployments"]),
    ("networking.istio.io", &["virtualservices"]),
    ("admissionregistration.k8s.io", &["mutatingwebhookconfigurations"]),
];

/// What is asked of an API server when the remote secrets may be read: it stores neither.
const REVIEWS: [(&str, &str); 2] =
    [("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews")];

/// The objects that give a user the rights: `subject` is an RBAC subject. `secrets`: also those of the control plane's namespace,
/// which hold the credentials of other clusters and the mesh's CA.
pub fn objects(subject: &Value, secrets: bool, system: &str) -> Vec<Value> {
    let mut rules: Vec<Value> = READ
        .iter()
        .map(|(group, resources)| json!({ "apiGroups": [group], "resources": resources, "verbs": ["get", "list"] }))
        .collect();
    // What istiod and the proxies report is read from ports of their pods.
    rules.push(json!({ "apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create", "get"] }));
    if secrets {
        let reviews =
            REVIEWS.map(|(group, kind)| json!({ "apiGroups": [group], "resources": [kind], "verbs": ["create"] }));
        rules.extend(reviews);
    }
    let labels = json!({ "app.kubernetes.io/name": "meshproof" });
    let group = "rbac.authorization.k8s.io";
    let version = "rbac.authorization.k8s.io/v1";
    let metadata = json!({ "name": ROLE, "labels": labels });
    let mut objects = vec![
        json!({ "apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": rules }),
        json!({ "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": ROLE }, "subjects": [subject] }),
    ];
    if secrets {
        let metadata = json!({ "name": ROLE, "namespace": system, "labels": labels });
        let read = json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"] });
        objects.push(json!({ "apiVersion": version, "kind": "Role", "metadata": metadata, "rules": [read] }));
        objects.push(json!({ "apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": group, "kind": "Role", "name": ROLE }, "subjects": [subject] }));
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Nothing but reads, connections to ports of pods, and reviews, which no API server stores.
    #[rstest]
    #[case(false)]
    #[case(true)]
    fn it_changes_nothing(#[case] secrets: bool) {
        let subject = json!({ "kind": "ServiceAccount", "name": "m", "namespace": "default" });
        let objects = objects(&subject, secrets, "istio-system");
        let rules: Vec<&Value> = objects.iter().filter_map(|o| o["rules"].as_array()).flatten().collect();
        assert!(rules.len() > READ.len());
        for rule in rules {
            let harmless = rule["resources"].as_array().unwrap().iter().all(|resource| {
                let name = resource.as_str().unwrap();
                name == "pods/portforward" || REVIEWS.iter().any(|(_, review)| *review == name)
            });
            let reads = rule["verbs"].as_array().unwrap().iter().all(|verb| verb == "get" || verb == "list");
            assert!(reads || harmless, "{rule}");
        }
        let text = serde_json::to_string(&objects).unwrap();
        assert_eq!(text.contains("\"secrets\""), secrets);
        assert!(!text.contains('*'));
    }
}
