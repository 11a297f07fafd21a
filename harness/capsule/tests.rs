//! A run becomes a capsule, and the capsule a project again.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rstest::rstest;

use super::*;
use crate::plan;
use crate::report::{self, sample};

const SCENARIO: &str = "name: a rule\npurpose: p\ntopology: vpn\nworkloads:\n  - sleep: { cluster: cluster1 }\n  - helloworld: { version: v1, cluster: cluster1 }\n  - helloworld: { version: v2, cluster: cluster2 }\nsteps:\n  - apply: { cluster: cluster1, file: FILE }\n  - call: { from: sleep@cluster1, to: \"http://helloworld.app1:5000/hello\", expect: { only: v2 } }\n";
const RULE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: helloworld, namespace: app1 }\nspec: { hosts: [helloworld] }\n";

/// A project with one scenario that applies `fixture`, named as `named`, and the folder of a run of it.
fn run(root: &Path, named: &str, fixture: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = root.join("project");
    let write = |name: &str, text: &str| {
        let path = project.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for name in [
        "versions.yaml",
        "kind-configs/vpn/topology.yaml",
        "kind-configs/vpn/cluster1.yaml",
        "kind-configs/vpn/cluster2.yaml",
    ] {
        write(name, &std::fs::read_to_string(repository.join(name)).unwrap());
    }
    write("scenarios/vpn/v2-only.yaml", &SCENARIO.replace("FILE", named));
    write("fixtures/rule.yaml", fixture);
    std::fs::write(root.join("outside.yaml"), fixture).unwrap();
    let loaded = plan::open(&project.join("scenarios/vpn/v2-only.yaml"), &[]).unwrap().loaded;
    let run = root.join("runs/20260131-120000-1");
    let mut shown = sample::run();
    shown.scenarios.retain(|scenario| scenario.file == "scenarios/vpn/v2-only.yaml");
    shown.scenarios.extend_from_within(..);
    report::write_all(&shown, &run).unwrap();
    save(&run, &project.join("versions.yaml"), &loaded).unwrap();
    // Twice in one run: the second finds everything there.
    save(&run, &project.join("versions.yaml"), &loaded).unwrap();
    run
}

fn shown(error: CapsuleError, root: &Path) -> String {
    error.to_string().replace(&format!("{}/", root.display()), "")
}

#[rstest]
#[case::from_the_project("fixtures/rule.yaml")]
#[case::beside_the_scenario("../../fixtures/rule.yaml")]
fn what_ran_comes_out_again(#[case] named: &str) {
    let root = tempfile::tempdir().unwrap();
    let run = run(root.path(), named, RULE);
    let file = root.path().join("a.capsule.tar.gz");
    pack(&run, &file).unwrap();
    // What becomes of the project since does not matter.
    std::fs::remove_dir_all(root.path().join("project")).unwrap();
    assert!(is_capsule(&file));
    let opened = open(&file).unwrap();
    let all: Vec<(String, PathBuf)> = opened.scenarios().collect();
    assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["v2 only"], "each once");
    let plan::Plan { loaded, topology, .. } = plan::open(&all[0].1, &[]).unwrap();
    assert_eq!((topology.name.as_str(), topology.clusters.len()), ("vpn", 2));
    let rule = loaded.file(Path::new(named)).unwrap();
    assert_eq!(std::fs::read_to_string(rule).unwrap(), RULE);
    assert_eq!(opened.recorded.scenarios[0].class(), crate::verdict::Class::Fail);
    let folder = opened.project();
    drop(opened);
    assert!(!folder.exists(), "the folder goes with it");
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let run = run(root.path(), "fixtures/rule.yaml", RULE);
    let [a, b] = ["a", "b"].map(|name| root.path().join(name));
    pack(&run, &a).unwrap();
    pack(&run, &b).unwrap();
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[rstest]
#[case::a_secret(
    "fixtures/rule.yaml",
    "apiVersion: v1\nkind: Secret\nmetadata: { name: s }\nstringData: { a: b }\n",
    "contains a Secret"
)]
#[case::a_key(
    "fixtures/rule.yaml",
    "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\ndata: { a: \"-----BEGIN PRIVATE KEY-----\" }\n",
    "contains a Secret"
)]
#[case::a_short_password(
    "fixtures/rule.yaml",
    "apiVersion: v1\nkind: Pod\nmetadata: { name: p }\nspec: { containers: [{ name: c, env: [{ name: DB_PASSWORD, value: hunter2 }] }] }\n",
    "contains a Secret"
)]
#[case::outside("../../../outside.yaml", RULE, "outside the project")]
#[case::by_the_name_of_the_folder("../../../project/fixtures/rule.yaml", RULE, "outside the project")]
fn what_must_not_go_with_it_keeps_a_run_from_becoming_one(
    #[case] named: &str,
    #[case] fixture: &str,
    #[case] why: &str,
) {
    let root = tempfile::tempdir().unwrap();
    let run = run(root.path(), named, fixture);
    let file = root.path().join("a.capsule.tar.gz");
    let error = shown(pack(&run, &file).unwrap_err(), root.path());
    assert!(error.contains(why) && error.contains(".yaml: "), "{error}");
    assert!(!file.exists());
    let inputs = walk(&run.join(INPUTS));
    assert!(
        inputs.iter().all(|text| ["stringData", "PRIVATE KEY", "hunter2"].iter().all(|secret| !text.contains(secret))),
        "nor is it copied"
    );
}

fn walk(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![std::fs::read_to_string(path).unwrap()] })
        .collect()
}

