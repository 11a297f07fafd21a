//! Dependencies go one way: rooms in the order that ARCHITECTURE.md writes down, files of a folder without circles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use imports::{Import, Library};

#[path = "architecture/imports.rs"]
mod imports;

/// What is not as it should be yet. What is fixed must be taken off.
const KNOWN: &[&str] = &[];

#[test]
fn dependencies_go_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = Library::read(&root.join("harness/lib.rs"));
    let order = order(&std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    let named: BTreeSet<String> = order.keys().cloned().collect();
    assert_eq!(named, library.rooms(), "left: the rooms in ARCHITECTURE.md's order; right: those in harness/lib.rs");
    let imports = library.imports();
    let found: BTreeMap<String, String> = upwards(&imports, &order).into_iter().chain(circles(&imports)).collect();
    let known: BTreeSet<&str> = KNOWN.iter().copied().collect();
    let new: Vec<String> =
        found.iter().filter(|(what, _)| !known.contains(what.as_str())).map(|(a, b)| format!("{a}\n{b}")).collect();
    assert!(new.is_empty(), "against the order of dependencies (ARCHITECTURE.md):\n\n{}", new.join("\n"));
    let gone: Vec<&&str> = known.iter().filter(|what| !found.contains_key(**what)).collect();
    assert!(gone.is_empty(), "fixed: take it off KNOWN in tests/architecture.rs: {gone:?}");
}

/// Each room's level: its line in the block below "## Order of dependencies".
fn order(document: &str) -> BTreeMap<String, usize> {
    let section = document.split("\n## Order of dependencies\n").nth(1).expect("a section `Order of dependencies`");
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with("    "));
    let mut order = BTreeMap::new();
    for (level, line) in lines.enumerate() {
        for room in line.split_whitespace() {
            assert!(order.insert(room.to_owned(), level).is_none(), "{room} is twice in the order");
        }
    }
    order
}

/// Uses of a room by one that is not above it, with the files that they are in.
fn upwards(imports: &BTreeSet<Import>, order: &BTreeMap<String, usize>) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for Import { folder, from, to, file } in imports {
        if folder.is_empty() && order[from] <= order[to] {
            found.entry(format!("{from} -> {to}")).or_default().push_str(&format!("    {}\n", name(file)));
        }
    }
    found
}

/// Circles among the parts of one folder, with the uses that close them.
fn circles(imports: &BTreeSet<Import>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let folders: BTreeSet<&[String]> = imports.iter().map(|i| i.folder.as_slice()).filter(|f| !f.is_empty()).collect();
    for folder in folders {
        let here: Vec<&Import> = imports.iter().filter(|import| import.folder == folder).collect();
        let parts: BTreeSet<&str> = here.iter().map(|import| import.from.as_str()).collect();
        let reach: BTreeMap<&str, BTreeSet<&str>> = parts.iter().map(|part| (*part, reached(&here, part))).collect();
        for part in &parts {
            let circle: Vec<&str> = parts
                .iter()
                .copied()
                .filter(|other| reach[part].contains(other) && reach[other].contains(part))
                .collect();
            if circle.len() > 1 {
                let inside = |i: &&&Import| circle.contains(&i.from.as_str()) && circle.contains(&i.to.as_str());
                let uses: BTreeSet<String> = here
                    .iter()
                    .filter(inside)
                    .map(|i| format!("    {} -> {} in {}\n", i.from, i.to, name(&i.file)))
                    .collect();
                found.insert(
                    format!("circle in {}: {}", folder.join("/"), circle.join(" ")),
                    uses.into_iter().collect(),
                );
            }
        }
    }
    found
}

/// A file as it is named in the project.
fn name(file: &Path) -> String {
    file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(file).display().to_string()
}

/// All that a part uses, directly or not.
fn reached<'a>(imports: &[&'a Import], from: &str) -> BTreeSet<&'a str> {
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(part) = next.pop() {
        for import in imports.iter().filter(|import| import.from == part) {
            if reached.insert(&import.to) {
                next.push(import.to.clone());
            }
        }
    }
    reached
}

#[test]
fn paths_are_found_wherever_they_are_and_tests_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "pub mod low;\nmod high;\n#[cfg(test)]\nmod testing;\n");
    write("low/mod.rs", "mod a; mod b; mod c; mod d;\npub use b::Thing;\nuse crate::high::Late as Later;\n");
    // The comment, the strings and the tests name what is not used.
    write(
        "low/a.rs",
        "use super::{self as low, Thing, c::{self, C}};\n// crate::high\nconst S: &str = r#\"crate::high\"#; const T: char = '\"';\n\
         #[cfg(test)]\n#[rstest]\nmod tests { use crate::high::X; fn f() {} }\nfn f() { \"super::d\"; }\n",
    );
    write("low/b.rs", "fn f<'a>(x: &'a str) -> super::a::A { todo!() }\n#[cfg(test)]\nuse super::d;\n");
    write("low/c.rs", "fn f() -> super::Later { }\n");
    write("low/d.rs", "#[cfg(not(test))]\nuse crate::low::d::D;\n");
    write("high.rs", "use crate::{low::{a, d::D}};\n");
    let imports = Library::read(&dir.path().join("lib.rs")).imports();
    let pairs: Vec<String> = imports.iter().map(|i| format!("{}/{}->{}", i.folder.join("/"), i.from, i.to)).collect();
    assert_eq!(pairs, ["/high->low", "/low->high", "/low->high", "low/a->b", "low/a->c", "low/b->a"]);
    assert_eq!(circles(&imports).keys().collect::<Vec<_>>(), ["circle in low: a b"]);
    let order = order("# x\n\n## Order of dependencies\n\ntext\n\n    low\n    high\n\n## y\n\n    other\n");
    assert_eq!(upwards(&imports, &order).keys().collect::<Vec<_>>(), ["low -> high"]);
}
