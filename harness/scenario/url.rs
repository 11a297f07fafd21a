//! URLs of calls, and the placeholders in them: addresses that are known when the clusters run.

use std::ops::Range;

/// What replaces a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place<'a> {
    /// `{cluster2.api}`: `ADDRESS:PORT` of that cluster's API server, as the other clusters reach it.
    Api(&'a str),
    /// `{cluster2.gateway}`: `ADDRESS:PORT` of that cluster's east-west gateway.
    Gateway(&'a str),
    /// `{v2.pod}`, `{v2@cluster2.pod}`: the address of a ready pod of that version (in that cluster).
    Pod(&'a str, Option<&'a str>),
}

/// A placeholder in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder<'a> {
    /// The text between the braces.
    pub text: &'a str,
    /// What replaces it, if that is known.
    pub place: Option<Place<'a>>,
    /// Its bytes in the URL, with the braces.
    pub span: Range<usize>,
}

/// The placeholders of a URL, in order.
pub fn placeholders(url: &str) -> Vec<Placeholder<'_>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(open) = url[from..].find('{').map(|at| from + at) {
        let Some(close) = url[open..].find('}').map(|at| open + at) else { break };
        let text = &url[open + 1..close];
        found.push(Placeholder { text, place: place(text), span: open..close + 1 });
        from = close + 1;
    }
    found
}

fn place(text: &str) -> Option<Place<'_>> {
    let (name, kind) = text.rsplit_once('.')?;
    match (kind, name.split_once('@')) {
        ("api", None) if !name.is_empty() => Some(Place::Api(name)),
        ("gateway", None) if !name.is_empty() => Some(Place::Gateway(name)),
        ("pod", None) if !name.is_empty() => Some(Place::Pod(name, None)),
        ("pod", Some((version, cluster))) if !version.is_empty() => Some(Place::Pod(version, Some(cluster))),
        _ => None,
    }
}

/// The URL with each placeholder replaced by what `address` answers for it; one that it has no answer for stays as it is.
pub fn expand(url: &str, address: impl Fn(&Placeholder<'_>) -> Option<String>) -> String {
    let mut expanded = url.to_owned();
    for placeholder in placeholders(url).into_iter().rev() {
        if let Some(address) = address(&placeholder) {
            expanded.replace_range(placeholder.span, &address);
        }
    }
    expanded
}

/// What is wrong with a URL, apart from the names of its placeholders, and what was expected.
pub fn mistake(url: &str) -> Option<(String, &'static str)> {
    let plain = with_examples(url);
    if let Some(brace) = plain.find(['{', '}', '[', ']']) {
        let expected = "expected CLUSTER.api, CLUSTER.gateway or VERSION.pod in the braces, such as {cluster2.api}";
        return Some((format!("`{}` is not a placeholder", &plain[brace..]), expected));
    }
    if plain.chars().any(char::is_whitespace) {
        return Some((format!("`{url}` contains a space"), "write %20"));
    }
    match reqwest::Url::parse(&plain) {
        Ok(parsed) if parsed.scheme() == "wss" => Some((
            "unsupported scheme `wss`".to_owned(),
            "expected ws://: the client of Istio's echo server cannot speak TLS for WebSocket; between sidecars ws:// is encrypted too",
        )),
        Ok(parsed) if !matches!(parsed.scheme(), "http" | "https" | "grpc" | "tcp" | "ws") => {
            let expected = "expected http://, https://, grpc://, tcp:// or ws://";
            Some((format!("unsupported scheme `{}`", parsed.scheme()), expected))
        }
        Ok(parsed) if matches!(parsed.scheme(), "grpc" | "tcp") && !is_host_and_port(&parsed) => {
            let what = format!("`{url}` is more or less than a host and a port");
            Some((what, "expected no path, and a port, such as grpc://echo.app1:7070"))
        }
        Ok(_) => None,
        Err(reason) => Some((
            format!("`{url}` is not a URL: {reason}"),
            "expected scheme, host and path, such as http://helloworld.app1:5000/hello",
        )),
    }
}

fn is_host_and_port(url: &reqwest::Url) -> bool {
    let bare = url.path().is_empty() && url.query().is_none() && url.fragment().is_none();
    bare && url.has_host() && url.port().is_some() && url.username().is_empty()
}

/// Whether it can be connected to in place of a URL's host: `ADDRESS` or `ADDRESS:PORT`, or a placeholder for one.
pub fn is_address(text: &str) -> bool {
    let plain = with_examples(text);
    let is_host =
        |host: &str| !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    match plain.split_once(':') {
        None => is_host(&plain),
        Some((host, port)) => is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0),
    }
}

