//! The smallest HTTP server that Prometheus can read: one resource, one request per connection.
//!
//! The exporter's own listener would bring in HTTP/2 and a dozen crates, and offers no moment at which the readings of the
//! process could be taken.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::shutdown::Shutdown;

/// Connections served at a time; what comes beyond them is closed at once.
const CONNECTIONS_MAX: usize = 8;
/// Longest request, in bytes: request line and headers.
const REQUEST_MAX: usize = 8192;
/// A whole exchange may take this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often recorded samples are folded into their histograms, even if nobody reads them: until then each takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Serves until the end. A failure to accept (such as a lack of file descriptors) is answered by a pause.
pub(super) async fn serve(listener: TcpListener, handle: PrometheusHandle, shutdown: Shutdown) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = shutdown.triggered() => return,
            _ = upkeep.tick() => handle.run_upkeep(),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let handle = handle.clone();
                    tokio::spawn(async move {
                        // Who breaks off or is too slow gets no answer; that concerns nobody else.
                        let _ = tokio::time::timeout(PATIENCE, exchange(stream, &handle)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics endpoint cannot accept connections");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        }
    }
}

async fn exchange(mut stream: TcpStream, handle: &PrometheusHandle) -> io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    let answer = loop {
        if let Some(end) = end_of_head(&request) {
            break judge(&request[..end]);
        }
        if request.len() >= REQUEST_MAX {
            break Answer::TooLarge;
        }
        let mut part = [0; 1024];
        let count = stream.read(&mut part).await?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..count]);
    };
    let (status, body) = match answer {
        Answer::Page => ("200 OK", super::render(handle)),
        Answer::BadRequest => ("400 Bad Request", "This is not an HTTP/1 request.\n".into()),
        Answer::WrongHost => {
            ("403 Forbidden", "Ask for this machine by a loopback address or as localhost.\n".into())
        }
        Answer::NotFound => ("404 Not Found", "There is only /metrics.\n".into()),
        Answer::WrongMethod => ("405 Method Not Allowed", "Only GET is allowed.\n".into()),
        Answer::TooLarge => ("431 Request Header Fields Too Large", "The request is too long.\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Where the empty line after the headers begins.
fn end_of_head(request: &[u8]) -> Option<usize> {
    request.windows(4).position(|window| window == b"\r\n\r\n")
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Page,
    BadRequest,
    WrongHost,
    NotFound,
    WrongMethod,
    TooLarge,
}

/// Decides by the request line and the headers, without the empty line.
fn judge(head: &[u8]) -> Answer {
    let Ok(head) = std::str::from_utf8(head) else { return Answer::BadRequest };
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Answer::BadRequest;
    };
    if !version.starts_with("HTTP/1.") {
        return Answer::BadRequest;
    }
    // A web page in the operator's own browser can reach loopback too, under a name that its owner points there. It then
    // says that name, and gets nothing.
    let host =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("host"));
    if host.is_some_and(|(_, host)| !is_loopback(host.trim())) {
        return Answer::WrongHost;
    }
    match (method, target.split('?').next()) {
        ("GET", Some("/metrics")) => Answer::Page,
        (_, Some("/metrics")) => Answer::WrongMethod,
        _ => Answer::NotFound,
    }
}

/// Whether a `Host` header, with or without a port, names this machine by its loopback address.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_judged() {
        let cases = [
            ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9100\r\nAccept: */*", Answer::Page),
            ("GET /metrics?x=1 HTTP/1.0", Answer::Page),
            ("GET /metrics HTTP/1.1\r\nhOST:  localhost", Answer::Page),
            ("GET /metrics HTTP/1.1\r\nHost: [::1]:9100", Answer::Page),
            ("GET /metrics HTTP/1.1\r\nHost: evil.example:9100", Answer::WrongHost),
            ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.evil.example", Answer::WrongHost),
            ("POST /metrics HTTP/1.1", Answer::WrongMethod),
            ("GET / HTTP/1.1", Answer::NotFound),
            ("GET /metrics", Answer::BadRequest),
            ("GET /metrics HTTP/2", Answer::BadRequest),
            ("GET  /metrics HTTP/1.1", Answer::BadRequest),
            ("", Answer::BadRequest),
        ];
        for (head, expected) in cases {
            assert_eq!(judge(head.as_bytes()), expected, "{head:?}");
        }
        assert_eq!(judge(b"GET /\xff HTTP/1.1"), Answer::BadRequest);
    }

    #[test]
    fn the_head_ends_at_the_first_empty_line() {
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(end_of_head(b"ab\r\n\r\ncd\r\n\r\n"), Some(2));
    }
}
