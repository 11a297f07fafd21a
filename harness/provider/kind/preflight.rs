//! What this provider needs of the machine, before a minute is spent. (Limits of the kernel, memory and disk are
//! `doctor::host`'s.)

use super::config;
use super::engine::{self, Engine, docker};
use crate::finding::Finding;
use crate::provider::ProviderError;

/// Looks at the container engine. With `try_privileged`, and a node image to do it with, a privileged container is really
/// started.
pub async fn preflight(try_privileged: bool) -> Vec<Finding> {
    match engine::look().await {
        Err(error) => vec![Finding::bad(
            "container engine",
            // The hint is this finding's own.
            if let ProviderError::Refused { what, .. } = error { what } else { error.to_string() },
            "every node of a kind cluster is a container",
            "start Docker (`sudo systemctl start docker`), or use `--provider netns`, which needs none",
        )],
        Ok(engine) if try_privileged => vec![answers(&engine), privileged(node_image().await.as_deref()).await],
        Ok(engine) => vec![answers(&engine)],
    }
}

/// Any node image that the engine has: ours, or kind's own.
async fn node_image() -> Option<String> {
    let names = ["meshproof.local/node", "kindest/node"].map(|name| format!("reference={name}"));
    let filters = names.iter().flat_map(|name| ["--filter", name.as_str()]);
    let list = ["image", "ls", "--format", "{{.ID}}"].into_iter().chain(filters);
    docker(list).run().await.ok()?.text().lines().next().map(str::to_owned)
}

fn answers(engine: &Engine) -> Finding {
    let found = format!("Docker {}, cgroup version {}", engine.server_version, engine.cgroup_version);
    Finding::good("container engine", found)
}

async fn privileged(image: Option<&str>) -> Finding {
    let subject = "privileged containers";
    let Some(image) = image else {
        return Finding::good(subject, "not tried: no node image yet (`meshproof supply` gets one)");
    };
    let run = ["run", "--rm", "--privileged", "--network", "none", "--entrypoint", "/bin/true", image];
    match docker(run).run_unchecked().await {
        Ok(output) if output.status.success() => Finding::good(subject, "work"),
        Ok(output) => refused(&output.last_lines(2)),
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(said: &str) -> Finding {
    let lacks = !config::has_sys_resource(std::fs::read_to_string("/proc/self/status").ok().as_deref());
    let fix = if lacks {
        "CAP_SYS_RESOURCE is missing on this machine: configure a Docker runtime that does not need it, as `.ci/engine` does"
    } else {
        "allow Docker to start privileged containers (rootless mode needs cgroup v2; no user namespaces)"
    };
    Finding::bad("privileged containers", said, "a node runs systemd, containerd and a kubelet", fix)
}
