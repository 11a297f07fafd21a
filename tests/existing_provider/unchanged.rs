//! A run leaves nothing behind and changes nothing else, also when it is killed.

use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use meshproof::wait::{self, Poll};
use serde_json::json;

use crate::fixture::{Fixture, SCENARIOS, client, differences, stdout, succeeded, wanted};
use crate::variants;

#[tokio::test(flavor = "multi_thread")]
async fn scenarios_run_on_a_mesh_that_is_there_and_leave_it_as_it_was() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::with_mesh();
    let before = fixture.objects_at_rest().await;
    assert!(before.iter().any(|o| o.contains("Deployment istio-system/istiod")), "{before:#?}");

    // A namespace of somebody else's, of the name that the scenarios use.
    let namespaces: Api<Namespace> = Api::all(client(&fixture.kubeconfigs[1]).await);
    let theirs: Namespace = serde_json::from_value(json!({ "metadata": { "name": "app1" } })).unwrap();
    let theirs = namespaces.create(&PostParams::default(), &theirs).await.unwrap();
    let refused = fixture.run(&[], &SCENARIOS[..1]);
    assert_eq!(refused.status.code(), Some(2), "{}", stdout(&refused));
    assert!(stdout(&refused).contains("namespace app1 of cluster2 already exists"), "{}", stdout(&refused));
    let now = namespaces.get("app1").await.unwrap();
    assert_eq!((now.uid(), now.labels()), (theirs.uid(), theirs.labels()), "it was touched");
    assert!(!fixture.objects().await.iter().any(|o| o.contains("1 Namespace /app1")), "nothing was made elsewhere");
    namespaces.delete("app1", &Default::default()).await.unwrap();
    gone(&namespaces, "app1").await;

    // Killed in the middle: what it made is there, labelled; the next command takes it away.
    let killed = fixture.command(fixture.ours.path(), &Fixture::run_args(&[], &SCENARIOS));
    killed_when_there(killed, &namespaces).await;
    let left = namespaces.get("app1").await.unwrap();
    assert!(left.labels().contains_key("meshproof.dev/run"), "{left:?}");
    succeeded(&fixture.meshproof(fixture.ours.path(), &["down", "--dead"]));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new(), "after a kill");

    // Another mesh than is there is refused, not made.
    let refused = fixture.run(&[], &["scenarios/vpn/mtls_disabled.yaml"]);
    assert!(stdout(&refused).contains("`mtls: disabled`, and it is strict"), "{}", stdout(&refused));

    let passed = fixture.run(&[], &SCENARIOS);
    succeeded(&passed);
    assert!(stdout(&passed).contains("2 scenarios: 2 pass"), "{}", stdout(&passed));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new(), "after a run");

    // Nobody's control plane is broken for a proof.
    let more = ["--fault", "istiod-down", "--fault", "remote-secret-missing"];
    let proved = fixture.meshproof(fixture.ours.path(), &Fixture::args("prove", &more, &SCENARIOS[..1]));
    succeeded(&proved);
    assert!(stdout(&proved).contains("2 not applicable"), "{}", stdout(&proved));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new(), "after a proof");
}

/// Turns the mesh into one as Istio's default profile installs it: permissive mutual TLS, no access log, logs flushed by Envoy's
/// default.
pub async fn as_by_default(client: &Client) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("security.istio.io", "v1", "PeerAuthentication"));
    let policies: Api<DynamicObject> = Api::namespaced_with(client.clone(), "istio-system", &resource);
    policies.delete("default", &Default::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "istio-system");
    let mesh = maps.get("istio").await.unwrap().data.unwrap().remove("mesh").unwrap();
    let kept = mesh.lines().filter(|line| !line.contains("accessLog") && !line.contains("fileFlushInterval"));
    let patch = json!({ "data": { "mesh": kept.collect::<Vec<_>>().join("\n") } });
    maps.patch("istio", &Default::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_of_istio_s_defaults_needs_no_configuration() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::with_mesh();
    as_by_default(&client(&fixture.kubeconfigs[0]).await).await;
    let before = fixture.objects_at_rest().await;

    // All that proxies report is judged, by a log of the run's own.
    let passed = fixture.run(&[], &SCENARIOS);
    succeeded(&passed);
    let printed = stdout(&passed);
    assert!(
        printed.contains("2 scenarios: 2 pass") && printed.contains("EnvoyFilter meshproof-access-log"),
        "{printed}"
    );
    assert!(printed.contains("mtls permissive"), "{printed}");
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new());
    variants::counters(&fixture).await;
    variants::revisions(&fixture).await;
}

async fn gone(namespaces: &Api<Namespace>, name: &str) {
    let gone = wait::until(format!("namespace {name} to go"), Duration::from_secs(60), LOOK, || async {
        match namespaces.get_opt(name).await {
            Ok(None) => Poll::Ready(()),
            Ok(Some(_)) => Poll::NotYet("it is still there".into()),
            Err(error) => Poll::Failed(error),
        }
    });
    gone.await.unwrap();
}

const LOOK: Duration = Duration::from_millis(50);

/// Starts a run and kills it as soon as it has made a namespace.
async fn killed_when_there(mut command: Command, namespaces: &Api<Namespace>) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let there = wait::until("the run to make a namespace", Duration::from_secs(60), LOOK, || async {
        match namespaces.get_opt("app1").await {
            Ok(Some(_)) => Poll::Ready(()),
            Ok(None) => Poll::NotYet("namespace app1".into()),
            Err(error) => Poll::Failed(error),
        }
    });
    there.await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_is_installed_for_the_run_goes_with_it() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::bare().await;
    let before = fixture.objects_at_rest().await;
    let none = fixture.run(&[], &SCENARIOS[..1]);
    assert_eq!(none.status.code(), Some(4), "{}", stdout(&none));
    let printed = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(printed.contains("no control plane") && printed.contains("--install-mesh"), "{printed}");

    let passed = fixture.run(&["--install-mesh"], &SCENARIOS);
    succeeded(&passed);
    assert!(stdout(&passed).contains("2 scenarios: 2 pass"), "{}", stdout(&passed));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new());
}
