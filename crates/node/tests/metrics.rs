//! The metrics endpoint over a real socket. One test: a process can be given its recorder only once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tombola_node::metrics::{self, MetricsError};
use tombola_node::shutdown::{Cause, Shutdown};

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // What is refused early may be answered with a reset after the text.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn the_endpoint_serves_this_machine_and_bears_with_bad_guests() {
    let shutdown = Shutdown::new();
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let error = metrics::serve(open.parse().unwrap(), shutdown.clone()).await.unwrap_err();
        assert!(matches!(error, MetricsError::NotLoopback(_)), "{open}");
    }
    let address = metrics::serve("127.0.0.1:0".parse().unwrap(), shutdown.clone()).await.unwrap();
    assert!(address.ip().is_loopback() && address.port() != 0);
    let error = metrics::serve(address, shutdown.clone()).await.unwrap_err();
    assert!(matches!(error, MetricsError::Bind { .. }), "{error}");
    let error = metrics::serve("127.0.0.1:0".parse().unwrap(), shutdown.clone()).await.unwrap_err();
    assert!(matches!(error, MetricsError::AlreadySetUp(_)), "{error}");

    ::metrics::counter!(metrics::FRAMES_IN_TOTAL).increment(42);
    let page = ask(address, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("\ntombola_frames_in_total 42\n"), "{page}");
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");

    assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    assert!(ask(address, "POST /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405"));
    let foreign = ask(address, "GET /metrics HTTP/1.1\r\nHost: rebound.example\r\n\r\n").await;
    assert!(foreign.starts_with("HTTP/1.1 403") && !foreign.contains("tombola_"), "{foreign}");
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(10_000));
    assert!(!ask(address, &long).await.contains("200 OK"));

    // Guests who say nothing take all places but for a few seconds only.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let served = tokio::time::timeout(Duration::from_secs(120), async {
        while !ask(address, "GET /metrics HTTP/1.1\r\n\r\n").await.contains("200 OK") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    served.await.expect("the places of silent guests become free");

    shutdown.trigger(Cause::Requested("test"));
    let closed = tokio::time::timeout(Duration::from_secs(60), async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    closed.await.expect("the port is closed at the end");
}
