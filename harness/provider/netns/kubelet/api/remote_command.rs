//! `/exec` and `/attach`: what is asked for, and the streams of the upgraded connection.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming as Content;

use super::super::run::Run;
use super::super::state;
use super::reply::{Body, Refusal};
use super::request::Query;
use super::streams::{Session, Wanted};
use super::upgrade::{self, Protocol};
use super::{exec, spdy_connection, websocket};

/// The first one that reports exit codes.
const PROTOCOLS: [&str; 1] = ["v4.channel.k8s.io"];

/// Runs a program in a container.
pub fn exec(
    run: &Arc<Run>,
    container: &str,
    query: &Query,
    request: Request<Content>,
) -> Result<Response<Body>, Refusal> {
    let argv: Vec<String> = query.all("command").map(str::to_owned).collect();
    if argv.is_empty() {
        return Err(Refusal::bad("you must specify at least 1 command for the container"));
    }
    let state = state::Container::read(&run.state_file(container))
        .map_err(|_| Refusal::failed(format!("container not found ({container:?})")))?;
    let wanted = Wanted::of(query).map_err(Refusal::bad)?;
    upgrade(wanted, request, async move |session| exec::exec(&state, &argv, wanted, session).await)
}

/// Joins a client to a container that runs.
pub fn attach(
    run: &Arc<Run>,
    container: &str,
    query: &Query,
    request: Request<Content>,
) -> Result<Response<Body>, Refusal> {
    let console = run.console(container);
    let console = console.ok_or_else(|| Refusal::failed(format!("container not found ({container:?})")))?;
    let wanted = Wanted::of(query).map_err(Refusal::bad)?;
    // What is printed from here on is for the client, even while the connection is upgraded.
    let (printed, input) = (console.printer.subscribe(), console.input);
    upgrade(wanted, request, async move |session| exec::attach(printed, input, session).await)
}

fn upgrade<F: Future<Output = ()> + Send + 'static>(
    wanted: Wanted,
    mut request: Request<Content>,
    serve: impl FnOnce(Session) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let (protocol, response) = upgrade::agree(request.headers(), &PROTOCOLS)?;
    tokio::spawn(async move {
        let stream = match upgrade::upgraded(&mut request).await {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%error, "the client went away"),
        };
        let session = match protocol {
            Protocol::Spdy => spdy_connection::session(spdy_connection::serve(stream), wanted).await,
            Protocol::WebSocket { ends_channels } => {
                Ok(websocket::session(websocket::serve(stream, 0..5, ends_channels).await, wanted).await)
            }
        };
        match session {
            Ok(session) => serve(session).await,
            Err(why) => tracing::debug!(why, "no streams"),
        }
    });
    Ok(response)
}
