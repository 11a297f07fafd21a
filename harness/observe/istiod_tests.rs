use super::*;
use rstest::rstest;
use serde_json::json;

#[test]
fn syncz_tells_who_has_not_acknowledged_and_who_rejects() {
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let listener = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let synced: Synced = serde_json::from_value(json!({
        "cluster_id": "cluster1", "proxy": "sleep-1.app1", "cluster_sent": "ignored", "resources": {
            cluster: {"sent": "2026-11-23T05:22:50Z/18ce9ffbb4-369e-4b07-a2ee-02ea22e44389", "acked": "older",
                      "lastError": "no such filter"},
            listener: {"sent": "2026-11-23T05:22:50Z/17ce9ffbb4-369e-4b07-a2ee-02ea22e44389",
                       "acked": "2026-11-23T05:22:50Z/17ce9ffbb4-369e-4b07-a2ee-02ea22e44389"}}}))
    .unwrap();
    let connected = Connected::from(synced);
    assert_eq!((connected.id.as_str(), connected.cluster.as_str()), ("sleep-1.app1", "cluster1"));
    assert_eq!(connected.waiting(), ["Cluster"]);
    assert_eq!(connected.sync[cluster].last_error, "no such filter");
    assert_eq!(connected.newest(), Version::parse("2026-11-23T05:22:50Z/18"));
}

#[test]
fn an_older_istiod_tells_less() {
    let synced: Synced = serde_json::from_value(
        json!({"proxy": "sleep-1.app1", "cluster_sent": "a", "cluster_acked": "a", "route_sent": "b"}),
    )
    .unwrap();
    assert_eq!(Connected::from(synced).waiting(), ["route"]);
}

#[rstest]
#[case::another_namespace("istio-prod", 1, Some(true))]
#[case::scaled_to_zero("istio-prod", 0, Some(false))]
#[case::of_a_user_who_sees_istio_system_only("istio-system", 1, Some(true))]
#[case::none("", 1, None)]
#[tokio::test]
async fn istiod_is_wanted_wherever_its_deployment_is(
    #[case] namespace: &'static str,
    #[case] replicas: i32,
    #[case] expected: Option<bool>,
) {
    use axum::http::{StatusCode, Uri};
    use axum::response::IntoResponse;

    let answer = move |uri: Uri| async move {
        let deployment = json!({ "metadata": { "name": "istiod", "namespace": namespace },
            "spec": { "replicas": replicas, "selector": {}, "template": {} } });
        let items = if namespace.is_empty() { Vec::new() } else { vec![deployment] };
        let list = json!({ "kind": "DeploymentList", "apiVersion": "apps/v1", "metadata": {}, "items": items });
        match (namespace, uri.path().contains("/namespaces/")) {
            ("istio-system", false) => {
                let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403 });
                (StatusCode::FORBIDDEN, axum::Json(status)).into_response()
            }
            (_, all) if all && namespace != "istio-system" => StatusCode::NOT_FOUND.into_response(),
            _ => axum::Json(list).into_response(),
        }
    };
    let cluster = crate::apply::tests::served_by("cluster1", axum::Router::new().fallback(answer));
    assert_eq!(ControlPlane::is_wanted(&cluster).await.unwrap(), expected);
}
