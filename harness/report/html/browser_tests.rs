//! The report in a real browser, at the width of a laptop and of a phone, light and dark. Without Chromium the tests skip
//! locally, with the reason, and fail where `CI` is set.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rstest::rstest;
use serde::Deserialize;

use crate::report::{html, sample};
use crate::tool::{Tool, ToolError};

/// What `browser_tests.js` reports about the page.
#[derive(Debug, Deserialize)]
struct Seen {
    width: u32,
    height: u32,
    dark: bool,
    background: String,
    /// By how many pixels the page is wider than the screen.
    wider: i64,
    /// Elements that stick out to the left or right.
    outside: Vec<String>,
    /// Names that end in dots.
    cut: Vec<String>,
    /// Texts that an edge of the drawing runs through.
    crossed: Vec<String>,
    /// Texts of the drawing that lie on others.
    overlapping: Vec<String>,
    /// Texts that are to be seen without scrolling.
    first: Vec<String>,
}

const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Opens a page, takes a screenshot, and answers the page as it is after its scripts ran; `None`: there is no browser.
async fn open(page: &Path, screenshot: &Path, size: (u32, u32), dark: bool) -> Option<String> {
    let profile = tempfile::tempdir().unwrap();
    for name in NAMES {
        let browser = Tool::new(name)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--hide-scrollbars",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={},{}", size.0, size.1))
            .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
            .arg(format!("--screenshot={}", screenshot.display()))
            .args(["--dump-dom".to_owned(), format!("file://{}", page.display())])
            .timeout(Duration::from_secs(120));
        match browser.run().await {
            Ok(output) => return Some(output.text()),
            Err(ToolError::NotStarted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no browser (looked for {}); .ci/packages installs one",
        NAMES.join(", ")
    );
    eprintln!("skipped: no browser (looked for {})", NAMES.join(", "));
    None
}

/// The page in a frame of the screen's size: a browser's window has bars, and is never as narrow as a phone.
fn framed(page: &str, (width, height): (u32, u32)) -> String {
    maud::html! {
        (maud::DOCTYPE)
        html { body style="margin:0;overflow:hidden" {
            iframe style=(format!("position:absolute;border:0;width:{width}px;height:{height}px")) srcdoc=(page) {}
        } }
    }
    .into_string()
}

fn seen(dom: &str) -> Seen {
    let attribute = dom.split_once("data-seen=\"").expect("the script ran").1.split_once('"').unwrap().0;
    let json = attribute.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {json}"))
}

/// Width and height of a PNG (its first chunk, as <https://www.w3.org/TR/png/#11IHDR> says).
fn size_of_png(file: &Path) -> (u32, u32) {
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(&bytes[1..4], b"PNG");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

/// `MESHPROOF_SAMPLE_REPORT=DIR` keeps the screenshots, for a person to look at.
#[rstest]
#[case::laptop_light("laptop-light", (1440, 900), false)]
#[case::laptop_dark("laptop-dark", (1440, 900), true)]
#[case::phone_light("phone-light", (390, 844), false)]
#[case::phone_dark("phone-dark", (390, 844), true)]
#[tokio::test]
async fn the_report_is_whole_and_its_first_screen_tells_what_failed(
    #[case] name: &str,
    #[case] size: (u32, u32),
    #[case] dark: bool,
) {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let script = format!("<script>{}</script></body>", include_str!("browser_tests.js"));
    let report = html(&sample::run()).replace("</body>", &script);
    std::fs::write(&page, framed(&report, size)).unwrap();
    let kept = std::env::var_os("MESHPROOF_SAMPLE_REPORT").map(PathBuf::from);
    let screenshot = kept.as_deref().unwrap_or(folder.path()).join(format!("{name}.png"));
    let Some(dom) = open(&page, &screenshot, size, dark).await else { return };

    let seen = seen(&dom);
    assert_eq!((seen.width, seen.height, seen.dark), (size.0, size.1, dark));
    assert_eq!(size_of_png(&screenshot), size);
    assert_eq!(seen.background, if dark { "rgb(18, 22, 29)" } else { "rgb(246, 247, 249)" });
    assert_eq!((seen.wider, seen.outside), (0, vec![]), "nothing sticks out");
    assert_eq!((seen.cut, seen.crossed, seen.overlapping), (vec![], vec![], vec![]), "every word can be read");
    for wanted in [
        "✗ fail · 6 scenarios: 2 pass, 1 fail, 2 broken, 1 inconclusive",
        "✗ fail · v2 only",
        "call sleep@cluster1 → http://helloworld.app1:5000/hello",
        "scenarios/vpn/v2-only.yaml:8:92",
        "only v2 answers, every call",
        "v1 60, v2 71, timed out 1 of 132 calls on 1 connection",
        "route and subset chosen",
        "subset v2 chosen by virtual service helloworld",
        "no virtual service in this proxy's routes",
    ] {
        assert!(seen.first.iter().any(|text| text == wanted), "not on the first screen: {wanted}\n{:#?}", seen.first);
    }
}
