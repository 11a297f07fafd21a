//! `check`, `why` and `role`: a user who may only read.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use kube::config::{Context, Kubeconfig, NamedCluster, NamedContext};

use crate::fixture::{Fixture, SCENARIOS, differences, stdout, succeeded, wanted};

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_mesh_is_checked_by_a_user_who_may_only_read() {
    if !wanted() {
        return;
    }
    let fixture = Fixture::with_mesh();
    let theirs = fixture.theirs.path();
    succeeded(&fixture.meshproof(theirs, &["run", "--provider", "netns", "--keep", SCENARIOS[0]]));
    let printed = fixture.meshproof(fixture.ours.path(), &["role", "--to", "serviceaccount:default/reader"]);
    succeeded(&printed);
    let kubeconfigs =
        [&fixture.account("reader", Some(&stdout(&printed))), &fixture.account("nobody", None)[..]].concat();
    let before = fixture.objects_at_rest().await;
    let run = |args: &[&str]| {
        let mut command = fixture.command(fixture.ours.path(), args);
        let all = fixture.kubeconfigs.iter().chain(&kubeconfigs);
        command.env("KUBECONFIG", std::env::join_paths(all).unwrap()).output().unwrap()
    };
    let check = |contexts: &[&str]| {
        let contexts: Vec<&str> = contexts.iter().flat_map(|context| ["--context", *context]).collect();
        run(&[&["check"], &contexts[..]].concat())
    };
    let holds = |checked: &Output, what: &str| {
        succeeded(checked);
        assert!(stdout(checked).contains("0 broken") && stdout(checked).contains(what), "{}", stdout(checked));
    };
    holds(&check(&["cluster1", "cluster2"]), "10 checks: 0 broken, 0 not checked");
    holds(&check(&["reader1", "reader2"]), "10 checks: 0 broken, 4 not checked");
    let nobody = check(&["nobody1", "nobody2"]);
    assert_eq!(nobody.status.code(), Some(3), "{}", stdout(&nobody));
    assert!(stdout(&nobody).contains("`meshproof role` prints the rights"), "{}", stdout(&nobody));
    let unknown = check(&["cluster1", "cluster9"]);
    assert_eq!(unknown.status.code(), Some(4), "{}", stdout(&unknown));

    // A run needs more, and says so before it creates anything.
    for (user, missing) in [("reader", "endpointslices.discovery.k8s.io is"), ("nobody", " is forbidden")] {
        let contexts = [format!("cluster1={user}1"), format!("cluster2={user}2")];
        let given = ["--context", &contexts[0], "--context", &contexts[1]];
        let refused = run(&[&["run", "--provider", "existing"], &given[..], &SCENARIOS[..1]].concat());
        let printed = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(4), "{user}: {printed}");
        assert!(printed.contains(missing), "{user}: {printed}");
        assert!(printed.contains(&format!("kubectl --context {user}1 auth can-i --list")), "{user}: {printed}");
        let left = fixture.meshproof(fixture.ours.path(), &["down", "--all"]);
        assert!(left.status.success() && !stdout(&left).contains("removing"), "{}", stdout(&left));
    }

    // `why` with the same role: all rungs but those that need `exec`.
    let contexts = ["--context", "cluster1=reader1", "--context", "cluster2=reader2"];
    let why = run(&[&["why", "sleep@cluster1", "http://helloworld.app1:5000/hello"], &contexts[..]].concat());
    assert_eq!(why.status.code(), Some(3), "{}", stdout(&why));
    let printed = stdout(&why);
    assert!(!printed.contains('✗') && printed.contains("mutual TLS at both ends"), "{printed}");
    for rung in ["clusters synced", "one root of trust", "endpoints in the caller", "mutual TLS at both"] {
        assert!(printed.lines().any(|line| line.starts_with('✓') && line.contains(rung)), "{rung}: {printed}");
    }
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new(), "something was written");

    // The objects of a namespace.
    let capsule = fixture.theirs.path().join("mesh.capsule.tar.gz");
    let admin = ["--context", "cluster1=cluster1", "--context", "cluster2=cluster2", "--topology", "vpn"];
    let call = ["--call", "cluster1=http://helloworld.app1:5000/hello", "-o", capsule.to_str().unwrap()];
    succeeded(&run(&[&["capsule", "--namespace", "app1"], &admin[..], &call].concat()));
    assert_eq!(differences(&before, &fixture.objects().await), Vec::<String>::new(), "the capsule changed something");

    // Many contexts, as of a large mesh: asked at the same time.
    let many = fixture.theirs.path().join("many");
    std::fs::write(&many, serde_json::to_string(&of_fifty(&fixture.kubeconfigs)).unwrap()).unwrap();
    let names: Vec<String> = (0..50).map(|number| format!("c{number}")).collect();
    let contexts = names.iter().flat_map(|name| ["--context", name.as_str()]);
    let started = std::time::Instant::now();
    let checked =
        run(&["check", "--kubeconfig", many.to_str().unwrap()].into_iter().chain(contexts).collect::<Vec<_>>());
    holds(&checked, "50 clusters, ");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let dead = run(&["check", "--kubeconfig", many.to_str().unwrap(), "--context", "c0", "--context", "dead"]);
    assert_eq!(dead.status.code(), Some(1), "{}", stdout(&dead));
    assert!(stdout(&dead).contains("expected: the API server of dead responds"), "{}", stdout(&dead));

    let none = run(&[&["capsule", "--namespace", "nothing"], &admin[..], &call].concat());
    assert_eq!(none.status.code(), Some(4), "{}", stdout(&none));

    // What is broken is found by either user.
    succeeded(&fixture.meshproof(theirs, &["fault", "inject", "remote-secret-missing", "--cluster", "cluster2"]));
    for (contexts, rung) in
        [(["cluster1", "cluster2"], "✗ remote secrets"), (["reader1", "reader2"], "✗ clusters synced")]
    {
        let broken = check(&contexts);
        assert_eq!(broken.status.code(), Some(1), "{}", stdout(&broken));
        assert!(
            stdout(&broken).contains(rung) && stdout(&broken).contains("cluster1 → cluster2"),
            "{}",
            stdout(&broken)
        );
    }

    // Elsewhere: the same objects in clusters of their own.
    succeeded(&fixture.meshproof(theirs, &["down", "--all"]));
    let replayed = fixture.meshproof(fixture.ours.path(), &["run", capsule.to_str().unwrap(), "--provider", "netns"]);
    succeeded(&replayed);
    assert!(stdout(&replayed).contains("1 scenario: 1 pass"), "{}", stdout(&replayed));
}

