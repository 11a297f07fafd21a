//! The first process of a container: builds what the container sees, then becomes its program.
//!
//! `meshproof __container FILE` is started by the kubelet through `nsenter` (the pod's network) and
//! `unshare` (own process IDs, mounts, host name and IPC), as root and as process 1. It builds a root on a
//! tmpfs: the host's `/usr`, `/bin`, `/lib…` and `/sbin` read-only, some files of `/etc`, the
//! image's files, private `/tmp`, `/var`, `/run`, `/dev`, `/proc`, and the pod's volumes at their mount
//! paths. Then it drops its rights and executes the program.
//!
//! Its standard input is one end of a socket: it answers there with one line of JSON
//! ([`Reply`]). The end of the stream without an error means that the program runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, fchown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, pivot_root, setgroups, sethostname, setresgid, setresuid};
use serde::{Deserialize, Serialize};

/// What a container is to be: the content of the file that `__container` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// An empty folder of this machine, over which the root is mounted (in the container's own view only).
    pub root: PathBuf,
    /// The layers that are its root, the lowest first; all in one folder. None: the root is the host's programs.
    #[serde(default)]
    pub layers: Vec<PathBuf>,
    /// Host name.
    pub hostname: String,
    /// Files and folders of this machine that it sees, in the order of mounting.
    pub mounts: Vec<Mount>,
    /// Network settings (`net.ipv4.…`) of the pod.
    pub sysctls: Vec<(String, String)>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Folder to start in; created when it is missing.
    pub cwd: String,
    /// Where its standard input comes from.
    #[serde(default)]
    pub input: Input,
    /// Who it runs as, and what it may.
    pub identity: Identity,
}

/// Where a container's standard input comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// Nowhere: its end is read at once.
    #[default]
    None,
    /// A named pipe of this machine.
    Pipe {
        /// Where it is.
        path: PathBuf,
        /// It is closed after the first client that writes to it.
        once: bool,
    },
    /// The terminal that standard output is, which is to control the container's session.
    Terminal,
}

/// A file or folder of this machine inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On this machine.
    pub host: PathBuf,
    /// In the container.
    pub inside: PathBuf,
    /// Not to be written to.
    pub read_only: bool,
}

/// Who a container's program runs as, and what it may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The capabilities that it may have at all (`CAP_…`).
    pub capabilities: Vec<String>,
    /// It cannot gain rights by executing a program.
    pub no_new_privileges: bool,
    /// Its root cannot be written to.
    pub read_only_root: bool,
}

/// What the first process reports to the kubelet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The container is ready; its program is executed next.
    Ready {
        /// The process's ID on this machine.
        pid: u32,
    },
    /// The container cannot be.
    Failed {
        /// Why.
        why: String,
    },
}

/// `meshproof __container FILE`. Returns only when the container could not be started.
pub fn main(file: &Path) -> ExitCode {
    let stream = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let mut kubelet = match stream {
        Ok(stream) => stream,
        Err(error) => {
            anstream::eprintln!("meshproof __container: {error}");
            return ExitCode::from(126);
        }
    };
    let why = match become_container(file, &mut kubelet) {
        Ok(never) => match never {},
        Err(why) => why,
    };
    let line = serde_json::to_string(&Reply::Failed { why: why.clone() }).unwrap_or_default();
    if writeln!(kubelet, "{line}").is_err() {
        anstream::eprintln!("meshproof __container: {why}");
    }
    ExitCode::from(128)
}

type Result<T> = std::result::Result<T, String>;

fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

