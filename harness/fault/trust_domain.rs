//! A mesh that does not accept the trust domain of another.

use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::effect::{LIMIT, until};
use super::error::FaultError;
use super::nodes::close_sockets;
use super::objects;
use super::record::{Fault, act, plan};
use super::world::At;
use crate::diagnose::RungId;
use crate::gate;
use crate::istio::{NAMESPACE, gateway};
use crate::wait::Poll;

const CONFIG: &str = "istio";
const ALIASES: &str = "trustDomainAliases";

pub(super) const ALIAS_MISSING: Fault = Fault {
    name: "trust-domain-alias-missing",
    breaks: "This mesh's configuration has no trust domain aliases: its servers refuse callers of other meshes.",
    rung: Some(RungId::Trust),
    applies: |world, cluster| {
        world.has_control_plane(cluster)?;
        world.trusts_other_meshes(cluster)
    },
    plan: |at| plan(at, read),
    inject: |at, noted| act(at, noted, |at, noted: Noted| async move { put(at, &without(&noted.mesh)?).await }),
    clear: |at, noted| act(at, noted, |at, noted: Noted| async move { put(at, &noted.mesh).await }),
    ..Fault::BASE
};

/// The mesh configuration as it is written.
#[derive(Serialize, Deserialize)]
struct Noted {
    mesh: String,
}

async fn read(at: At<'_>) -> Result<Noted, FaultError> {
    let map = objects::of::<ConfigMap>(at.cluster, NAMESPACE).get(CONFIG).await?;
    let mesh = map.data.unwrap_or_default().remove("mesh").unwrap_or_default();
    if parsed(&mesh)[ALIASES].is_null() {
        return Err(at.does_not_apply("its mesh configuration has no trust domain aliases"));
    }
    Ok(Noted { mesh })
}

fn parsed(mesh: &str) -> Value {
    serde_saphyr::from_str(mesh).unwrap_or_default()
}

/// The same without aliases. JSON is YAML.
fn without(mesh: &str) -> Result<String, FaultError> {
    let mut config = parsed(mesh);
    if let Some(fields) = config.as_object_mut() {
        fields.remove(ALIASES);
    }
    Ok(config.to_string())
}

/// Writes the mesh configuration; returns when the proxies have what follows from it. They keep connections that they had
/// accepted, so these are closed.
async fn put(at: At<'_>, mesh: &str) -> Result<(), FaultError> {
    let maps = objects::of::<ConfigMap>(at.cluster, NAMESPACE);
    if maps.get(CONFIG).await?.data.unwrap_or_default().get("mesh").is_some_and(|now| now == mesh) {
        return Ok(());
    }
    let clusters = at.world.mesh(at.cluster);
    let before = gate::pushes(&clusters).await?;
    let aliases = parsed(mesh)[ALIASES].clone();
    maps.merge(CONFIG, json!({ "data": { "mesh": mesh } })).await?;
    let (wanted, what) = (&aliases, format!("istiod in {} to use the mesh configuration", at.cluster.name));
    until(what, || async move {
        match crate::observe::istiod::mesh_config(at.cluster).await {
            Ok(config) if config[ALIASES] == *wanted => Poll::Ready(()),
            Ok(config) => Poll::NotYet(format!("its {ALIASES} are {}", config[ALIASES])),
            Err(error) => Poll::NotYet(error.to_string()),
        }
    })
    .await?;
    gate::pushed_since(&clusters, &before, LIMIT).await?;
    for other in at.world.others(at.cluster) {
        close_sockets(&at.world, other, &["dport", "=", &gateway::PORT.to_string()]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_aliases_are_removed() {
        let mesh = "trustDomain: a.example\ntrustDomainAliases: [b.example]\ndefaultConfig: { concurrency: 2 }\n";
        let broken = parsed(&without(mesh).unwrap());
        assert_eq!(broken, json!({ "trustDomain": "a.example", "defaultConfig": { "concurrency": 2 } }));
    }
}