/// Fifty contexts of the same clusters in turn, and one of a cluster that does not respond.
fn of_fifty(kubeconfigs: &[PathBuf]) -> Kubeconfig {
    let read: Vec<Kubeconfig> = kubeconfigs.iter().map(|path| Kubeconfig::read_from(path).unwrap()).collect();
    let mut all = Kubeconfig::default();
    for number in 0..50 {
        let (mut one, name) = (read[number % read.len()].clone(), format!("c{number}"));
        one.clusters[0].name.clone_from(&name);
        one.auth_infos[0].name.clone_from(&name);
        let context = Context { cluster: name.clone(), user: Some(name.clone()), ..<_>::default() };
        all.contexts.push(NamedContext { name, context: Some(context), ..<_>::default() });
        all.clusters.append(&mut one.clusters);
        all.auth_infos.append(&mut one.auth_infos);
    }
    let server = kube::config::Cluster { server: Some("https://127.0.0.1:9".into()), ..<_>::default() };
    all.clusters.push(NamedCluster { name: "dead".into(), cluster: Some(server), ..<_>::default() });
    let context = Context { cluster: "dead".into(), user: Some("c0".into()), ..<_>::default() };
    all.contexts.push(NamedContext { name: "dead".into(), context: Some(context), ..<_>::default() });
    all
}
