//! What each report says, word for word, for a run with a scenario of every class.

use rstest::rstest;

use super::*;
use crate::verdict::Class;

#[test]
fn terminal_text() {
    insta::assert_snapshot!(terminal::plain(&terminal::whole(&sample::run())));
}

#[test]
fn terminal_colours_tell_the_class() {
    let text = terminal::whole(&sample::run());
    for colour in
        ["\x1b[1m\x1b[32m✓ pass", "\x1b[1m\x1b[31m✗ fail", "\x1b[1m\x1b[35m! broken", "\x1b[1m\x1b[33m? inconclusive"]
    {
        assert!(text.contains(colour), "{colour:?}");
    }
}

#[test]
fn junit_text() {
    insta::assert_snapshot!(junit(&sample::run()).unwrap());
}

#[test]
fn markdown_text() {
    insta::assert_snapshot!(markdown(&sample::run()));
}

#[test]
fn annotations_text() {
    insta::assert_snapshot!(annotations(&sample::run()));
}

#[test]
fn json_text() {
    insta::assert_snapshot!(json(&sample::run()).unwrap());
}

#[test]
fn json_can_be_read_back() {
    let run = sample::run();
    let again: RunReport = serde_json::from_str(&json(&run).unwrap()).unwrap();
    // serde_json reads a number back to its last digit but one.
    assert_eq!(terminal::whole(&again), terminal::whole(&run));
    assert_eq!(junit(&again), junit(&run));
    assert_eq!(again.scenarios[1], run.scenarios[1]);
}

#[test]
fn classes_follow_from_the_findings() {
    use Class::{Broken, Fail, Inconclusive, Pass};
    let run = sample::run();
    let classes: Vec<_> = run.scenarios.iter().map(ScenarioReport::class).collect();
    assert_eq!(classes, [Pass, Fail, Broken, Broken, Inconclusive, Pass]);
    assert_eq!(run.class(), Fail);
    assert_eq!(run.totals().in_words(), "6 scenarios: 2 pass, 1 fail, 2 broken, 1 inconclusive");
}

#[test]
fn a_run_that_judged_nothing_is_no_pass() {
    let empty = ScenarioReport { name: "empty".into(), ..ScenarioReport::default() };
    assert_eq!(empty.class(), Class::Inconclusive);
    let run = RunReport { scenarios: vec![], ..sample::run() };
    assert_eq!((run.class(), run.totals().in_words().as_str()), (Class::Inconclusive, "no scenario ran"));
}

/// Reads XML with a strict parser and answers how many elements of that name it has.
fn elements(xml: &str, name: &str) -> usize {
    let mut reader = quick_xml::Reader::from_str(xml);
    reader.config_mut().check_end_names = true;
    let mut count = 0;
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Start(e) | quick_xml::events::Event::Empty(e) => {
                for attribute in e.attributes() {
                    attribute.unwrap().normalized_value(quick_xml::XmlVersion::Implicit1_0).unwrap();
                }
                count += usize::from(e.name().as_ref() == name.as_bytes());
            }
            quick_xml::events::Event::Eof => return count,
            _ => {}
        }
    }
}

#[test]
fn junit_is_well_formed_whatever_the_texts_hold() {
    let mut run = sample::run();
    run.scenarios[1].name = "a < b & \"c\" \u{1b}[31m ]]> \u{0}".into();
    run.scenarios[3].error = Some("<oops> & \u{8} ]]>".into());
    let xml = junit(&run).unwrap();
    let counts = ["testcase", "failure", "error", "skipped"].map(|name| elements(&xml, name));
    assert_eq!(counts, [6, 1, 2, 1]);
    assert!(!xml.contains('\u{1b}') && !xml.contains('\u{0}'));
}

#[rstest]
#[case("50% of\r\n calls", "a: b, c", "::error file=f,line=1,col=1,title=a%3A b%2C c::50%25 of%0D%0A calls\n")]
fn annotations_escape_what_github_would_read(#[case] message: &str, #[case] name: &str, #[case] expected: &str) {
    let scenario = ScenarioReport {
        name: name.into(),
        file: "f".into(),
        error: Some(message.into()),
        ..ScenarioReport::default()
    };
    let run = RunReport { scenarios: vec![scenario], ..sample::run() };
    assert_eq!(annotations(&run), expected);
}

