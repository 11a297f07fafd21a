//! What is called: a URL, or `SERVICE.NAMESPACE:PORT`.

use std::fmt;
use std::str::FromStr;

use crate::expect::Protocol;

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callee {
    /// The URL of the call.
    pub url: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its path, without the query.
    pub path: String,
    /// Whether it asks for TLS by itself.
    pub tls: bool,
    /// Whether its server speaks first, and the client waits for that.
    pub server_first: bool,
}

/// What the client of Istio's echo server calls, as HTTP/2 has it.
const GRPC_METHOD: &str = "/proto.EchoTestService/Echo";

impl Callee {
    /// Where nothing is called: a whole mesh is checked.
    pub(super) fn of_nothing() -> Self {
        Self { url: String::new(), host: String::new(), port: 0, path: String::new(), tls: false, server_first: false }
    }
}

impl FromStr for Callee {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}/") };
        let wrong = |why: &dyn fmt::Display| {
            format!(
                "`{text}` cannot be called: {why} (expected a URL or SERVICE.NAMESPACE:PORT, such as \
                 http://helloworld.app1:5000/hello or helloworld.app1:5000)"
            )
        };
        let parsed = reqwest::Url::parse(&url).map_err(|e| wrong(&e))?;
        if !matches!(parsed.scheme(), "http" | "https" | "grpc" | "tcp" | "ws") {
            return Err(wrong(&format!("`{}` is not a scheme that is called", parsed.scheme())));
        }
        let host = parsed.host_str().ok_or_else(|| wrong(&"it has no host"))?.to_owned();
        let port = parsed.port_or_known_default().ok_or_else(|| wrong(&"it has no port"))?;
        let path = match Protocol::of(&url, false) {
            Protocol::Grpc => GRPC_METHOD,
            _ => parsed.path(),
        };
        Ok(Self { host, port, path: path.to_owned(), tls: parsed.scheme() == "https", server_first: false, url })
    }
}

impl Callee {
    /// Whether no proxy reads it as HTTP: it is encrypted by the caller, or bare TCP.
    pub(super) fn is_opaque(&self) -> bool {
        self.tls || self.is_tcp()
    }

    /// Whether it is bare TCP.
    pub(super) fn is_tcp(&self) -> bool {
        self.protocol() == Protocol::Tcp
    }

    /// What is spoken.
    pub(super) fn protocol(&self) -> Protocol {
        Protocol::of(&self.url, false)
    }

    /// Name and namespace of the service that the host names to a caller in `namespace`; `None`: it names none of a cluster.
    pub(super) fn service(&self, namespace: &str) -> Option<(String, String)> {
        if self.host.parse::<std::net::IpAddr>().is_ok() || self.host.starts_with('[') {
            return None;
        }
        let parts: Vec<&str> = self.host.trim_end_matches('.').split('.').collect();
        match parts.as_slice() {
            [name] => Some(((*name).to_owned(), namespace.to_owned())),
            [name, namespace] | [name, namespace, "svc"] | [name, namespace, "svc", "cluster", "local"] => {
                Some(((*name).to_owned(), (*namespace).to_owned()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("helloworld.app1:5000", "http://helloworld.app1:5000/", 5000, "/")]
    #[case("http://helloworld.app1:5000/hello?a=b", "http://helloworld.app1:5000/hello?a=b", 5000, "/hello")]
    #[case("helloworld", "http://helloworld/", 80, "/")]
    #[case("https://172.20.0.3:6443/version", "https://172.20.0.3:6443/version", 6443, "/version")]
    fn a_url_or_a_service(#[case] text: &str, #[case] url: &str, #[case] port: u16, #[case] path: &str) {
        let target: Callee = text.parse().unwrap();
        assert_eq!((target.url.as_str(), target.port, target.path.as_str()), (url, port, path));
    }

    #[rstest]
    #[case("helloworld.app1:5000", Some(("helloworld", "app1")))]
    #[case("helloworld:5000", Some(("helloworld", "here")))]
    #[case("http://helloworld.app1.svc.cluster.local:5000/x", Some(("helloworld", "app1")))]
    #[case("http://example.org.uk/", None)]
    #[case("https://172.20.0.3:6443/version", None)]
    #[case("https://[fd00::1]:6443/version", None)]
    fn a_host_names_a_service_or_not(#[case] text: &str, #[case] expected: Option<(&str, &str)>) {
        let service = text.parse::<Callee>().unwrap().service("here");
        assert_eq!(service.as_ref().map(|(name, namespace)| (name.as_str(), namespace.as_str())), expected);
    }

    #[rstest]
    #[case("ftp://x/")]
    #[case("helloworld.app1:port")]
    #[case("")]
    fn what_cannot_be_called_is_reported_with_an_example(#[case] text: &str) {
        assert!(text.parse::<Callee>().unwrap_err().contains("helloworld.app1:5000"));
    }
}
