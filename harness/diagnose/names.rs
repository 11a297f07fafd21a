//! Whether clusters that nobody described are given under the names that their mesh has for them.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;

use super::DiagnoseError;
use super::facts::Facts;
use super::rung::within;
use crate::istio::injection;

/// Fails when the mesh calls a cluster otherwise: all that is looked for would be looked for under the wrong name.
pub(super) async fn check(all: &[Facts]) -> Result<(), DiagnoseError> {
    let known = join_all(all.iter().map(own_name)).await;
    let wrong = all.iter().zip(known).filter_map(|(facts, known)| {
        let given = facts.name();
        known.filter(|known| known != given).map(|known| (given.to_owned(), known))
    });
    let wrong: Vec<(String, String)> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(DiagnoseError::Misnamed { wrong }) }
}

/// What the mesh calls a cluster: its own istiod, or the sidecar that a pod would get there. `None`: nobody says.
pub(super) async fn own_name(facts: &Facts) -> Option<String> {
    let name = match &facts.istiod {
        Err(_) => return None,
        Ok(Some(istiod)) => cluster_id(istiod)?,
        Ok(None) => {
            let by_webhook =
                within("the webhook", injection::cluster_name_by_webhook(&facts.cluster)).await.ok().flatten();
            match by_webhook {
                Some(name) => name,
                None => within("a sidecar", injection::cluster_name(&facts.cluster)).await.ok()??,
            }
        }
    };
    Some(name).filter(|name| !name.is_empty())
}

fn cluster_id(istiod: &Deployment) -> Option<String> {
    let containers = istiod.spec.template.spec.iter().flat_map(|spec| &spec.containers);
    let mut variables = containers.flat_map(|c| c.env.iter().flatten());
    variables.find(|v| v.name == "CLUSTER_ID").and_then(|v| v.value.clone())
}

/// What to give instead.
pub(super) fn in_words(wrong: &[(String, String)]) -> String {
    let one = |(given, known): &(String, String)| {
        format!("the mesh calls `{given}` `{known}`: give its context as `--context {known}=…`")
    };
    wrong.iter().map(one).collect::<Vec<_>>().join("; ")
}
