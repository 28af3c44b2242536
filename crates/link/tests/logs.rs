//! What the logs of a node give away. One test, because the subscriber is the whole process's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use common::*;
use libp2p::identity::Keypair;
use tombola_link::Refusal;
use tracing_subscriber::filter::EnvFilter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn logs_name_no_peer_at_info_and_no_frame_at_all() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(EnvFilter::new("info,tombola_link=trace"))
        .with_writer(move || writer.clone())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for listen in BOTH {
            let (a, b) = pair(listen).await;
            let stranger = Node::dialling(3, &a).await;
            a.until("a refusal", |stats| stats.refused.contains_key(&Refusal::Stranger)).await;
            b.send(key(1), 0..1000).await;
            a.frames(key(2), 1000).await;
            stranger.links.shutdown().await;
            b.links.shutdown().await;
            a.disconnected_from(key(2)).await;
            a.links.shutdown().await;
        }
    });

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    // Our own debug lines show that something was recorded, and how much: of connections, not of 2000 frames.
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.iter().any(|line| line.contains("DEBUG") && line.contains(&key(2).to_string())), "{log}");
    assert!(lines.len() < 200, "{log}");
    // Each key is the own one of some node here, and libp2p logs that once as it starts. In a line with anything else that
    // happens, none may stand.
    for n in 1..=3 {
        let peer = Keypair::ed25519_from_bytes([n; 32]).unwrap().public().to_peer_id().to_string();
        let named: Vec<&&str> = lines
            .iter()
            .filter(|line| !line.contains("DEBUG") && !line.contains("local_peer_id"))
            .filter(|line| line.contains(&peer) || line.contains(&key(n).to_string()))
            .collect();
        assert!(named.is_empty(), "{named:#?}");
    }
}
