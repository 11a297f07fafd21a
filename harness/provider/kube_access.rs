//! Into pods through the API server: exec and port-forward over one websocket each, logs over HTTP.
//!
//! One exec costs a few tens of milliseconds, because the cluster's client keeps its connections; a
//! `kubectl exec` costs ten times that.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, LogParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::{Cluster, ExecOutput, PodRef, ProviderError, Stream};
use crate::redact;

/// What a program prints is read in pieces of this size; kube's own default is 1 KiB.
const BUFFER: usize = 256 * 1024;

/// A client by a kubeconfig of the host.
pub(super) async fn client(kubeconfig: &Path, cluster: &str) -> Result<Client, ProviderError> {
    let failed = |source: io::Error| ProviderError::Io {
        what: format!("cannot use {}, the kubeconfig of cluster {cluster}", kubeconfig.display()),
        source,
    };
    let read = Kubeconfig::read_from(kubeconfig).map_err(|e| failed(io::Error::other(e)))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|e| failed(io::Error::other(e)))?;
    // The API server is on this machine, whatever proxies the environment names.
    config.proxy_url = None;
    Client::try_from(config).map_err(|e| failed(io::Error::other(e)))
}

fn pods(cluster: &Cluster, pod: &PodRef) -> Api<Pod> {
    Api::namespaced(cluster.client.clone(), &pod.namespace)
}

/// What the API server's refusal becomes.
pub(super) fn failed(cluster: &Cluster, what: impl Into<String>) -> impl FnOnce(kube::Error) -> ProviderError {
    let (cluster, what) = (cluster.name.clone(), what.into());
    move |source| ProviderError::Kube { cluster, what, source: Box::new(source) }
}

/// Runs `argv` in a container and waits for it.
pub(super) async fn exec(
    cluster: &Cluster,
    pod: &PodRef,
    container: &str,
    argv: &[&str],
    stdin: &[u8],
) -> Result<ExecOutput, ProviderError> {
    let started = Instant::now();
    let what = || format!("exec in container {container} of pod {}/{}", pod.namespace, pod.name);
    let params = AttachParams::default()
        .container(container)
        .stdin(!stdin.is_empty())
        .stdout(true)
        .stderr(true)
        .max_stdin_buf_size(BUFFER)
        .max_stdout_buf_size(BUFFER)
        .max_stderr_buf_size(BUFFER);
    let mut process =
        pods(cluster, pod).exec(&pod.name, argv.iter().copied(), &params).await.map_err(failed(cluster, what()))?;
    let status = process.take_status();
    let (input, out, err) = (process.stdin(), process.stdout(), process.stderr());
    let feed = async {
        if let Some(mut input) = input {
            // A program that ends without reading all of its input is no failure of ours.
            let _ = input.write_all(stdin).await;
            let _ = input.shutdown().await;
        }
    };
    let ((), stdout, stderr) = tokio::join!(feed, drain(out), drain(err));
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let io = |source| ProviderError::Io { what: format!("cluster {}: {}", cluster.name, what()), source };
    // Without a status the connection broke; how, only the task behind the process knows.
    let Some(status) = status else {
        let why = process.join().await.err().map_or_else(|| "the connection was closed".to_owned(), |e| e.to_string());
        return Err(io(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
    };
    let code = exit_code(&status).map_err(|why| io(io::Error::other(why)))?;
    tracing::debug!(
        target: "meshproof::exec",
        cluster = cluster.name,
        pod = format!("{}/{}", pod.namespace, pod.name),
        container,
        argv = redact::text(&format!("{argv:?}")),
        code,
        seconds = started.elapsed().as_secs_f64(),
        "exec"
    );
    Ok(ExecOutput { code, stdout: stdout.map_err(io)?, stderr: stderr.map_err(io)?, duration: started.elapsed() })
}

async fn drain(reader: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut reader) = reader {
        reader.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The exit code in the kubelet's last word about a program.
fn exit_code(status: &Status) -> Result<i32, String> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|d| d.causes.iter().flatten());
    let code = causes.filter(|c| c.reason.as_deref() == Some("ExitCode")).find_map(|c| c.message.as_deref());
    match code.map(str::parse) {
        Some(Ok(code)) => Ok(code),
        _ => Err(status.message.clone().unwrap_or_else(|| format!("the kubelet responded {status:?}"))),
    }
}

/// Opens a connection to `port` on the pod's own loopback address.
pub(super) async fn dial(cluster: &Cluster, pod: &PodRef, port: u16) -> Result<Box<dyn Stream>, ProviderError> {
    let what = || format!("port-forward to port {port} of pod {}/{}", pod.namespace, pod.name);
    let mut forwarder = pods(cluster, pod).portforward(&pod.name, &[port]).await.map_err(failed(cluster, what()))?;
    let (Some(stream), Some(error)) = (forwarder.take_stream(port), forwarder.take_error(port)) else {
        let source = io::Error::other("the API server opened no stream");
        return Err(ProviderError::Io { what: format!("cluster {}: {}", cluster.name, what()), source });
    };
    Ok(Box::new(Forwarded { stream, error: Some(Box::pin(error)) }))
}

/// A forwarded port. That nothing listens is reported on a channel of its own, after the stream has
/// ended: an end of stream with such a word is an error for the reader.
struct Forwarded {
    stream: DuplexStream,
    error: Option<BoxFuture<'static, Option<String>>>,
}

impl AsyncRead for Forwarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(error) = &mut self.error else { return Poll::Ready(Ok(())) };
        let word = ready!(error.as_mut().poll(cx));
        self.error = None;
        match word.filter(|w| !w.is_empty()) {
            Some(word) => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, word))),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The log lines of a container since `since` ago, oldest first. The API counts in whole seconds:
/// a fraction is rounded up, so that nothing asked for is missing.
pub(super) async fn logs(
    cluster: &Cluster,
    pod: &PodRef,
    container: &str,
    since: Option<Duration>,
) -> Result<String, ProviderError> {
    let params =
        LogParams { container: Some(container.to_owned()), since_seconds: since.map(whole_seconds), ..<_>::default() };
    let what = format!("log of container {container} of pod {}/{}", pod.namespace, pod.name);
    pods(cluster, pod).logs(&pod.name, &params).await.map_err(failed(cluster, what))
}

fn whole_seconds(since: Duration) -> i64 {
    let rounded_up = since.as_secs() + u64::from(since.subsec_nanos() > 0);
    i64::try_from(rounded_up.max(1)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({"status": "Success"}), Ok(0))]
    #[case(
        json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with exit code 3",
               "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}),
        Ok(3)
    )]
    #[case(json!({"status": "Failure", "message": "container not found"}), Err("container not found".to_owned()))]
    fn the_kubelets_last_word(#[case] status: serde_json::Value, #[case] expected: Result<i32, String>) {
        assert_eq!(exit_code(&serde_json::from_value(status).unwrap()), expected);
    }

    #[rstest]
    #[case(0, 1)]
    #[case(1_000, 1)]
    #[case(1_001, 2)]
    fn fractions_of_a_second_are_rounded_up(#[case] millis: u64, #[case] expected: i64) {
        assert_eq!(whole_seconds(Duration::from_millis(millis)), expected);
    }

    #[tokio::test]
    async fn that_nothing_listens_is_an_error_of_the_reader() {
        let (stream, other_end) = tokio::io::duplex(64);
        drop(other_end);
        let word: BoxFuture<'static, _> = Box::pin(async { Some("connection refused".to_owned()) });
        let mut forwarded = Forwarded { stream, error: Some(word) };
        let error = forwarded.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::ConnectionRefused, "connection refused")
        );
    }

    #[tokio::test]
    async fn a_stream_that_ends_well_ends() {
        let (stream, mut other_end) = tokio::io::duplex(64);
        other_end.write_all(b"hello").await.unwrap();
        drop(other_end);
        let mut forwarded = Forwarded { stream, error: Some(Box::pin(async { None })) };
        let mut text = String::new();
        forwarded.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }
}
