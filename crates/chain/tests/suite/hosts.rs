//! Chains that a test takes away, brings back and reorganises: ours, and anvil. Both look the same from outside.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use alloy_primitives::U256;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tombola_chain::Wallet;
use tombola_chain::devchain::{DevChain, Server};

use crate::anvil::Anvil;
use crate::world::{ask, genesis, keys, serve};

/// A port that stays while who is behind it comes and goes. Whoever connects while nobody is there is hung up on.
struct Door {
    address: SocketAddr,
    behind: watch::Sender<Option<SocketAddr>>,
    task: AbortHandle,
}

impl Door {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (behind, current) = watch::channel(None);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, current.clone()));
            }
        });
        Self { address, behind, task: task.abort_handle() }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut stream: TcpStream, mut current: watch::Receiver<Option<SocketAddr>>) {
    let Some(address) = *current.borrow_and_update() else { return };
    let Ok(mut inner) = TcpStream::connect(address).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut stream, &mut inner) => {}
        _ = current.changed() => {}
    }
}

enum Kind {
    Ours(Option<(Arc<DevChain>, Server)>),
    Anvil(Option<Anvil>),
}

/// A chain in a file, and whoever serves it.
pub(crate) struct Host {
    kind: Kind,
    door: Door,
    folder: tempfile::TempDir,
}

impl Host {
    pub(crate) async fn ours() -> Self {
        Self::begin(Kind::Ours(None)).await
    }

    pub(crate) async fn anvil() -> Self {
        let host = Self::begin(Kind::Anvil(None)).await;
        let wei = U256::from(10_000 * 10_u128.pow(18));
        for key in keys() {
            let address = Wallet::from_bytes(&key).unwrap().address();
            host.ask("anvil_setBalance", json!([address, wei])).await;
        }
        host
    }

    async fn begin(kind: Kind) -> Self {
        let mut host = Self { kind, door: Door::new().await, folder: tempfile::tempdir().unwrap() };
        host.start().await;
        host
    }

    /// The same for ever.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.door.address)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("state.json")
    }

    /// Goes on with what the file has; with a new chain if there is none.
    pub(crate) async fn start(&mut self) {
        let file = self.file();
        let address = match &mut self.kind {
            Kind::Ours(running) => {
                let chain = DevChain::open(&file).unwrap().unwrap_or_else(|| DevChain::new(genesis()));
                let chain = Arc::new(chain);
                let server = serve(&chain).await;
                running.insert((chain, server)).1.address()
            }
            Kind::Anvil(running) => {
                let file = file.to_str().unwrap();
                let accounts = ["--accounts", "1"];
                // What the watcher reads is as old as the blocks that it waits for.
                let state = ["--state", file, "--preserve-historical-states"];
                let anvil = running.insert(Anvil::start(&[&accounts[..], &state].concat()));
                anvil.url.strip_prefix("http://").unwrap().parse().unwrap()
            }
        };
        self.door.behind.send_replace(Some(address));
    }

    /// Writes the file and ends. Nobody answers until it is started again.
    pub(crate) fn stop(&mut self) {
        self.door.behind.send_replace(None);
        let file = self.file();
        match &mut self.kind {
            Kind::Ours(running) => running.take().unwrap().0.save(&file).unwrap(),
            Kind::Anvil(running) => running.take().unwrap().end(),
        }
        assert!(file.exists(), "{}", file.display());
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let answer: Value = match &self.kind {
            Kind::Ours(running) => ask(&running.as_ref().unwrap().0, method, &params),
            Kind::Anvil(_) => {
                let _ = rustls::crypto::ring::default_provider().install_default();
                let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
                let request = reqwest::Client::new().post(self.url()).body(body.to_string());
                let answer = request.header("content-type", "application/json").send().await.unwrap();
                serde_json::from_str(&answer.text().await.unwrap()).unwrap()
            }
        };
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Makes empty blocks.
    pub(crate) async fn mine(&self, blocks: u32) {
        for _ in 0..blocks {
            self.ask("evm_mine", json!([])).await;
        }
    }

    /// Takes back the last blocks and what was in them. The chain is shorter then.
    pub(crate) async fn take_back(&self, blocks: u32) {
        match &self.kind {
            Kind::Ours(running) => running.as_ref().unwrap().0.roll_back(blocks).unwrap(),
            Kind::Anvil(_) => drop(self.ask("anvil_rollback", json!([blocks])).await),
        }
    }

    /// Others, and empty ones, are in the place of the last blocks at once.
    pub(crate) async fn replace(&self, blocks: u32) {
        match &self.kind {
            Kind::Ours(_) => {
                self.take_back(blocks).await;
                self.mine(blocks).await;
            }
            Kind::Anvil(_) => drop(self.ask("anvil_reorg", json!([blocks, []])).await),
        }
    }
}