#[test]
fn markdown_keeps_to_githubs_limit_and_tells_what_is_missing() {
    let mut run = sample::run();
    let one = run.scenarios[1].clone();
    run.scenarios = std::iter::repeat_n(one, 2000).collect();
    let text = markdown(&run);
    assert!(text.len() <= MARKDOWN_LIMIT && text.len() > MARKDOWN_LIMIT * 9 / 10, "{}", text.len());
    assert!(text.contains("parts did not fit into this summary"));
    assert_eq!(text.matches("<details").count(), text.matches("</details>").count());
}

#[test]
fn markdown_is_not_fooled_by_names() {
    let mut run = sample::run();
    run.scenarios[1].name = "a | b </summary> *c*".into();
    run.scenarios[1].steps[1].what = "call ``` here".into();
    let text = markdown(&run);
    assert!(text.contains(r"| a \| b &lt;/summary&gt; \*c\* |"), "{text}");
    assert!(text.contains("\n````text\n"));
}

#[test]
fn all_reports_are_written_whole_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("deep/run");
    let run = sample::run();
    let paths = write_all(&run, &dir).unwrap();
    assert_eq!(write_all(&run, &dir).unwrap(), paths);
    let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["junit.xml", "report.html", "report.json", "summary.md"]);
    assert_eq!(std::fs::read_to_string(&paths.markdown).unwrap(), markdown(&run));
}

#[test]
fn a_report_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("report.json")).unwrap();
    let error = write_all(&sample::run(), dir.path()).unwrap_err().to_string();
    assert!(error.contains("report.json could not be written"), "{error}");
}

/// Keeps what a browser shows for a person to look at: `MESHPROOF_SAMPLE_REPORT=DIR cargo test --lib sample_report`.
#[test]
fn sample_report_html_is_well_formed_and_self_contained() {
    let page = html(&sample::run());
    if let Some(dir) = std::env::var_os("MESHPROOF_SAMPLE_REPORT") {
        write_all(&sample::run(), Path::new(&dir)).unwrap();
    }
    for foreign in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert_eq!(page.matches("<section").count(), page.matches("</section>").count());
    for (i, svg) in page.split("<svg").skip(1).enumerate() {
        let svg = format!("<svg{}</svg>", svg.split("</svg>").next().unwrap());
        assert!(elements(&svg, "rect") > 0, "drawing {i} is empty");
    }
}

/// What a reader must find before the table of scenarios: what failed, where, expected and observed, the first broken rung.
#[test]
fn html_begins_with_what_failed() {
    let page = html(&sample::run());
    let first = page.split("<h2>Scenarios</h2>").next().unwrap();
    for wanted in [
        "v2 only",
        "scenarios/vpn/v2-only.yaml:8:92",
        "only v2 answers, every call",
        "v1 60, v2 71, timed out 1 of 132 calls on 1 connection",
        "route and subset chosen",
        "no virtual service in this proxy's routes",
        "address already in use",
    ] {
        assert!(first.contains(wanted), "{wanted}");
    }
    assert!(first.find("v2 only").unwrap() < first.find("remote secret").unwrap(), "failures come before the rest");
}

#[test]
fn html_escapes_what_it_shows() {
    let mut run = sample::run();
    run.scenarios[1].name = "<script>alert(1)</script>".into();
    run.scenarios[3].error = Some("\"><img src=x>".into());
    let page = html(&run);
    assert!(!page.contains("<script") && !page.contains("<img"));
    assert!(page.contains("&lt;script&gt;"));
}

#[test]
fn routes_are_drawn_as_they_are() {
    let mut run = sample::run();
    let topology = &mut run.environments[0].topology;
    let third = ClusterReport { name: "cluster3".into(), ..topology.clusters[1].clone() };
    topology.clusters.push(third);
    topology.routes.push(("cluster1".into(), "cluster3".into()));
    topology.routes.push(("cluster3".into(), "cluster2".into()));
    let page = html(&run);
    if let Some(dir) = std::env::var_os("MESHPROOF_SAMPLE_REPORT") {
        write_all(&run, &Path::new(&dir).join("three")).unwrap();
    }
    let drawing = page.split("<svg").nth(1).unwrap().split("</svg>").next().unwrap().to_owned();
    assert!(drawing.contains("pods reach each other") && drawing.contains("pods reach up only"), "{drawing}");
    assert_eq!(drawing.matches("class=\"route\"").count(), 3);
    assert_eq!(drawing.matches("class=\"head\"").count(), 4, "one head for each direction");
}
