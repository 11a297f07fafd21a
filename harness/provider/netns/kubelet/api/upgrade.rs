//! Which protocol an upgrade speaks, and the answer that agrees to it.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::reply::{Body, Refusal};
use super::websocket;

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: &str = "X-Stream-Protocol-Version";

/// The protocol of an upgraded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SPDY/3.1.
    Spdy,
    /// WebSocket with channels.
    WebSocket {
        /// A channel can be ended (`v5.channel.k8s.io`).
        ends_channels: bool,
    },
}

/// Agrees on a protocol. The answer is to be sent; then [`upgraded`] gives the connection.
///
/// # Errors
/// When the request is no upgrade, or none of its protocols is known. `spdy_protocols` are those that the path speaks.
pub fn agree(headers: &HeaderMap, spdy_protocols: &[&str]) -> Result<(Protocol, Response<Body>), Refusal> {
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let protocol = if upgrade.eq_ignore_ascii_case(SPDY) {
        let offered = values(headers, STREAM_PROTOCOL);
        let agreed = choose(&offered, spdy_protocols)?;
        answer.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
        answer.insert(STREAM_PROTOCOL, value(agreed)?);
        Protocol::Spdy
    } else if upgrade.eq_ignore_ascii_case("websocket") {
        let key =
            headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| Refusal::bad("Sec-WebSocket-Key is required"))?;
        let agreed = choose(&values(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str()), &websocket::PROTOCOLS)?;
        answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, value(&derive_accept_key(key.as_bytes()))?);
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, value(agreed)?);
        Protocol::WebSocket { ends_channels: agreed.starts_with("v5.") }
    } else {
        return Err(Refusal::bad("unable to upgrade: missing upgrade headers in request"));
    };
    Ok((protocol, response))
}

/// The connection, once the answer is sent.
///
/// # Errors
/// When the client went away.
pub async fn upgraded(request: &mut Request<Incoming>) -> Result<TokioIo<hyper::upgrade::Upgraded>, hyper::Error> {
    hyper::upgrade::on(request).await.map(TokioIo::new)
}

/// The values of a header, which may come several times or as a list.
fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lists = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

/// The first protocol of the client's that is known here.
fn choose<'a>(offered: &[String], known: &[&'a str]) -> Result<&'a str, Refusal> {
    let chosen = offered.iter().find_map(|offer| known.iter().find(|k| *k == offer));
    chosen.copied().ok_or_else(|| Refusal {
        status: StatusCode::FORBIDDEN,
        why: format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            offered.join(" "),
            known.join(" ")
        ),
    })
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text).map_err(|e| Refusal::bad(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    const EXEC: [&str; 2] = ["v4.channel.k8s.io", "v3.channel.k8s.io"];

    #[rstest]
    #[case::spdy(
        &[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v5.channel.k8s.io, v4.channel.k8s.io")],
        Ok(Protocol::Spdy), "x-stream-protocol-version: v4.channel.k8s.io"
    )]
    #[case::websocket(
        &[("upgrade", "websocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-protocol", "v4.channel.k8s.io")],
        Ok(Protocol::WebSocket { ends_channels: false }), "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    )]
    #[case::unknown(
        &[("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v9.channel.k8s.io")], Err(StatusCode::FORBIDDEN), ""
    )]
    #[case::no_upgrade(&[], Err(StatusCode::BAD_REQUEST), "")]
    fn protocols_are_agreed_upon(
        #[case] sent: &[(&'static str, &'static str)],
        #[case] expected: Result<Protocol, StatusCode>,
        #[case] header: &str,
    ) {
        let agreed = agree(&headers(sent), &EXEC);
        assert_eq!(agreed.as_ref().map(|(p, _)| *p).map_err(|r| r.status), expected);
        if let Ok((_, response)) = agreed {
            let (name, value) = header.split_once(": ").unwrap();
            assert_eq!(response.headers()[name], value);
        }
    }
}
