//! Removing what `versions.yaml` names no longer.

use std::collections::BTreeSet;
use std::path::Path;

use super::addon::AddOn;
use super::cache_error::io;
use super::{Cache, Origin, Piece, Program, Purpose, Supplied, SupplyError, Versions, images, plan};

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// How many items.
    pub items: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes every item that no provider needs with these versions, from any source. Nothing may be running that was made of
/// the cache: programs of netns clusters run from there.
///
/// # Errors
/// When the cache cannot be read, or an item cannot be removed.
pub async fn prune(versions: &Versions) -> Result<Pruned, SupplyError> {
    prune_in(&Cache::open()?, versions).await
}

async fn prune_in(cache: &Cache, versions: &Versions) -> Result<Pruned, SupplyError> {
    let named = named(cache, versions).await?;
    let folder = cache.root().join("items");
    let mut pruned = Pruned { items: 0, bytes: 0 };
    for entry in std::fs::read_dir(&folder).map_err(io("read", &folder))? {
        let entry = entry.map_err(io("read", &folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let item = name.strip_suffix(".lock").or_else(|| name.strip_suffix(".part")).unwrap_or(&name);
        if named.contains(item) || in_use(&folder.join(format!("{item}.lock"))) {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            pruned.items += usize::from(item == name);
            pruned.bytes += size(&path);
            std::fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        } else {
            std::fs::remove_file(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(pruned)
}

/// Whether a process is making that item.
fn in_use(lock: &Path) -> bool {
    std::fs::File::open(lock).is_ok_and(|file| file.try_lock().is_err())
}

fn size(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}

/// The folders of all items that are named.
async fn named(cache: &Cache, versions: &Versions) -> Result<BTreeSet<String>, SupplyError> {
    let mut named = BTreeSet::new();
    let mut pairs = vec![(Origin::Registry, versions.clone())];
    for pair in &versions.matrix {
        let chosen = versions.clone().with_pair(Some(pair.istio), Some(pair.kubernetes))?;
        pairs.push((Origin::Registry, chosen));
    }
    for version in &versions.packages.kubernetes {
        pairs.push((Origin::Packages, versions.clone().with_pair(None, Some(version.parse()?))?));
    }
    for (origin, versions) in pairs {
        of_origin(cache, &versions, origin, &mut named).await?;
    }
    Ok(named)
}

async fn of_origin(
    cache: &Cache,
    versions: &Versions,
    origin: Origin,
    named: &mut BTreeSet<String>,
) -> Result<(), SupplyError> {
    let purposes = [Purpose::Kind, Purpose::Netns, Purpose::Mesh];
    let mut programs: Vec<Program> = purposes.iter().flat_map(|p| p.programs(origin)).collect();
    programs.extend(AddOn::all().map(AddOn::program).chain(Program::crds()));
    programs.sort_unstable();
    programs.dedup();
    let steps = match plan::steps(versions, origin, &programs).await {
        Ok(steps) => steps,
        // Nothing can have been built for a machine without Go, or with other module lists.
        Err(SupplyError::NoGo(_) | SupplyError::Unpinned { .. }) => return Ok(()),
        Err(other) => return Err(other),
    };
    let mut pieces = std::collections::BTreeMap::new();
    for step in &steps {
        named.insert(cache.folder(&step.recipe));
        for (program, file) in &step.provides {
            let identity = format!("{}/{file}", step.recipe.key());
            pieces.insert(*program, Piece { path: file.into(), identity });
        }
    }
    let (kubernetes, istio) = versions.pair_of(origin)?;
    let (kubernetes, istio) = (kubernetes.to_owned(), istio.to_owned());
    let supplied = Supplied {
        origin,
        versions: versions.clone(),
        kubernetes,
        istio,
        stock_envoy: origin == Origin::Packages,
        programs: pieces,
        own: BTreeSet::new(),
    };
    named.extend(images::recipes(&supplied).await?.iter().map(|recipe| cache.folder(recipe)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supply::Recipe;

    #[tokio::test]
    async fn what_is_named_stays_and_everything_else_goes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let versions = Versions::built_in().unwrap();
        let named = named(&cache, &versions).await.unwrap();
        let kept = named.iter().find(|name| name.starts_with("image-pilot-")).unwrap();
        let old = cache.folder(&Recipe::new("etcd", "etcd").with("version", "1"));
        let (kept, old) = (dir.path().join("items").join(kept), dir.path().join("items").join(old));
        for item in [&kept, &old] {
            std::fs::create_dir_all(item.join("files")).unwrap();
            std::fs::write(item.join("files/program"), [0; 10]).unwrap();
            std::fs::write(item.with_extension("lock"), "").unwrap();
        }
        assert_eq!(prune_in(&cache, &versions).await.unwrap(), Pruned { items: 1, bytes: 10 });
        assert!(kept.exists() && kept.with_extension("lock").exists());
        assert!(!old.exists() && !old.with_extension("lock").exists());
    }
}