/// With an example in place of each placeholder.
fn with_examples(text: &str) -> String {
    expand(text, |placeholder| {
        Some(match placeholder.place.as_ref()? {
            Place::Api(_) => "192.0.2.1:6443".into(),
            Place::Gateway(_) => "192.0.2.1:15443".into(),
            Place::Pod(..) => "192.0.2.1".into(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn placeholders_become_addresses() {
        let address = |p: &Placeholder<'_>| match p.place.as_ref()? {
            Place::Api("cluster2") => Some("10.0.0.2:6443".to_owned()),
            Place::Pod("v2", cluster) => Some(cluster.map_or("10.20.0.5", |_| "10.20.0.6").to_owned()),
            _ => None,
        };
        assert_eq!(expand("http://{v2.pod}:5000/{v2@cluster2.pod}", address), "http://10.20.0.5:5000/10.20.0.6");
        assert_eq!(expand("https://{cluster2.api}/version", address), "https://10.0.0.2:6443/version");
        assert_eq!(expand("https://{cluster9.api}/{x}", address), "https://{cluster9.api}/{x}");
    }

    #[rstest]
    #[case::plain("http://helloworld.app1:5000/hello", None)]
    #[case::placeholder("https://{cluster2.api}/version", None)]
    #[case::pod("http://{v2.pod}:5000/hello", None)]
    #[case::pod_with_two_ports(
        "http://{cluster2.gateway}:5000/hello",
        Some("`http://{cluster2.gateway}:5000/hello` is not a URL")
    )]
    #[case::query("http://h/x?a=b", None)]
    #[case::no_scheme("helloworld.app1:5000/hello", Some("unsupported scheme `helloworld.app1`"))]
    #[case::relative("/hello", Some("`/hello` is not a URL: relative URL without a base"))]
    #[case::ftp("ftp://h/", Some("unsupported scheme `ftp`"))]
    #[case::port("http://h:99999/", Some("`http://h:99999/` is not a URL: invalid port number"))]
    #[case::grpc("grpc://{v2.pod}:7070", None)]
    #[case::tcp_without_a_port("tcp://h", Some("`tcp://h` is more or less than a host and a port"))]
    #[case::grpc_with_a_path("grpc://h:1/x", Some("`grpc://h:1/x` is more or less than a host and a port"))]
    #[case::websocket("ws://h/x", None)]
    #[case::websocket_over_tls("wss://h:8443/x", Some("unsupported scheme `wss`"))]
    #[case::brace("http://{cluster2}/", Some("`{cluster2}/` is not a placeholder"))]
    #[case::range("http://h/[1-9]", Some("`[1-9]` is not a placeholder"))]
    #[case::space("http://h/a b", Some("`http://h/a b` contains a space"))]
    fn bad_urls_are_refused(#[case] url: &str, #[case] expected: Option<&str>) {
        let mistake = mistake(url);
        match expected {
            None => assert_eq!(mistake, None),
            Some(expected) => assert!(mistake.as_ref().is_some_and(|m| m.0.starts_with(expected)), "{mistake:?}"),
        }
    }

    #[rstest]
    #[case("10.0.0.1", true)]
    #[case("10.0.0.1:443", true)]
    #[case("{v2.pod}:5000", true)]
    #[case("{cluster2.gateway}", true)]
    #[case("helloworld.app1", true)]
    #[case("{v2}", false)]
    #[case("10.0.0.1:0", false)]
    #[case("http://a", false)]
    #[case("", false)]
    fn addresses(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(is_address(text), expected);
    }
}
