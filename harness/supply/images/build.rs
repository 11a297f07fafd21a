//! From a bare node image and an archive of images to the node image: what both sources have in common.

use std::io;
use std::path::Path;

use super::archive::{Content, Tree};
use crate::journal::process_start_time;
use crate::supply::cache::BoxError;
use crate::tool::Tool;

/// The node image in its item of the cache, as `docker load` reads it.
pub(super) const ARCHIVE: &str = "image.tar";

const ENTRYPOINT: &str = include_str!("files/node-entrypoint");
const PRELOAD: &str = include_str!("files/preload");
const USE_PRELOADED: &str = include_str!("files/use-preloaded-images");
const DROP_IN: &str = include_str!("files/preload.conf");

/// Texts that decide what the result is.
pub(super) const SCRIPTS: [&str; 4] = [ENTRYPOINT, PRELOAD, USE_PRELOADED, DROP_IN];

/// What every node image has besides its base.
pub(super) fn files() -> Tree {
    let text = |path: &str, mode, text: &str| (path.to_owned(), (mode, Content::Text(text.to_owned())));
    Tree::from([
        text("kind/bin/node-entrypoint", 0o755, ENTRYPOINT),
        text("kind/bin/use-preloaded-images", 0o755, USE_PRELOADED),
        text("etc/systemd/system/containerd.service.d/10-preload.conf", 0o644, DROP_IN),
    ])
}

/// Label of containers in which an image is being made, with process and start time of who makes it.
const BUILD_LABEL: &str = "dev.meshproof.build";

/// Runs `setup` and then the preloading in a container of `base`, which has [`files`]; commits it as `tag` and saves it
/// to `out`.
pub(super) async fn preload(
    base: &str,
    setup: &str,
    images: &Path,
    tag: &str,
    scratch: &Path,
    out: &Path,
) -> Result<(), BoxError> {
    remove_dead().await?;
    let owner = format!("{}.{}", std::process::id(), process_start_time(std::process::id()).unwrap_or_default());
    let (name, label) = (format!("meshproof-build-{owner}"), format!("{BUILD_LABEL}={owner}"));
    let run = ["run", "--detach", "--name", &name, "--label", &label, "--network", "none", "--privileged"];
    let idle = ["--volume", "/work", "--entrypoint", "/bin/sleep", base, "infinity"];
    docker(&run).args(idle).run().await.map_err(|e| {
        format!(
            "{e}\n(hint: a node is a privileged container; where the machine lacks a capability, Docker needs a runtime \
             that does without it, as `.ci/engine` sets up)"
        )
    })?;
    let made = in_container(&name, setup, images, tag, scratch).await;
    docker(&["rm", "--force", "--volumes", &name]).run().await?;
    made?;
    docker(&["save", "--output"]).arg(out).arg(tag).run().await?;
    Ok(())
}

async fn in_container(name: &str, setup: &str, images: &Path, tag: &str, scratch: &Path) -> Result<(), BoxError> {
    let own = super::archive::Layer::write(scratch.join("own.tar"), &files())?;
    let extract = std::fs::read(own.path())?;
    docker(&["exec", "--interactive", name, "tar", "--directory", "/", "--extract", "--file", "-"])
        .stdin(extract)
        .run()
        .await?;
    docker(&["cp"]).arg(images).arg(format!("{name}:/work/images.tar")).run().await?;
    for script in [setup, PRELOAD] {
        docker(&["exec", "--interactive", name, "bash", "-s"]).stdin(script).run().await?;
    }
    let entrypoint = r#"ENTRYPOINT ["/kind/bin/node-entrypoint", "/sbin/init"]"#;
    docker(&["commit", "--change", entrypoint, "--change", "CMD []", name, tag]).run().await?;
    Ok(())
}

/// Removes what builds left that were killed.
async fn remove_dead() -> Result<(), BoxError> {
    let format = format!("{{{{.ID}}}} {{{{.Label \"{BUILD_LABEL}\"}}}}");
    let output =
        docker(&["ps", "--all", "--format", &format, "--filter", &format!("label={BUILD_LABEL}")]).run().await?;
    for line in output.text().lines() {
        let Some((id, owner)) = line.split_once(' ') else { continue };
        if !lives(owner) {
            docker(&["rm", "--force", "--volumes", id]).run().await?;
        }
    }
    Ok(())
}

fn lives(owner: &str) -> bool {
    let Some((pid, start)) = owner.split_once('.') else { return false };
    pid.parse().ok().and_then(process_start_time).is_some_and(|now| now.to_string() == start)
}

fn docker(args: &[&str]) -> Tool {
    Tool::new("docker").args(args)
}

/// A blocking piece of work, away from the other tasks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BoxError> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_builds_of_living_processes_are_left_alone() {
        let me = std::process::id();
        assert!(lives(&format!("{me}.{}", process_start_time(me).unwrap())));
        assert!(!lives(&format!("{me}.1")));
        assert!(!lives("nonsense"));
    }
}
