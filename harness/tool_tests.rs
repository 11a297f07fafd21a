use std::sync::Mutex;

use super::*;
use rstest::rstest;

#[tokio::test]
async fn an_empty_environment_holds_what_is_set_and_nothing_else() {
    let tool = Tool::new("/usr/bin/env").clear_env().env("GREETING", "hi");
    assert_eq!(tool.run().await.unwrap().text(), "GREETING=hi");
}

#[tokio::test]
async fn answers_output_and_status() {
    let output =
        Tool::new("sh").args(["-c", "cat; echo oops >&2; exit 3"]).stdin("hello").run_unchecked().await.unwrap();
    assert_eq!(
        (output.text().as_str(), output.error_text().as_str(), output.status.code()),
        ("hello", "oops", Some(3))
    );
}

#[tokio::test]
async fn a_failure_names_the_command_and_its_last_words() {
    let error = Tool::new("sh").args(["-c", "echo no such thing >&2; exit 1"]).run().await.unwrap_err().to_string();
    assert!(error.contains("sh -c 'echo no such thing >&2; exit 1'") && error.contains("no such thing"), "{error}");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = Tool::new("no-such-program").run().await.unwrap_err();
    assert!(matches!(&error, ToolError::NotStarted { program, .. } if program == "no-such-program"), "{error}");
}

#[tokio::test]
async fn a_program_that_outlives_its_time_is_ended() {
    let error = Tool::new("sleep").arg("30").timeout(Duration::from_millis(50)).run().await.unwrap_err();
    assert!(matches!(error, ToolError::TimedOut { .. }), "{error}");
}

/// The log of what `work` does.
async fn logged(work: impl Future<Output = ()>) -> String {
    use tracing::instrument::WithSubscriber;
    // While there is but one subscriber, `tracing` asks only the thread that comes to an event first whether it is wanted, and
    // keeps the answer: a thread of another test, without one, would turn the event off. These two live on.
    static OTHERS: std::sync::LazyLock<[tracing::Dispatch; 2]> = std::sync::LazyLock::new(|| {
        let debug = || tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::sink);
        [debug().finish().into(), debug().finish().into()]
    });
    std::sync::LazyLock::force(&OTHERS);
    let log = Arc::new(Mutex::new(Vec::new()));
    struct To(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for To {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::DEBUG);
    work.with_subscriber(subscriber.with_writer(move || To(to.clone())).finish()).await;
    String::from_utf8(log.lock().unwrap().clone()).unwrap()
}

#[tokio::test]
async fn a_program_that_exceeds_its_time_is_in_the_log_with_what_it_printed_and_its_children_end_too() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; echo half way; wait", pid.display());
    let log = logged(async {
        let error = Tool::new("sh").args(["-c", &script]).timeout(Duration::from_secs(3)).run().await;
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("and was ended; its last lines:\nhalf way"), "{error}");
    });
    let log = log.await;
    assert!(log.contains(r#""unfinished":true"#) && log.contains(r#""stdout":"half way""#), "{log}");
    let child: u32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    ended(child).await;
}

#[tokio::test]
async fn what_is_dropped_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let printed = dir.path().join("printed");
    let script = format!("echo begun; touch {}; sleep 600", printed.display());
    let log = logged(async {
        let slow = Tool::new("sh").args(["-c", &script]).run();
        let until_printed = async {
            while !printed.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = slow => panic!("{ended:?}"),
            () = until_printed => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it printed nothing"),
        }
    });
    let log = log.await;
    assert!(log.contains(r#""unfinished":true"#) && log.contains(r#""stdout":"begun""#), "{log}");
}

#[tokio::test]
async fn secrets_enter_neither_log_nor_error() {
    let key = "-----BEGIN EC PRIVATE KEY-----MHcCAQEEIJkV0vC0aQz1yq0u4T3b8Q9x7WmT5cJrXk2sP6nLh4Gd";
    let log = logged(async {
        let script = "echo \"$1\"; echo \"$1\" >&2; exit 1";
        let tool = Tool::new("sh").args(["-c", script, "sh", key]);
        assert!(!tool.command_line().contains("MHcCAQ"));
        let error = tool.run().await.unwrap_err();
        assert!(!error.to_string().contains("MHcCAQ"), "{error}");
        let ToolError::Failed { output, .. } = error else { panic!("{error}") };
        assert_eq!(output.text(), key, "who ran it gets all of it");
    });
    let log = log.await;
    assert!(log.contains("[redacted]") && !log.contains("MHcCAQ"), "{log}");
}

/// Waits for the end of a process.
async fn ended(pid: u32) {
    let gone = || async move {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => {
                crate::wait::Poll::<_, std::io::Error>::NotYet("still running".into())
            }
            _ => crate::wait::Poll::Ready(()),
        }
    };
    crate::wait::until("its end", Duration::from_secs(10), Duration::from_millis(5), gone).await.unwrap();
}

#[tokio::test]
async fn a_started_program_logs_and_dies_with_its_handle() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut ends = Tool::new("sh").args(["-c", "echo out; echo err >&2; exit 4"]).start(&log).unwrap();
    assert_eq!(ends.wait().await.unwrap().code(), Some(4));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "out\nerr\n");
    let stays = Tool::new("sleep").arg("600").start(&log).unwrap();
    let pid = stays.pid();
    assert!(crate::journal::process_start_time(pid).is_some());
    drop(stays);
    ended(pid).await;
}

#[tokio::test]
async fn a_piped_program_is_spoken_to_and_listened_to() {
    use std::io::Write;
    use tokio::io::AsyncReadExt;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut piped =
        Tool::new("sh").args(["-c", "read l; echo \"got $l\"; echo no >&2"]).start_piped(theirs.into()).unwrap();
    ours.write_all(b"word\n").unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    piped.stdout.read_to_string(&mut out).await.unwrap();
    piped.stderr.read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("got word\n", "no\n"));
    assert!(piped.process.wait().await.unwrap().success());
}

#[rstest]
#[case::let_go(true, "began\n")]
#[case::dropped(false, "none\n")]
#[tokio::test]
async fn a_program_apart_begins_only_when_let_go(#[case] go: bool, #[case] expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let apart = Tool::new("sh").args(["-c", "if read l; then echo began; else echo none; fi"]);
    let apart = apart.start_apart(&log).unwrap();
    if go {
        apart.go().await.unwrap()
    } else {
        drop(apart)
    }
    let said = || async {
        match std::fs::read_to_string(&log) {
            Ok(text) if !text.is_empty() => crate::wait::Poll::<_, std::io::Error>::Ready(text),
            _ => crate::wait::Poll::NotYet("a line".into()),
        }
    };
    let text = crate::wait::until("a line", Duration::from_secs(10), Duration::from_millis(5), said).await.unwrap();
    assert_eq!(text, expected);
}

#[test]
fn the_way_into_a_namespace_is_part_of_the_command() {
    let tool = Tool::new("ss").arg("-ltn").in_netns("mp-a1-node");
    assert_eq!(tool.command_line(), "nsenter --net=/run/netns/mp-a1-node -- ss -ltn");
}

#[rstest]
#[case("plain-word", "plain-word")]
#[case("two words", "'two words'")]
#[case("it's", r"'it'\''s'")]
#[case("", "''")]
fn quoting(#[case] word: &str, #[case] expected: &str) {
    assert_eq!(quote(word), expected);
}
