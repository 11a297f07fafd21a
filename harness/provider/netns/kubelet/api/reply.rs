//! Answers without an upgrade.

use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// An answer's content.
pub type Body = BoxBody<Bytes, std::convert::Infallible>;

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of HTTP.
    pub status: StatusCode,
    /// Shown by kubectl.
    pub why: String,
}

impl Refusal {
    /// There is no such thing.
    pub fn not_found(why: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, why: why.into() }
    }

    /// The request makes no sense, or not now.
    pub fn bad(why: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why: why.into() }
    }

    /// It could not be done.
    pub fn failed(why: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, why: why.into() }
    }

    /// As an answer.
    pub fn response(self) -> Response<Body> {
        text(self.status, format!("{}\n", self.why.trim_end()))
    }
}

/// An answer of text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with(status, "text/plain; charset=utf-8", Full::new(text.into()).boxed())
}

/// An answer of JSON.
pub fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => with(StatusCode::OK, "application/json", Full::new(bytes.into()).boxed()),
        Err(error) => Refusal::failed(error.to_string()).response(),
    }
}

/// A text response that is sent in pieces, until the sender is dropped.
pub fn stream(pieces: mpsc::Receiver<Bytes>) -> Response<Body> {
    let pieces = futures::stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    let body = StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece))));
    with(StatusCode::OK, "text/plain", BodyExt::boxed(body))
}

fn with(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
