//! The commands that were run, from the run's log file.

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;

/// Longer output is cut: the run's log has all of it.
const OUTPUT: usize = 4000;

/// One line of the log file (see [`crate::logging`]).
#[derive(Deserialize)]
struct Line {
    timestamp: Timestamp,
    fields: Fields,
}

/// What [`crate::tool`] logs about a program that ended.
#[derive(Deserialize)]
struct Fields {
    command: String,
    exit: Option<i32>,
    #[serde(default)]
    unfinished: bool,
    seconds: f64,
    stdout: String,
    stderr: String,
}

/// The programs that ended between two moments, as a person would have typed them, with their output.
///
/// # Errors
/// When the log file cannot be read.
pub fn between(log: &Path, from: Timestamp, to: Timestamp) -> std::io::Result<String> {
    Ok(text(&std::fs::read_to_string(log)?, from, to))
}

fn text(log: &str, from: Timestamp, to: Timestamp) -> String {
    let mut text = String::new();
    // Other lines of the log do not have these fields.
    for line in log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
        if line.timestamp < from || line.timestamp > to {
            continue;
        }
        let Fields { command, exit, unfinished, seconds, stdout, stderr } = line.fields;
        let exit = match exit {
            Some(code) => format!("exit code {code}"),
            None if unfinished => "ended by meshproof before it finished".to_owned(),
            None => "ended by a signal".to_owned(),
        };
        let _ = writeln!(text, "# {}, {exit} after {seconds:.3} s\n$ {command}", line.timestamp);
        for output in [stdout, stderr].iter().filter(|output| !output.is_empty()) {
            let end = output.char_indices().nth(OUTPUT).map_or(output.len(), |(at, _)| at);
            let _ = writeln!(
                text,
                "{}{}",
                &output[..end],
                if end < output.len() { "\n(cut: log.jsonl has all)" } else { "" }
            );
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_the_scenario_s_time_are_reported() {
        let line = |second: u32, fields: &str| {
            format!(
                r#"{{"timestamp":"2026-01-31T12:00:{second:02}.5Z","level":"DEBUG","fields":{fields},"target":"meshproof::tool"}}"#
            )
        };
        let ran = |command: &str, stdout: &str| {
            format!(
                r#"{{"message":"ran","command":"{command}","exit":0,"seconds":0.25,"stdout":"{stdout}","stderr":"oops"}}"#
            )
        };
        let log = [
            line(1, &ran("too early", "")),
            line(2, &ran("ip route", "default via 10.0.0.1")),
            "cut sho".to_owned(),
            line(3, r#"{"message":"other"}"#),
            line(4, &ran("cat long", &"x".repeat(OUTPUT + 1))),
            line(
                5,
                r#"{"message":"ran","command":"kind create","unfinished":true,"seconds":600.0,"stdout":"half","stderr":""}"#,
            ),
            line(9, &ran("too late", "")),
        ];
        let at = |second: u32| format!("2026-01-31T12:00:{second:02}Z").parse().unwrap();
        let text = text(&log.join("\n"), at(2), at(9)).replace(&"x".repeat(OUTPUT), "xxx");
        insta::assert_snapshot!(text, @r"
        # 2026-01-31T12:00:02.5Z, exit code 0 after 0.250 s
        $ ip route
        default via 10.0.0.1
        oops

        # 2026-01-31T12:00:04.5Z, exit code 0 after 0.250 s
        $ cat long
        xxx
        (cut: log.jsonl has all)
        oops

        # 2026-01-31T12:00:05.5Z, ended by meshproof before it finished after 600.000 s
        $ kind create
        half
        ");
    }
}
