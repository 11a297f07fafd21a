//! `meshproof role`: the rights that `why` and `check` need.

use clap::Args;
use serde_json::{Value, json};

use crate::diagnose::role;
use crate::failure::Failure;

/// Arguments of `meshproof role`.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// Who gets the rights: serviceaccount:NAMESPACE/NAME, user:NAME or group:NAME.
    #[arg(long, value_name = "SUBJECT", default_value = "serviceaccount:default/meshproof", value_parser = subject)]
    to: Value,
    /// Also let it read the secrets of istiod's namespace: credentials of other clusters, and the mesh's CA.
    #[arg(long)]
    secrets: bool,
    /// The namespace of istiod, for --secrets.
    #[arg(long, value_name = "NAMESPACE", default_value = crate::istio::NAMESPACE)]
    istio_namespace: String,
}

fn subject(text: &str) -> Result<Value, String> {
    let wrong = || format!("`{text}` is not serviceaccount:NAMESPACE/NAME, user:NAME or group:NAME");
    let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(wrong)?;
    let group = "rbac.authorization.k8s.io";
    match (kind, name.split_once('/')) {
        ("serviceaccount", Some((namespace, name))) if !namespace.is_empty() && !name.is_empty() => {
            Ok(json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name }))
        }
        ("user", _) => Ok(json!({ "kind": "User", "apiGroup": group, "name": name })),
        ("group", _) => Ok(json!({ "kind": "Group", "apiGroup": group, "name": name })),
        _ => Err(wrong()),
    }
}

/// Prints the objects as YAML, for `kubectl apply -f -`. Nothing is read or changed.
pub fn main(args: &RoleArgs) -> Result<u8, Failure> {
    for object in role::objects(&args.to, args.secrets, &args.istio_namespace) {
        let text = serde_saphyr::to_string(&object).map_err(|e| miette::miette!("{e}"))?;
        anstream::print!("---\n{text}");
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("serviceaccount:ci/bot", Some("ServiceAccount"))]
    #[case("user:jane@example.org", Some("User"))]
    #[case("group:sre", Some("Group"))]
    #[case("serviceaccount:bot", None)]
    #[case("jane", None)]
    #[case("user:", None)]
    fn a_subject_is_one_of_three_kinds(#[case] text: &str, #[case] kind: Option<&str>) {
        assert_eq!(subject(text).ok().as_ref().and_then(|s| s["kind"].as_str()), kind);
    }
}