fn become_container(file: &Path, kubelet: &mut UnixStream) -> Result<std::convert::Infallible> {
    let text = fs::read(file).map_err(failed(file.display()))?;
    let start: Start = serde_json::from_slice(&text).map_err(failed(file.display()))?;
    // The host's /proc is still the one in view: it shows this process by its ID on this machine.
    let pid = fs::read_link("/proc/self").map_err(failed("/proc/self"))?;
    let pid = pid.to_string_lossy().parse().map_err(failed("/proc/self"))?;
    for (name, value) in &start.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(failed(format!("sysctl {name}")))?;
    }
    sethostname(&start.hostname).map_err(failed("host name"))?;
    // Before the host's files are out of view.
    let input = match &start.input {
        Input::Pipe { path, .. } => Some(File::open(path).map_err(failed(path.display()))?),
        Input::None | Input::Terminal => None,
    };
    build_root(&start)?;
    fs::create_dir_all(&start.cwd)
        .or_else(|e| if Path::new(&start.cwd).is_dir() { Ok(()) } else { Err(e) })
        .map_err(failed(&start.cwd))?;
    if start.identity.read_only_root {
        remount(Path::new("/"), true)?;
    }
    std::env::set_current_dir(&start.cwd).map_err(failed(&start.cwd))?;
    let program = find(&start)?;
    // Programs open /dev/stdout again, which needs the owner's permission.
    for result in
        [fchown(io::stdout(), Some(start.identity.uid), None), fchown(io::stderr(), Some(start.identity.uid), None)]
    {
        result.map_err(failed("standard output"))?;
    }
    match (&start.input, input) {
        (Input::Terminal, _) => {
            nix::unistd::setsid().map_err(failed("a session of its own"))?;
            rustix::process::ioctl_tiocsctty(io::stdout()).map_err(failed("a terminal in control"))?;
            nix::unistd::dup2_stdin(io::stdout())
        }
        (_, Some(pipe)) => nix::unistd::dup2_stdin(pipe),
        (_, None) => nix::unistd::dup2_stdin(File::open("/dev/null").map_err(failed("/dev/null"))?),
    }
    .map_err(failed("standard input"))?;
    drop_rights(&start.identity)?;
    let ready = serde_json::to_string(&Reply::Ready { pid }).map_err(failed("reply"))?;
    // If the kubelet has ended, stop here: its death signal may have been sent before it was requested.
    writeln!(kubelet, "{ready}").map_err(failed("the kubelet has ended"))?;
    // `unshare` above holds this socket too, so the program's start would not close it.
    kubelet.shutdown(std::net::Shutdown::Write).map_err(failed("the kubelet has ended"))?;
    let (first, rest) = start.argv.split_first().ok_or("no command specified")?;
    let error = std::process::Command::new(&program).arg0(first).args(rest).env_clear().envs(&start.env).exec();
    Err(format!("cannot execute {}: {error}", program.display()))
}

/// Where the program is, as the container sees it.
fn find(start: &Start) -> Result<PathBuf> {
    let name = start.argv.first().ok_or("no command specified")?;
    let runnable = |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        let path = PathBuf::from(name);
        return if runnable(&path) {
            Ok(path)
        } else {
            Err(format!("exec: {name:?}: no such executable file in the container"))
        };
    }
    let path = start.env.get("PATH").map_or("", String::as_str);
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|p| runnable(p));
    found.ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH ({path})"))
}

fn drop_rights(identity: &Identity) -> Result<()> {
    let bounding = caps::read(None, caps::CapSet::Bounding).map_err(failed("capabilities"))?;
    for capability in bounding {
        if !identity.capabilities.contains(&capability.to_string()) {
            caps::drop(None, caps::CapSet::Bounding, capability).map_err(failed(capability))?;
        }
    }
    if identity.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(failed("no new privileges"))?;
    }
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(failed("groups"))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setresgid(gid, gid, gid).map_err(failed("group"))?;
    setresuid(uid, uid, uid).map_err(failed("user"))?;
    // A change of user clears it: set again, so that the container ends with the process that waits for it.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("death signal"))
}

/// Makes the new root and moves into it.
fn build_root(start: &Start) -> Result<()> {
    let root = &start.root;
    let tmpfs = |at: &Path, options: &str| {
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options)).map_err(failed(at.display()))
    };
    tmpfs(root, "mode=0755")?;
    let new = if start.layers.is_empty() { root.clone() } else { overlay(root, &start.layers)? };
    let old = new.join(".host");
    fs::create_dir(&old).map_err(failed(old.display()))?;
    pivot_root(&new, &old).map_err(failed("pivot_root"))?;
    std::env::set_current_dir("/").map_err(failed("/"))?;
    let host = Path::new("/.host");
    if start.layers.is_empty() {
        of_host(host)?;
    } else {
        for folder in ["/proc", "/sys", "/dev", "/etc", "/run"] {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        tmpfs(Path::new("/dev"), "mode=0755")?;
    }
    let special = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), special, None::<&str>).map_err(failed("/proc"))?;
    bind(Path::new("/proc/sys"), Path::new("/proc/sys"), true)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), special | MsFlags::MS_RDONLY, None::<&str>).map_err(failed("/sys"))?;
    devices(host)?;
    for Mount { host: from, inside, read_only } in &start.mounts {
        let from = host.join(from.strip_prefix("/").unwrap_or(from));
        let made = if from.is_dir() { fs::create_dir_all(inside) } else { touch(inside) };
        made.map_err(failed(format!("{} in the container", inside.display())))?;
        bind(&from, inside, *read_only)?;
    }
    umount2(host, MntFlags::MNT_DETACH).map_err(failed("/.host"))?;
    fs::remove_dir(host).map_err(failed("/.host"))
}

/// The root of an image: its layers, and on top what the container writes, in memory.
fn overlay(memory: &Path, layers: &[PathBuf]) -> Result<PathBuf> {
    let [upper, work, root] = ["upper", "work", "root"].map(|name| memory.join(name));
    for path in [&upper, &work, &root] {
        folder(path, 0o755)?;
    }
    // By their names in their folder, as the kernel takes no more than a page of options.
    let parent = layers.first().and_then(|layer| layer.parent()).ok_or("the image has no layers")?;
    std::env::set_current_dir(parent).map_err(failed(parent.display()))?;
    let names: Vec<_> =
        layers.iter().rev().filter_map(|layer| layer.file_name()).map(|name| name.to_string_lossy()).collect();
    let options = format!("lowerdir={},upperdir={},workdir={}", names.join(":"), upper.display(), work.display());
    if options.len() > 4000 {
        return Err(format!("the image has {} layers, more than can be mounted", layers.len()));
    }
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(failed("the image's layers (overlayfs)"))?;
    Ok(root)
}

