//! What runs where, on disk: so that another process of the harness finds a container and its log.
//!
//! `<env>/nodes/<node>/pods/<namespace>_<pod>_<uid>/<container>.json` (mode 0600) exists while the
//! container runs; its log is `<env>/nodes/<node>/logs/<namespace>_<pod>_<uid>/<container>.log` and is kept.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::inside::Identity;
use crate::journal;
use crate::tool::Tool;

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its first process, as this machine numbers it.
    pub pid: u32,
    /// Field 22 of that process's `/proc/<pid>/stat`.
    pub start_time: u64,
    /// The pod's network namespace.
    pub netns: String,
    /// The environment that its program was started with.
    pub env: BTreeMap<String, String>,
    /// The folder that its program was started in.
    pub cwd: String,
    /// Who it runs as.
    pub identity: Identity,
    /// Its log.
    pub log: PathBuf,
}

/// The name of a pod's folders.
pub fn pod_folder(namespace: &str, pod: &str, uid: &str) -> String {
    format!("{namespace}_{pod}_{uid}")
}

/// The folder of a node's running pods.
pub fn pods_folder(env: &Path, node: &str) -> PathBuf {
    env.join("nodes").join(node).join("pods")
}

/// The folder of the logs of a node's pods.
pub fn logs_folder(env: &Path, node: &str) -> PathBuf {
    env.join("nodes").join(node).join("logs")
}

impl Container {
    /// Writes it down.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        journal::write_private(path, &text).map_err(io::Error::other)
    }

    /// Reads one.
    ///
    /// # Errors
    /// When the container does not run, or the file cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let found: Self = serde_json::from_slice(&std::fs::read(path)?)?;
        if journal::process_start_time(found.pid) != Some(found.start_time) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("process {} has ended", found.pid)));
        }
        Ok(found)
    }

    /// A program that runs inside the container as its own program does: same files, network,
    /// processes, user, environment and folder. (What it may do as root is not cut down.)
    pub fn exec(&self, argv: &[impl AsRef<str>]) -> Tool {
        let all = ["-m", "-u", "-i", "-n", "-p"];
        self.enter(Tool::new("/usr/bin/nsenter"), &all, argv)
    }

    /// As [`Container::exec`], for a program whose standard input is a terminal: it leads a session that the terminal
    /// controls. The session begins inside the container's process namespace, where shells look for its leader.
    pub fn exec_on_terminal(&self, argv: &[impl AsRef<str>]) -> Tool {
        let tool = Tool::new("/usr/bin/nsenter").args(["-t", &self.pid.to_string(), "-p", "--"]).args([
            "/usr/bin/setsid",
            "--ctty",
            "/usr/bin/nsenter",
        ]);
        self.enter(tool, &["-m", "-u", "-i", "-n"], argv).env("TERM", "xterm")
    }

    /// Where its terminals are made, as this machine sees it.
    pub fn ptmx(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/dev/pts/ptmx", self.pid))
    }

    fn enter(&self, tool: Tool, namespaces: &[&str], argv: &[impl AsRef<str>]) -> Tool {
        let id = &self.identity;
        let mut tool = tool
            .args(["-t", &self.pid.to_string()])
            .args(namespaces)
            .arg(format!("--wdns={}", self.cwd))
            .args([format!("-S{}", id.uid), format!("-G{}", id.gid)])
            .arg("--")
            .args(argv.iter().map(AsRef::as_ref))
            .clear_env();
        for (name, value) in &self.env {
            tool = tool.env(name, value);
        }
        tool
    }
}

/// The state file of a running container, looked for on all nodes given.
///
/// # Errors
/// When no such container runs; the message lists what does.
pub fn find(env: &Path, nodes: &[String], namespace: &str, pod: &str, container: &str) -> io::Result<Container> {
    let mut running = Vec::new();
    for folder in folders(env, nodes, pods_folder, namespace, pod) {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            match Container::read(&path) {
                Ok(found) if name == container => return Ok(found),
                Ok(_) => running.push(name),
                Err(_) => {}
            }
        }
    }
    running.sort();
    let what = if running.is_empty() {
        "none of its containers is running".into()
    } else {
        format!("running: {}", running.join(", "))
    };
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no running container {container:?} in pod {namespace}/{pod} ({what})"),
    ))
}

/// The network namespace of a pod that runs on one of the nodes given.
///
/// # Errors
/// When none of its containers is running.
pub fn pod_netns(env: &Path, nodes: &[String], namespace: &str, pod: &str) -> io::Result<String> {
    let files = folders(env, nodes, pods_folder, namespace, pod)
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"));
    let netns = files.filter_map(|path| Container::read(&path).ok()).map(|container| container.netns).next();
    netns.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("no container of pod {namespace}/{pod} is running"))
    })
}

/// The log file of a container of a pod that runs or ran, the newest pod of that name.
///
/// # Errors
/// When there is none.
pub fn find_log(env: &Path, nodes: &[String], namespace: &str, pod: &str, container: &str) -> io::Result<PathBuf> {
    let logs = folders(env, nodes, logs_folder, namespace, pod).into_iter().map(|f| f.join(format!("{container}.log")));
    let newest = logs.filter_map(|path| Some((std::fs::metadata(&path).ok()?.created().ok(), path))).max();
    newest.map(|(_, path)| path).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("no log of container {container:?} of pod {namespace}/{pod}"))
    })
}

fn folders(env: &Path, nodes: &[String], kind: fn(&Path, &str) -> PathBuf, namespace: &str, pod: &str) -> Vec<PathBuf> {
    let prefix = pod_folder(namespace, pod, "");
    let all = nodes.iter().flat_map(|node| std::fs::read_dir(kind(env, node)).into_iter().flatten().flatten());
    all.map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(start_time: u64) -> Container {
        Container {
            pid: std::process::id(),
            start_time,
            netns: "n".into(),
            env: [("A".to_owned(), "b c".to_owned())].into(),
            cwd: "/app".into(),
            identity: Identity {
                uid: 1337,
                gid: 1338,
                groups: vec![],
                capabilities: vec![],
                no_new_privileges: false,
                read_only_root: false,
            },
            log: "/x.log".into(),
        }
    }

    #[test]
    fn a_running_container_is_found_and_a_dead_one_is_not() {
        let env = tempfile::tempdir().unwrap();
        let folder = pods_folder(env.path(), "n1").join(pod_folder("app1", "web", "u1"));
        std::fs::create_dir_all(&folder).unwrap();
        let own = journal::process_start_time(std::process::id()).unwrap();
        container(own).write(&folder.join("web.json")).unwrap();
        container(own + 1).write(&folder.join("old.json")).unwrap();
        let nodes = ["n0".to_owned(), "n1".to_owned()];
        assert_eq!(find(env.path(), &nodes, "app1", "web", "web").unwrap(), container(own));
        let error = find(env.path(), &nodes, "app1", "web", "old").unwrap_err().to_string();
        assert_eq!(error, "no running container \"old\" in pod app1/web (running: web)");
        let error = find(env.path(), &nodes, "app1", "we", "web").unwrap_err().to_string();
        assert!(error.contains("none of its containers is running"), "{error}");
    }

    #[test]
    fn exec_enters_all_namespaces_as_the_containers_user() {
        let own = container(1).exec(&["ls", "-l"]).command_line();
        let pid = std::process::id();
        assert_eq!(own, format!("/usr/bin/nsenter -t {pid} -m -u -i -n -p --wdns=/app -S1337 -G1338 -- ls -l"));
    }
}
