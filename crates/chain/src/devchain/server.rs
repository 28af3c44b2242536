//! JSON-RPC over HTTP.

use core::convert::Infallible;
use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{DevChain, rpc};

/// Bytes of a request, at most.
pub(super) const MOST_BYTES: usize = 4 << 20;
/// Connections at a time.
pub(super) const MOST_CONNECTIONS: usize = 512;
/// How long a request may take to arrive.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Serves a chain until the future is dropped.
pub(super) async fn serve(chain: Arc<DevChain>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: some will be given back.
                tracing::warn!(%error, "the development chain cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        while connections.try_join_next().is_some() {}
        let chain = Arc::clone(&chain);
        connections.spawn(async move {
            let service = service_fn(|request| respond(Arc::clone(&chain), request));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(READ_WITHIN);
            // A broken connection is the caller's affair.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

async fn respond(
    chain: Arc<DevChain>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::OPTIONS {
        return Ok(response(StatusCode::NO_CONTENT, String::new()));
    }
    if request.method() != Method::POST {
        return Ok(response(StatusCode::METHOD_NOT_ALLOWED, String::new()));
    }
    let body = Limited::new(request.into_body(), MOST_BYTES).collect();
    let Ok(Ok(body)) = tokio::time::timeout(READ_WITHIN, body).await else {
        return Ok(response(StatusCode::PAYLOAD_TOO_LARGE, rpc::too_long().to_string()));
    };
    let body = body.to_bytes();
    // Contracts run for milliseconds: not on a thread that serves others.
    let answer = tokio::task::spawn_blocking(move || chain.answer(&body)).await;
    Ok(match answer {
        Ok(Some(answer)) => response(StatusCode::OK, answer),
        Ok(None) => response(StatusCode::NO_CONTENT, String::new()),
        Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, String::new()),
    })
}

fn response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A server in the background, for tests and for programs that bring their own chain. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(super) fn start(chain: Arc<DevChain>, listener: TcpListener) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        Ok(Self { address, task: tokio::spawn(serve(chain, listener)) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of its JSON-RPC.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
