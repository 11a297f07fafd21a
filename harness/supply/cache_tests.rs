use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

fn recipe() -> Recipe {
    Recipe::new("thing", "the thing").with("version", "1")
}

/// Makes the thing, and counts how often.
async fn make(cache: &Cache, made: &AtomicUsize) -> Result<Item, CacheError> {
    cache
        .item(&recipe(), |space| async move {
            made.fetch_add(1, Ordering::SeqCst);
            std::fs::create_dir(space.out.join("bin"))?;
            std::fs::write(space.out.join("bin/thing"), "content")?;
            std::os::unix::fs::symlink("bin/thing", space.out.join("link"))?;
            std::fs::write(space.scratch.join("left-over"), "x")
        })
        .await
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn made_once_then_found() {
    let root = tempfile::tempdir().unwrap();
    let (cache, made) = (Cache::at(root.path()).unwrap(), AtomicUsize::new(0));
    assert_eq!(cache.peek(&recipe()).await.unwrap(), Peek { item: None, size: 0, last_time: None });
    let item = make(&cache, &made).await.unwrap();
    assert_eq!(make(&cache, &made).await.unwrap(), item);
    assert_eq!(made.load(Ordering::SeqCst), 1);
    assert_eq!(std::fs::read_to_string(item.path("link")).unwrap(), "content");
    assert!(!item.dir.with_file_name("scratch").exists());
    let peek = cache.peek(&recipe()).await.unwrap();
    assert_eq!((peek.item, peek.size), (Some(item), "content".len() as u64 + "bin/thing".len() as u64));
    assert!(peek.last_time.is_some());
}

#[rstest::rstest]
#[case::other_content("content of somebody else", true)]
#[case::same_size("kontent", true)]
#[case::rewritten_alike("content", false)]
#[tokio::test]
async fn a_changed_file_is_noticed_and_made_again(#[case] content: &str, #[case] again: bool) {
    let root = tempfile::tempdir().unwrap();
    let (cache, made) = (Cache::at(root.path()).unwrap(), AtomicUsize::new(0));
    let item = make(&cache, &made).await.unwrap();
    let before = std::fs::metadata(item.path("bin/thing")).unwrap().modified().unwrap();
    std::fs::write(item.path("bin/thing"), content).unwrap();
    // Even when the modification time is restored.
    File::options().write(true).open(item.path("bin/thing")).unwrap().set_modified(before).unwrap();
    make(&cache, &made).await.unwrap();
    assert_eq!(made.load(Ordering::SeqCst), if again { 2 } else { 1 });
    assert_eq!(std::fs::read_to_string(item.path("bin/thing")).unwrap(), "content");
}

#[rstest::rstest]
#[case::file("files/bin/thing")]
#[case::link("files/link")]
#[case::manifest("manifest.json")]
#[tokio::test]
async fn a_missing_file_is_noticed_and_made_again(#[case] file: &str) {
    let root = tempfile::tempdir().unwrap();
    let (cache, made) = (Cache::at(root.path()).unwrap(), AtomicUsize::new(0));
    let item = make(&cache, &made).await.unwrap();
    std::fs::remove_file(item.dir.parent().unwrap().join(file)).unwrap();
    assert_eq!(cache.peek(&recipe()).await.unwrap().item, None);
    make(&cache, &made).await.unwrap();
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_mode_that_was_changed_is_noticed() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let (cache, made) = (Cache::at(root.path()).unwrap(), AtomicUsize::new(0));
    let item = make(&cache, &made).await.unwrap();
    std::fs::set_permissions(item.path("bin/thing"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    make(&cache, &made).await.unwrap();
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_failed_build_leaves_nothing_but_its_lock() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(root.path()).unwrap();
    let recipe = recipe();
    let failed = cache.item(&recipe, |space| async move {
        std::fs::write(space.out.join("half"), "x")?;
        Err::<(), BoxError>("compiler says no".into())
    });
    insta::assert_snapshot!(failed.await.unwrap_err().to_string(), @"the thing could not be built: compiler says no");
    let left = names(&root.path().join("items"));
    assert!(left.len() == 1 && left[0].ends_with(".lock"), "{left:?}");
}

#[tokio::test]
async fn an_abandoned_build_leaves_nothing_but_its_lock() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(root.path()).unwrap();
    let recipe = recipe();
    let building = cache.item(&recipe, |space| async move {
        std::fs::write(space.out.join("half"), "x")?;
        std::future::pending::<()>().await;
        Ok::<_, std::io::Error>(())
    });
    assert!(tokio::time::timeout(Duration::from_millis(50), building).await.is_err());
    assert_eq!(names(&root.path().join("items")).len(), 1);
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let (cache, made) = (Cache::at(root.path()).unwrap(), AtomicUsize::new(0));
    let part = beside(&cache.place(&recipe()), "part");
    std::fs::create_dir_all(part.join("files/bin")).unwrap();
    std::fs::write(part.join("files/bin/half"), "x").unwrap();
    let item = make(&cache, &made).await.unwrap();
    assert!(!part.exists());
    assert_eq!(names(&item.dir), ["bin", "link"]);
    assert_eq!(names(&item.path("bin")), ["thing"]);
}

#[tokio::test]
async fn two_at_once_make_it_once() {
    let root = tempfile::tempdir().unwrap();
    let (made, recipe) = (AtomicUsize::new(0), recipe());
    // Two caches on one folder, as two processes have: each opens the lock by itself.
    let caches = [Cache::at(root.path()).unwrap(), Cache::at(root.path()).unwrap()];
    let slow = |cache: &Cache| {
        let (cache, recipe, made) = (cache.clone(), &recipe, &made);
        async move {
            let build = |space: Workspace| async move {
                made.fetch_add(1, Ordering::SeqCst);
                wait::pass(Duration::from_millis(300)).await;
                std::fs::write(space.out.join("thing"), "content")
            };
            cache.item(recipe, build).await
        }
    };
    let (one, two) = tokio::join!(slow(&caches[0]), slow(&caches[1]));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_full_disk_is_named() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(root.path()).unwrap();
    let by_itself = cache.item(&self::recipe(), |_| async { std::fs::write("/dev/full", "x") }).await.unwrap_err();
    let recipe = recipe();
    let by_a_tool = cache.item(&recipe, |_| async {
        crate::tool::Tool::new("tee").arg("/dev/full").stdin("x").env("LC_ALL", "C").run().await.map(drop)
    });
    for error in [by_itself, by_a_tool.await.unwrap_err()] {
        let text = error.to_string();
        assert!(matches!(error, CacheError::DiskFull { .. }), "{text}");
        assert!(
            text.starts_with("the disk is full: the thing could not be built and its parts were removed from"),
            "{text}"
        );
    }
    assert_eq!(names(&root.path().join("items")).len(), 1);
}

#[tokio::test]
async fn an_item_that_is_neither_file_nor_link_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let cache = Cache::at(root.path()).unwrap();
    let recipe = recipe();
    let error = cache.item(&recipe, |space| async move {
        std::os::unix::net::UnixListener::bind(space.out.join("socket")).map(drop)
    });
    let error = error.await.unwrap_err().to_string();
    assert!(error.contains("socket") && error.contains("not a file, a folder or a link"), "{error}");
}

#[test]
fn a_key_depends_on_name_and_parts_and_not_on_the_words_for_people() {
    let key = |r: Recipe| r.key();
    let same = Recipe::new("thing", "other words").with("version", "1");
    assert_eq!(key(recipe()), key(same));
    assert_ne!(key(recipe()), key(recipe().with("version", "2")));
    assert_ne!(key(recipe()), key(recipe().with("tags", "")));
    assert_ne!(key(recipe()), key(Recipe::new("thin", "").with("gversion", "1")));
}

proptest! {
    #[test]
    fn different_recipes_have_different_keys(
        a in proptest::collection::btree_map("[ab]{0,2}", "[ab]{0,2}", 0..3),
        b in proptest::collection::btree_map("[ab]{0,2}", "[ab]{0,2}", 0..3),
    ) {
        let make = |parts: &BTreeMap<String, String>| {
            parts.iter().fold(Recipe::new("n", ""), |r, (k, v)| r.with(k.clone(), v.clone())).key()
        };
        prop_assert_eq!(make(&a) == make(&b), a == b);
    }
}
