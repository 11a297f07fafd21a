//! What people type against a cluster, with the real kubectl and istioctl: logs, exec, cp, attach, debug, port-forward, and the
//! commands of istioctl that use them. The same commands must give the same on netns and on kind.
//!
//! Needs root, kubectl and the programs of the supply, and for the second test a container engine. Without them the tests skip
//! locally, with the reason, and fail where `CI` is set.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use meshproof::journal::EnvDir;
use meshproof::provider::netns::{self, namespace};
use meshproof::provider::{Cluster, PodRef, through_api_server};
use meshproof::supply::{self, Overrides, Purpose, Source, Versions, program::Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A kept environment with a mesh of two clusters, and the programs that people use with it.
struct Mesh {
    provider: &'static str,
    state: PathBuf,
    id: String,
    kubeconfig: String,
    istioctl: PathBuf,
    sleep: String,
    image: String,
}

/// How a command ended.
#[derive(Debug)]
struct Seen {
    code: i32,
    out: String,
    err: String,
}

fn ended(command: &mut Command, input: &str) -> Seen {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Seen { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

impl Mesh {
    /// `None`, with the reason printed: this test cannot run here.
    async fn new(provider: &'static str, state: &Path) -> Option<Self> {
        if std::env::var_os("CI").is_none() && std::env::var_os("MESHPROOF_TEST_CLUSTERS").is_none() {
            eprintln!("skipped: it needs root and makes clusters (MESHPROOF_TEST_CLUSTERS=1 runs it, CI always does)");
            return None;
        }
        let versions = Versions::built_in().unwrap();
        let supplied = supply::ensure(Purpose::Netns, Source::Auto, &versions, &Overrides::new()).await.unwrap();
        let istioctl = supplied.program(Program::Istioctl).unwrap().to_owned();
        let up = Self::meshproof(state)
            .args(["run", "--keep", "--provider", provider, "scenarios/vpn/both_versions.yaml"])
            .output()
            .unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        let id = std::fs::read_dir(state.join("meshproof")).unwrap().flatten().next().unwrap().file_name();
        let env = Self::meshproof(state).arg("env").output().unwrap();
        let env = String::from_utf8(env.stdout).unwrap();
        let kubeconfig = env.lines().find_map(|line| line.strip_prefix("export KUBECONFIG=")).unwrap();
        let mut mesh = Self {
            provider,
            state: state.to_owned(),
            id: id.into_string().unwrap(),
            kubeconfig: kubeconfig.trim_matches('\'').to_owned(),
            istioctl,
            sleep: String::new(),
            image: String::new(),
        };
        let show = "jsonpath={.items[0].metadata.name} {.items[0].spec.containers[?(@.name=='sleep')].image}";
        let pod = mesh.kubectl(&["get", "pod", "-l", "app=sleep", "-o", show]).out;
        let (sleep, image) = pod.split_once(' ').unwrap();
        (mesh.sleep, mesh.image) = (sleep.to_owned(), image.to_owned());
        Some(mesh)
    }

    fn meshproof(state: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshproof"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_STATE_HOME", state);
        command
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg("90").arg(program).args(["-n", "app1"]).args(args).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    fn kubectl(&self, args: &[&str]) -> Seen {
        ended(&mut self.command("kubectl".as_ref(), args), "")
    }

    fn kubectl_with(&self, args: &[&str], input: &str) -> Seen {
        ended(&mut self.command("kubectl".as_ref(), args), input)
    }

    /// Whether the workload's image has a program. On netns all are the host's.
    fn has(&self, program: &str) -> bool {
        let found = format!("command -v {program}");
        let found = self.kubectl(&["exec", &self.sleep, "-c", "sleep", "--", "sh", "-c", &found]).code == 0;
        assert!(found || self.provider != "netns", "no {program} on netns");
        found
    }

    fn istioctl(&self, args: &[&str]) -> Seen {
        ended(&mut self.command(&self.istioctl, args), "")
    }

    /// Leaves a command open.
    fn open(&self, program: &Path, args: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut command = self.command(program, args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        (child, out)
    }

    /// What a person sees on a terminal of 33 lines and 99 columns who types these lines after a moment.
    fn on_terminal(&self, command: &str, typed: &str) -> Seen {
        let line = format!("stty rows 33 cols 99; kubectl -n app1 {command}");
        let mut script = Command::new("timeout");
        script.args(["60", "script", "-qec", &line, "/dev/null"]).env("KUBECONFIG", &self.kubeconfig);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::thread::sleep(Duration::from_secs(4));
        input.write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(input);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        Seen { code: output.status.code().unwrap_or(-1), out, err: String::new() }
    }
}

/// The port that a line like `Forwarding from 127.0.0.1:40123 -> 15000` names.
fn forwarded(out: &mut impl BufRead) -> u16 {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    port.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap()
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn logs(mesh: &Mesh) {
    let pod = mesh.sleep.as_str();
    let seen = mesh.kubectl(&["logs", pod, "-c", "istio-proxy", "--tail=2"]);
    assert_eq!((seen.code, seen.out.lines().count()), (0, 2), "{seen:?}");
    let seen = mesh.kubectl(&["logs", pod, "-c", "istio-proxy", "--limit-bytes=7"]);
    assert_eq!((seen.code, seen.out.len()), (0, 7), "{seen:?}");
    let seen = mesh.kubectl(&["logs", pod, "-c", "istio-proxy", "--timestamps", "--tail=1"]);
    let time = seen.out.split(' ').next().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{seen:?}");
    let all = mesh.kubectl(&["logs", pod, "-c", "istio-proxy"]).out.lines().count();
    let none = mesh.kubectl(&["logs", pod, "-c", "istio-proxy", "--since-time=2100-01-01T00:00:00Z"]).out;
    assert!(all > 10 && none.is_empty(), "{all} {none}");
    let seen = mesh.kubectl(&["logs", pod, "-c", "istio-proxy", "--previous"]);
    assert!(seen.code == 1 && seen.err.contains("previous terminated container \"istio-proxy\""), "{seen:?}");

    // Followed: a line comes as soon as it is printed.
    let (mut child, mut out) = mesh.open("kubectl".as_ref(), &["logs", "-f", pod, "-c", "istio-proxy", "--tail=0"]);
    std::thread::sleep(Duration::from_secs(1));
    let calls = "curl -s -o /dev/null http://helloworld.app1:5000/hello?followed";
    assert_eq!(mesh.kubectl(&["exec", pod, "-c", "sleep", "--", "sh", "-c", calls]).code, 0);
    let mut line = String::new();
    while !line.contains("/hello?followed") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the log ended");
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // Of a container that starts again and again: the start before.
    let restarting = r#"{"spec": {"containers": [{"name": "c", "image": "IMAGE", "stdin": false,
        "command": ["sh", "-c", "echo start; sleep 1; exit 1"]}]}}"#;
    let overrides = restarting.replace("IMAGE", &mesh.image);
    let run =
        ["run", "again", "--labels=sidecar.istio.io/inject=false", "--image", &mesh.image, "--overrides", &overrides];
    assert_eq!(mesh.kubectl(&run).code, 0);
    let until = Instant::now() + Duration::from_secs(60);
    while mesh.kubectl(&["logs", "again", "--previous"]).out != "start\n" {
        assert!(Instant::now() < until, "{:?}", mesh.kubectl(&["describe", "pod", "again"]));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(mesh.kubectl(&["delete", "pod", "again", "--now"]).code, 0);
}

fn exec(mesh: &Mesh) {
    let pod = mesh.sleep.as_str();
    for websockets in ["true", "false"] {
        let mut command = mesh
            .command("kubectl".as_ref(), &["exec", pod, "-c", "sleep", "--", "sh", "-c", "echo a; echo b >&2; exit 3"]);
        let seen = ended(command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets), "");
        assert_eq!((seen.code, seen.out.as_str()), (3, "a\n"), "{seen:?}");
        assert!(seen.err.starts_with("b\n") && seen.err.contains("exit code 3"), "{seen:?}");
    }
    let long = "0123456789abcdef\n".repeat(100_000);
    let seen = mesh.kubectl_with(&["exec", "-i", pod, "-c", "sleep", "--", "cat"], &long);
    assert!(seen.code == 0 && seen.out == long, "{} bytes came back", seen.out.len());
    let seen = mesh.kubectl(&["exec", pod, "-c", "none", "--", "true"]);
    assert!(seen.code == 1 && seen.err.contains("none"), "{seen:?}");

    let seen = mesh.on_terminal(
        &format!("exec -it {pod} -c sleep -- sh"),
        "[ -t 0 ] && echo a terminal; stty size; tty; exit 4\n",
    );
    assert!(seen.code == 4 && seen.out.contains("\na terminal"), "{seen:?}");
    if !mesh.has("stty") {
        return eprintln!("not checked here: the size of a terminal, and cp: the image has no stty and tar");
    }
    assert!(seen.out.contains("33 99") && seen.out.contains("/dev/pts/0"), "{seen:?}");

    let folder = tempfile::tempdir().unwrap();
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    std::fs::write(&there, &long).unwrap();
    let inside = format!("{pod}:/tmp/copied");
    let seen = mesh.kubectl(&["cp", there.to_str().unwrap(), &inside, "-c", "sleep"]);
    assert_eq!(seen.code, 0, "{seen:?}");
    let seen = mesh.kubectl(&["cp", &inside, back.to_str().unwrap(), "-c", "sleep"]);
    assert!(seen.code == 0 && std::fs::read_to_string(&back).unwrap() == long, "{seen:?}");
}

fn attach(mesh: &Mesh) {
    let run = ["run", "typed", "--image", &mesh.image, "-i", "--rm", "--restart=Never"];
    let program = ["--labels=sidecar.istio.io/inject=false", "--command", "--", "sh", "-c", "read x; echo got $x"];
    let seen = mesh.kubectl_with(&[&run[..], &program].concat(), "hello\n");
    assert!(seen.code == 0 && seen.out.contains("got hello\n"), "{seen:?}");

    let label = "--labels=sidecar.istio.io/inject=false";
    let run = format!("run terminal --image={} -it --rm --restart=Never {label} --command -- sh", mesh.image);
    let seen = mesh.on_terminal(&run, "[ -t 0 ] && echo a terminal; stty size; exit 5\n");
    assert!(seen.code == 5 && seen.out.contains("\na terminal"), "{seen:?}");
    assert!(seen.out.contains("33 99") || !mesh.has("stty"), "{seen:?}");

    let debug = format!("debug -it {} --image={} --target=istio-proxy --profile=general -- sh", mesh.sleep, mesh.image);
    let seen = mesh.on_terminal(&debug, "cat /proc/1/comm; exit\n");
    assert!(seen.code == 0 && seen.out.contains("pilot-agent"), "the target's processes are seen: {seen:?}");
    let states = "jsonpath={.status.ephemeralContainerStatuses[*].state.terminated.exitCode}";
    // A kubelet writes the status a moment after it responds to the client.
    let until = Instant::now() + Duration::from_secs(30);
    while mesh.kubectl(&["get", "pod", &mesh.sleep, "-o", states]).out != "0" {
        assert!(Instant::now() < until, "{:?}", mesh.kubectl(&["describe", "pod", &mesh.sleep]));
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn port_forward(mesh: &Mesh) {
    let pod = mesh.sleep.as_str();
    let (mut child, mut out) = mesh.open("kubectl".as_ref(), &["port-forward", pod, ":15000"]);
    let port = forwarded(&mut out);
    for _ in 0..3 {
        assert!(get(port, "/ready").unwrap().contains("LIVE"));
    }
    let large = get(port, "/config_dump").unwrap();
    assert!(large.len() > 100_000 && large.ends_with('}') || large.contains("\"configs\""), "{} bytes", large.len());
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, mut out) = mesh.open("kubectl".as_ref(), &["port-forward", pod, ":9"]);
    let port = forwarded(&mut out);
    assert_eq!(get(port, "/").unwrap_or_default(), "", "nobody listens on that port");
    let _ = child.kill();
    child.wait().unwrap();
}

fn istioctl(mesh: &Mesh) {
    let pod = mesh.sleep.as_str();
    for (args, expected) in [
        (&["proxy-status"][..], "sleep-"),
        (&["proxy-config", "clusters", pod], "outbound"),
        (&["proxy-config", "listeners", pod], "15001"),
        (&["proxy-config", "routes", pod], "helloworld"),
        (&["proxy-config", "endpoints", pod], "HEALTHY"),
        (&["proxy-config", "bootstrap", pod], "textFormat"),
        (&["proxy-config", "secret", pod], "ROOTCA"),
        (&["proxy-config", "log", pod], "warning"),
        (&["x", "describe", "pod", pod], "STRICT"),
        (&["remote-clusters"], "synced"),
        (&["version"], "data plane version"),
    ] {
        let seen = mesh.istioctl(args);
        assert!(seen.code == 0 && seen.out.contains(expected), "istioctl {}: {seen:?}", args.join(" "));
    }
    let lines = mesh.istioctl(&["remote-clusters"]).out;
    assert!(lines.lines().any(|line| line.starts_with("cluster2") && line.contains("synced")), "{lines}");

    let (mut child, mut out) = mesh.open(&mesh.istioctl, &["dashboard", "envoy", pod, "--browser=false", "--port=0"]);
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
    assert!(get(port.unwrap_or_else(|| panic!("{line:?}")), "/server_info").unwrap().contains("LIVE"));
    child.kill().unwrap();
    child.wait().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let mut command = mesh.command(&mesh.istioctl, &["bug-report", "--full-secrets=false", "--timeout=60s"]);
    let seen = ended(command.current_dir(folder.path()), "");
    let archive = folder.path().join("bug-report.tar.gz");
    assert!(seen.code == 0 && archive.is_file(), "{seen:?}");
    let list = Command::new("tar").arg("tzf").arg(&archive).output().unwrap().stdout;
    let list = String::from_utf8_lossy(&list).into_owned();
    assert!(list.contains(&format!("{pod}/")) && list.contains("config_dump"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_and_istioctl_work_on_netns_and_what_they_leave_open_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mesh) = Mesh::new("netns", folder.path()).await else { return };
    logs(&mesh);
    exec(&mesh);
    attach(&mesh);
    port_forward(&mesh);
    istioctl(&mesh);

    // API servers are reached from within the environment only: so are those that a remote secret names.
    let inside = mesh.state.join("meshproof").join(&mesh.id).join("netns/cluster1/pki/admin.kubeconfig");
    let mut analyze = Command::new("ip");
    analyze.args(["netns", "exec", &format!("mp-{}-fabric", mesh.id)]).arg(&mesh.istioctl);
    let seen = ended(analyze.arg("--kubeconfig").arg(inside).args(["analyze", "-A"]), "");
    assert!(seen.code == 0 && seen.out.contains("cluster-cluster2"), "{seen:?}");

    let node = "/api/v1/nodes/cluster1-control-plane/proxy";
    for (path, expected) in [
        ("healthz", "ok"),
        ("pods", mesh.sleep.as_str()),
        ("stats/summary", "usageCoreNanoSeconds"),
        ("metrics/resource", "container_memory_working_set_bytes{container=\"sleep\",namespace=\"app1\""),
    ] {
        let seen = mesh.kubectl(&["get", "--raw", &format!("{node}/{path}")]);
        assert!(seen.code == 0 && seen.out.contains(expected), "{path}: {seen:?}");
    }
    who_may_call(&mesh);
    latencies(&mesh).await;

    let pod = mesh.sleep.as_str();
    let left = [
        mesh.open("kubectl".as_ref(), &["logs", "-f", pod, "-c", "istio-proxy"]).0,
        mesh.open("kubectl".as_ref(), &["port-forward", pod, ":15000"]).0,
        mesh.open("kubectl".as_ref(), &["exec", "-i", pod, "-c", "sleep", "--", "sleep", "12345"]).0,
    ];
    std::thread::sleep(Duration::from_secs(1));
    assert!(Mesh::meshproof(&mesh.state).args(["down", "--all"]).output().unwrap().status.success());
    let until = Instant::now() + Duration::from_secs(20);
    for mut child in left {
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "a command that was left open goes on");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert!(namespace::names(&format!("mp-{}-", mesh.id)).is_empty());
    let running = Command::new("pgrep").args(["-f", "sleep 12345|meshproof __supervise"]).output().unwrap().stdout;
    let running = String::from_utf8(running).unwrap();
    let of_this = |pid: &&str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("12345") || line.contains(&mesh.id)
    };
    assert_eq!(running.lines().filter(of_this).count(), 0, "{running}");
}

/// Prints how long the harness's own calls take, directly and through the API server (`--nocapture` shows it).
async fn latencies(mesh: &Mesh) {
    let env = EnvDir::open(&mesh.state.join("meshproof"), &mesh.id).unwrap().unwrap();
    let direct = netns::attach(&env).await.unwrap().remove(0);
    let served = Cluster { access: through_api_server(), ..direct.clone() };
    let pod = PodRef { namespace: "app1".into(), name: mesh.sleep.clone() };
    for (way, cluster) in [("directly", &direct), ("through the API server", &served)].repeat(2) {
        let (mut execs, mut dials) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            let begun = Instant::now();
            assert_eq!(cluster.exec(&pod, "sleep", &["true"], b"").await.unwrap().code, 0);
            execs.push(begun.elapsed());
            let begun = Instant::now();
            let mut stream = cluster.dial(&pod, 15000).await.unwrap();
            stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            dials.push(begun.elapsed());
        }
        execs.sort();
        dials.sort();
        eprintln!("{way}: exec {:.1?}, dial and answer {:.1?} (medians of 40)", execs[20], dials[20]);
    }
}

/// The kubelet's own port: nobody without a certificate, and no node.
fn who_may_call(mesh: &Mesh) {
    let pki = mesh.state.join("meshproof").join(&mesh.id).join("netns/cluster1/pki");
    let curl = |client: Option<&str>| {
        let node = format!("mp-{}-cluster1-control-plane", mesh.id);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &node, "curl", "-s", "-w", "%{http_code}", "--cacert"]).arg(pki.join("ca.crt"));
        if let Some(name) = client {
            command
                .arg("--cert")
                .arg(pki.join(format!("{name}.crt")))
                .arg("--key")
                .arg(pki.join(format!("{name}.key")));
        }
        let name = "cluster1-control-plane:10250";
        let address = std::fs::read_to_string(mesh.state.join("meshproof").join(&mesh.id).join("netns/orders.json"));
        let orders: serde_json::Value = serde_json::from_str(&address.unwrap()).unwrap();
        let address = orders["layout"]["clusters"][0]["control_plane"]["address"].as_str().unwrap().to_owned();
        let seen = ended(
            command.args(["--connect-to", &format!("{name}:{address}:10250")]).arg(format!("https://{name}/healthz")),
            "",
        );
        seen.out
    };
    assert_eq!(curl(Some("apiserver-kubelet-client")), "ok200");
    assert!(curl(Some("cluster1-control-plane")).ends_with("403"));
    assert!(curl(None).ends_with("000"), "without a certificate there is no connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_commands_give_the_same_on_kind() {
    if std::env::var_os("CI").is_none()
        && !Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success())
    {
        eprintln!("skipped: no container engine answers");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(mesh) = Mesh::new("kind", folder.path()).await else { return };
    let checked = std::panic::catch_unwind(|| {
        logs(&mesh);
        exec(&mesh);
        attach(&mesh);
        port_forward(&mesh);
        istioctl(&mesh);
    });
    assert!(Mesh::meshproof(&mesh.state).args(["down", "--all"]).output().unwrap().status.success());
    checked.unwrap();
}