/// A root of the host's programs and private folders.
fn of_host(host: &Path) -> Result<()> {
    system(host)?;
    etc(host)?;
    for (path, mode) in [
        ("/tmp", 0o1777),
        ("/run", 0o755),
        ("/run/lock", 0o1777),
        ("/var", 0o755),
        ("/var/tmp", 0o1777),
        ("/var/lib", 0o755),
        ("/var/log", 0o755),
        ("/home", 0o755),
        ("/root", 0o700),
        ("/opt", 0o755),
        ("/srv", 0o755),
        ("/mnt", 0o755),
        ("/proc", 0o555),
        ("/sys", 0o555),
        ("/dev", 0o755),
    ] {
        folder(Path::new(path), mode)?;
    }
    symlink("../run", "/var/run").map_err(failed("/var/run"))
}

fn folder(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir(path).map_err(failed(path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed(path.display()))
}

fn touch(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    // A link of an image to a file that it does not hold: /etc/resolv.conf, often.
    if path.is_symlink() {
        fs::remove_file(path)?;
    }
    fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/")))?;
    File::create(path).map(drop)
}

fn bind(from: &Path, to: &Path, read_only: bool) -> Result<()> {
    let what = || format!("{} in the container", to.display());
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed(what()))?;
    if read_only { remount(to, true) } else { Ok(()) }
}

fn remount(path: &Path, read_only: bool) -> Result<()> {
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    flags.set(MsFlags::MS_RDONLY, read_only);
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).map_err(failed(path.display()))
}

/// `/usr`, `/bin`, `/lib…`, `/sbin` of the host, read-only; but `/usr/local` is the image's own.
fn system(host: &Path) -> Result<()> {
    folder(Path::new("/usr"), 0o755)?;
    folder(Path::new("/usr/local"), 0o755)?;
    folder(Path::new("/usr/local/bin"), 0o755)?;
    let top = entries(host)?.into_iter().filter(|n| n == "bin" || n == "sbin" || n.starts_with("lib"));
    let usr = entries(&host.join("usr"))?.into_iter().filter(|n| n != "local").map(|n| format!("usr/{n}"));
    for name in top.chain(usr) {
        same(host, &name)?;
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(failed(folder.display()))?.flatten();
    Ok(entries.filter_map(|e| e.file_name().into_string().ok()).collect())
}

/// What the host has at `/name`: a link as the same link, everything else bound read-only.
fn same(host: &Path, name: &str) -> Result<()> {
    let (from, to) = (host.join(name), Path::new("/").join(name));
    let Ok(meta) = fs::symlink_metadata(&from) else { return Ok(()) };
    if meta.is_symlink() {
        let target = fs::read_link(&from).map_err(failed(from.display()))?;
        return symlink(target, &to).map_err(failed(to.display()));
    }
    if meta.is_dir() { fs::create_dir(&to) } else { touch(&to) }.map_err(failed(to.display()))?;
    bind(&from, &to, true)
}

/// What the host's programs and libraries read from `/etc`, and nothing more.
const ETC: &[&str] = &[
    "alternatives",
    "java-17-openjdk",
    "ca-certificates",
    "ethertypes",
    "gai.conf",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki",
    "protocols",
    "services",
    "ssl",
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
                      istio-proxy:x:1337:1337:istio-proxy:/home/istio-proxy:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\nistio-proxy:x:1337:\n";

fn etc(host: &Path) -> Result<()> {
    folder(Path::new("/etc"), 0o755)?;
    for name in ETC {
        same(host, &format!("etc/{name}"))?;
    }
    for (name, content) in [
        ("passwd", PASSWD),
        ("group", GROUP),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n"),
    ] {
        fs::write(Path::new("/etc").join(name), content).map_err(failed(name))?;
    }
    Ok(())
}

fn devices(host: &Path) -> Result<()> {
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let to = Path::new("/dev").join(name);
        touch(&to).map_err(failed(to.display()))?;
        bind(&host.join("dev").join(name), &to, false)?;
    }
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")]
    {
        symlink(target, Path::new("/dev").join(name)).map_err(failed(name))?;
    }
    for (path, kind, options) in [
        ("/dev/shm", "tmpfs", "mode=1777,size=64m"),
        ("/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ] {
        fs::create_dir(path).map_err(failed(path))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(Some(kind), path, Some(kind), flags, Some(options)).map_err(failed(path))?;
    }
    Ok(())
}