#[test]
fn runs_are_found_by_folder_by_name_and_the_newest_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let run = run(root.path(), "fixtures/rule.yaml", RULE);
    let runs = root.path().join("runs");
    std::fs::create_dir(runs.join("20270101-000000-9")).unwrap();
    report::write_all(&sample::run(), &runs.join("20270101-000000-8")).unwrap();
    assert_eq!(
        find_run(&runs, None).unwrap(),
        run,
        "a folder without a report, or without a scenario that began, is no run"
    );
    assert_eq!(find_run(&runs, Some("20260131-120000-1")).unwrap(), run);
    assert_eq!(find_run(Path::new("/nowhere"), Some(run.to_str().unwrap())).unwrap(), run);
    let error = shown(find_run(&runs, Some("yesterday")).unwrap_err(), root.path());
    assert_eq!(error, "no run `yesterday` in runs (there are: 20260131-120000-1) (hint: `meshproof run` creates one)");
}

/// A capsule of these parts, with a table of contents that fits unless one of them is called so.
fn capsule(parts: &[(&str, &str)]) -> Vec<u8> {
    let files = parts.iter().map(|(name, text)| ((*name).to_owned(), sha256(text.as_bytes()))).collect();
    let contents = Contents { schema: SCHEMA, made_by: "test".into(), run: "r".into(), files };
    let contents = serde_json::to_string(&contents).unwrap();
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let own = parts.iter().any(|(name, _)| *name == CONTENTS);
    let contents = (!own).then_some((CONTENTS, contents.as_str()));
    for (name, text) in contents.into_iter().chain(parts.iter().copied()) {
        let mut header = tar::Header::new_gnu();
        // `set_path` refuses what an attacker would write.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_bad_capsule_is_reported_with_the_part_that_is_bad() {
    let root = tempfile::tempdir().unwrap();
    let good = {
        let file = root.path().join("good");
        pack(&run(root.path(), "fixtures/rule.yaml", RULE), &file).unwrap();
        std::fs::read(file).unwrap()
    };
    let report = report::json(&sample::run()).unwrap();
    let newer = r#"{"schema": 7, "made_by": "meshproof 9.0.0"}"#;
    let other = r#"{"schema": 1, "made_by": "m", "run": "r", "files": {"a": "00", "b": "11"}}"#;
    let cases = [
        ("no gzip", b"plain text".to_vec()),
        ("empty", Vec::new()),
        ("cut short", good[..good.len() / 2].to_vec()),
        ("no contents", capsule(&[(CONTENTS, "{}")])),
        ("newer", capsule(&[(CONTENTS, newer)])),
        ("missing part", capsule(&[(CONTENTS, other)])),
        ("changed part", capsule(&[(CONTENTS, other), ("a", "x")])),
        ("unnamed part", capsule(&[(CONTENTS, &other.replace(r#""a": "00", "b": "11""#, "")), ("a", "x")])),
        ("twice", capsule(&[("a", "x"), ("a", "y")])),
        ("outside", capsule(&[("../a", "x")])),
        ("absolute", capsule(&[("/etc/a", "x")])),
        ("no report", capsule(&[("project/a", "x")])),
        ("bad report", capsule(&[(REPORT, "{]")])),
        ("no scenario", capsule(&[(REPORT, &report)])),
    ];
    let mut all = String::new();
    for (name, bytes) in cases {
        let file = root.path().join("bad.capsule.tar.gz");
        std::fs::File::create(&file).unwrap().write_all(&bytes).unwrap();
        assert!(is_capsule(&file));
        all += &format!("{name}: {}\n", shown(open(&file).unwrap_err(), root.path()));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_capsule_is_known_by_its_bytes_or_its_name() {
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = root.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    assert!(is_capsule(&file("renamed", &capsule(&[]))));
    assert!(!is_capsule(&file("scenario.yaml", b"name: x")));
    assert!(!is_capsule(root.path()) && !is_capsule(&root.path().join("absent.capsule.tar.gz")));
}

#[test]
fn the_same_class_for_the_same_reason_is_as_recorded() {
    let run = sample::run();
    let [pass, fail, broken, _, inconclusive, weighted] = run.scenarios.as_slice() else {
        panic!("the sample has six")
    };
    let mut other_numbers = fail.clone();
    other_numbers.steps[1].findings[0].observed = "v1 52, v2 48 of 100 calls on 1 connection".into();
    let mut other_reason = fail.clone();
    other_reason.steps[1].findings[0].class = crate::verdict::Class::Pass;
    let mut other_step = broken.clone();
    other_step.steps[0].index += 1;
    let pairs = [
        (pass, pass),
        (broken, &other_step),
        (fail, &other_numbers),
        (fail, &other_reason),
        (fail, weighted),
        (pass, broken),
        (weighted, inconclusive),
    ];
    let lines: Vec<String> = pairs.iter().map(|(then, now)| compare(then, now)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn other_versions_are_reported() {
    let (then, mut now) = (sample::run(), sample::run());
    assert_eq!(compare_making(&then, &now), [""; 0]);
    now.provider = "netns".into();
    now.versions.insert("istio".into(), "1.30.4".into());
    now.versions.insert("own istiod".into(), "sha256:0123456789ab".into());
    assert_eq!(
        compare_making(&then, &now),
        [
            "provider kind when recorded, now netns",
            "istio 1.31.0 when recorded, now 1.30.4",
            "own istiod none when recorded, now sha256:0123456789ab"
        ]
    );
}
