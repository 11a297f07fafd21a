//! Archives and layers become folders, and what is wrong with them is said.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::io::Write;

use serde_json::json;

use super::*;

fn store(root: &Path) -> Store {
    Store::open(&StoreSettings { root: root.to_owned(), ..StoreSettings::default() }).unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        // `..` is refused by the setter.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// What `docker save` writes, with layers as given.
fn saved(arch: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let config = json!({"os": "linux", "architecture": arch, "config": {"Cmd": ["/app"], "User": "7"}}).to_string();
    let names: Vec<String> = (0..layers.len()).map(|n| format!("layer{n}.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": ["mine/app:1"], "Layers": names}]).to_string();
    let mut files: Vec<(&str, &[u8])> =
        vec![("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().map(Vec::as_slice)));
    tar(&files)
}

async fn import(archive: &[u8]) -> (tempfile::TempDir, Result<Vec<String>, String>) {
    let root = tempfile::tempdir().unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(archive).unwrap();
    let imported = store(root.path()).import(file.path()).await.map_err(|e| e.to_string());
    (root, imported)
}

fn left(root: &Path) -> usize {
    std::fs::read_dir(root.join("layers")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn an_archive_of_docker_save_is_found_by_its_name() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let layers = [tar(&[("app", b"#!"), ("old", b"x")]), tar(&[(".wh.old", b""), ("d/.wh..wh..opq", b"")])];
    let (root, imported) = import(&saved(super::super::plan::arch(), &layers)).await;
    assert_eq!(imported.unwrap(), ["docker.io/mine/app:1"]);
    let image = store(root.path()).find("mine/app:1").unwrap();
    assert_eq!((image.cmd, image.uid, image.layers.len()), (vec!["/app".to_owned()], 7, 2));
    assert!(image.layers[0].join("app").is_file());
    let hidden = std::fs::symlink_metadata(image.layers[1].join("old")).unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&hidden.file_type()), "a whiteout of overlayfs");
    assert_eq!(left(root.path()), 2, "nothing else is left");
    std::fs::remove_dir_all(&image.layers[0]).unwrap();
    assert_eq!(store(root.path()).find("mine/app:1"), None, "a layer is gone");
}

#[tokio::test]
async fn what_is_wrong_with_an_archive_is_said_and_nothing_stays() {
    let arch = super::super::plan::arch();
    for (archive, expected) in [
        (b"no tar file".to_vec(), "not a tar file"),
        (tar(&[("a", b"b")]), "neither manifest.json (`docker save`) nor index.json"),
        (saved("s390x", &[]), "it is not for linux/"),
        (saved(arch, &[b"broken layer".repeat(100)]), "layer sha256:"),
        (saved(arch, &[tar(&[("../evil", b"x")])]), "../evil points outside the image"),
    ] {
        let (root, imported) = import(&archive).await;
        let error = imported.unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert_eq!(left(root.path()), 0, "{error}");
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let error = store(root.path()).pull("UPPER").await.unwrap_err().to_string();
    assert!(error.contains("is not the name of an image"), "{error}");
}
