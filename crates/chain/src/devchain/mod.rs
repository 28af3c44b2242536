//! A chain for development: revm behind the JSON-RPC that other chains have, without an installation.
//!
//! Every transaction makes a block of its own at once, so nothing ever waits; empty blocks come on request or at an interval.
//! What a chain is made of decides its hashes: the same [`Genesis`], transactions and times make the same blocks.
//! Rules are those of the Osaka fork: base fee, nonces, signatures, at most 2^24 gas for a transaction, 30 million for a
//! block.
//!
//! What it is not: a chain that anybody should trust with anything. Keys follow from a seed that is no secret; there are no
//! blobs, no delegations (EIP-7702), no proofs, no `BLOCKHASH`, no subscriptions, and no pool in which transactions wait.
//! Blocks are kept in memory for ever, states for 256 blocks.

mod block;
mod chain;
mod error;
mod execute;
mod file;
mod json;
mod params;
mod rpc;
mod server;
mod state;

use core::time::Duration;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256};
use thiserror::Error;
use tokio::net::TcpListener;

use chain::Chain;
pub use chain::Genesis;
pub use file::StateError;
pub use server::Server;

/// Accounts that a genesis endows, at most.
pub const MOST_ACCOUNTS: u32 = 1000;

/// A reorganisation that cannot be made.
#[derive(Debug, Error)]
#[error("the last {0} blocks cannot be taken back")]
pub struct RollBackError(u32);

/// A chain, and the clock of the machine.
#[derive(Debug)]
pub struct DevChain {
    chain: Mutex<Chain>,
}

/// Unix seconds by the clock of the machine.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl DevChain {
    /// A chain of its first block.
    #[must_use]
    pub fn new(genesis: Genesis) -> Self {
        Self { chain: Mutex::new(Chain::new(genesis)) }
    }

    /// The chain that a file holds, if there is one, whatever the genesis here says.
    ///
    /// # Errors
    ///
    /// See [`StateError`].
    pub fn open(path: &Path) -> Result<Option<Self>, StateError> {
        Ok(file::read(path)?.map(|mut chain| {
            chain.catch_up(now());
            Self { chain: Mutex::new(chain) }
        }))
    }

    /// Writes the chain to a file, as a whole.
    ///
    /// # Errors
    ///
    /// The operating system refused.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        let text = file::encode(&self.chain());
        file::write(path, &text)
    }

    /// What it began with.
    #[must_use]
    pub fn genesis(&self) -> Genesis {
        self.chain().genesis().clone()
    }

    /// The endowed accounts.
    #[must_use]
    pub fn accounts(&self) -> Vec<Address> {
        self.chain().accounts().to_vec()
    }

    /// Number and hash of the last block.
    #[must_use]
    pub fn head(&self) -> (u64, B256) {
        let chain = self.chain();
        (chain.number(), chain.head().hash)
    }

    /// Makes an empty block.
    pub fn mine(&self) {
        self.chain().mine(now());
    }

    /// Takes back the last blocks with their transactions, as a reorganisation would: what comes then is another chain.
    ///
    /// # Errors
    ///
    /// There are not as many, or their states are not kept any more. Nothing or a part was taken back.
    pub fn roll_back(&self, blocks: u32) -> Result<(), RollBackError> {
        let mut chain = self.chain();
        (0..blocks).try_for_each(|_| chain.roll_back()).map_err(|_| RollBackError(blocks))
    }

    /// Answers the bytes of a request or a batch; nothing if all were notifications.
    #[must_use]
    pub fn answer(&self, request: &[u8]) -> Option<String> {
        rpc::answer(&mut self.chain(), request, now()).map(|answer| answer.to_string())
    }

    /// Serves JSON-RPC in the background of the runtime in which this is called.
    ///
    /// # Errors
    ///
    /// The listener has no address.
    pub fn start(self: &Arc<Self>, listener: TcpListener) -> std::io::Result<Server> {
        Server::start(Arc::clone(self), listener)
    }

    /// Makes an empty block at each interval, until the future is dropped.
    pub async fn mine_every(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.mine();
        }
    }

    /// The lock is held for one request. A panic within leaves whole blocks: each is appended last.
    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
