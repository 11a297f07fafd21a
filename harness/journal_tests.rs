use super::*;

fn network(name: &str) -> Owned {
    Owned::DockerNetwork { name: name.into() }
}

#[test]
fn removal_order_is_newest_first_and_survives_reopening() {
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "a1").unwrap();
    env.own(&network("one")).unwrap();
    env.own(&network("two")).unwrap();
    drop(env);
    let env = EnvDir::open(root.path(), "a1").unwrap().unwrap();
    assert_eq!(env.owned().unwrap(), [network("two"), network("one")]);
}

#[test]
fn a_member_of_the_environment_writes_while_another_holds_it_and_processes_go_first() {
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "a1").unwrap();
    let process = Owned::Process { pid: 1, start_time: 2, what: "supervisor".into() };
    env.own(&process).unwrap();
    let member = EnvDir::join(env.path()).unwrap();
    assert_eq!(member.id(), "a1");
    member.own(&network("made by the member")).unwrap();
    assert_eq!(env.owned().unwrap(), [process, network("made by the member")]);
    assert!(EnvDir::join(&root.path().join("a2")).is_err());
}

#[test]
fn a_line_cut_off_by_a_crash_is_ignored_but_a_strange_one_is_not() {
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "a1").unwrap();
    env.own(&network("one")).unwrap();
    let path = env.path().join("journal.jsonl");
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}{{\"docker-net")).unwrap();
    assert_eq!(env.owned().unwrap(), [network("one")]);
    std::fs::write(&path, format!("{{\"moon\":{{}}}}\n{whole}")).unwrap();
    assert!(env.owned().unwrap_err().to_string().contains("line 1"));
}

#[test]
fn a_line_after_one_that_was_cut_off_is_a_line_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "a1").unwrap();
    let path = env.path().join("journal.jsonl");
    for torn in ["{\"docker-net", "{\"docker-network\":{\"name\":\"never made"] {
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{torn}")).unwrap();
        env.own(&network("behind")).unwrap();
        env.own(&network("last")).unwrap();
    }
    assert_eq!(env.owned().unwrap(), ["last", "behind", "last", "behind"].map(network));
}

#[test]
fn an_environment_that_is_removed_meanwhile_is_gone_and_nothing_is_created_in_its_name() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a1");
    std::fs::create_dir(&folder).unwrap();
    assert!(EnvDir::open(root.path(), "a1").unwrap().is_none());
    assert!(EnvDir::open_when_free(root.path(), "a1").unwrap().is_none());
    assert!(EnvDir::join(&folder).is_err());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    let env = EnvDir::create(root.path(), "a2").unwrap();
    let (path, waiting) = (root.path().to_owned(), EnvDir::there("a2", env.path()).unwrap().unwrap());
    let waiter = std::thread::spawn(move || EnvDir::open_when_free(&path, "a2").unwrap().is_none());
    env.forget().unwrap();
    assert!(waiter.join().unwrap() && waiting.still_there().is_none());
    assert_eq!(ids(root.path()).unwrap(), ["a1"]);
}

#[test]
fn what_ended_processes_left_half_done_is_swept() {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: String| std::fs::create_dir(root.path().join(name)).unwrap();
    folder("a1".into());
    folder(format!(".unfinished-b1-{}", u32::MAX));
    folder(format!(".unfinished-c1-{}", std::process::id()));
    sweep(root.path()).unwrap();
    let mut left: Vec<String> =
        std::fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, [format!(".unfinished-c1-{}", std::process::id()), "a1".into()]);
    sweep(&root.path().join("nothing")).unwrap();
}

#[test]
fn a_folder_in_use_is_not_opened_twice() {
    let root = tempfile::tempdir().unwrap();
    let _env = EnvDir::create(root.path(), "a1").unwrap();
    assert!(EnvDir::open(root.path(), "a1").unwrap().is_none());
    assert!(EnvDir::create(root.path(), "a1").is_err());
}

#[test]
fn private_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let env = EnvDir::create(root.path(), "a1").unwrap();
    let path = env.write_private("key.pem", b"secret").unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(env.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn this_process_started_once() {
    assert!(process_start_time(std::process::id()).is_some_and(|t| t > 0));
    assert_eq!(process_start_time(u32::MAX), None);
}
