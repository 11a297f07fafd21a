//! URLs of calls, and the placeholders in them: `{cluster2.api}` stands for the address (`ADDRESS:PORT`) of that
//! cluster's API server, as the other clusters reach it.

use std::ops::Range;

/// A placeholder in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder<'a> {
    /// The text between the braces.
    pub text: &'a str,
    /// The cluster, if it is `CLUSTER.api`.
    pub api_of: Option<&'a str>,
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
        found.push(Placeholder { text, api_of: text.strip_suffix(".api"), span: open..close + 1 });
        from = close + 1;
    }
    found
}

/// The URL with each `{CLUSTER.api}` replaced by what `address` answers for that cluster; a placeholder that it has no
/// answer for stays as it is.
pub fn expand(url: &str, address: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = url.to_owned();
    for placeholder in placeholders(url).into_iter().rev() {
        if let Some(address) = placeholder.api_of.and_then(&address) {
            expanded.replace_range(placeholder.span, &address);
        }
    }
    expanded
}

/// What is wrong with a URL, apart from the names of its placeholders, and what was expected.
pub fn mistake(url: &str) -> Option<(String, &'static str)> {
    let plain = expand(url, |_| Some("192.0.2.1:6443".into()));
    if let Some(brace) = plain.find(['{', '}', '[', ']']) {
        let expected = "expected CLUSTER.api in the braces, such as {cluster2.api}";
        return Some((format!("`{}` is not a placeholder", &plain[brace..]), expected));
    }
    if plain.chars().any(char::is_whitespace) {
        return Some((format!("`{url}` contains a space"), "write %20"));
    }
    match reqwest::Url::parse(&plain) {
        Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") => {
            Some((format!("unsupported scheme `{}`", parsed.scheme()), "expected http:// or https://"))
        }
        Ok(_) => None,
        Err(reason) => Some((
            format!("`{url}` is not a URL: {reason}"),
            "expected scheme, host and path, such as http://helloworld.app1:5000/hello",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn placeholders_become_addresses() {
        let address = |cluster: &str| (cluster == "cluster2").then(|| "10.0.0.2:6443".to_owned());
        assert_eq!(expand("https://{cluster2.api}/version", address), "https://10.0.0.2:6443/version");
        assert_eq!(expand("https://{cluster9.api}/{x}", address), "https://{cluster9.api}/{x}");
    }

    #[rstest]
    #[case::plain("http://helloworld.app1:5000/hello", None)]
    #[case::placeholder("https://{cluster2.api}/version", None)]
    #[case::query("http://h/x?a=b", None)]
    #[case::no_scheme("helloworld.app1:5000/hello", Some("unsupported scheme `helloworld.app1`"))]
    #[case::relative("/hello", Some("`/hello` is not a URL: relative URL without a base"))]
    #[case::ftp("ftp://h/", Some("unsupported scheme `ftp`"))]
    #[case::port("http://h:99999/", Some("`http://h:99999/` is not a URL: invalid port number"))]
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
}
