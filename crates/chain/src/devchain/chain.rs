//! The chain in memory: every transaction makes a block at once.

use std::collections::BTreeMap;

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{Header, Transaction, TxEnvelope, TxType};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use revm::context::result::ExecutionResult;
use secp256k1::SecretKey;
use tombola_tickets::SignerKey;
use zeroize::Zeroizing;

use super::block::{self, Block, Mined};
use super::error::RpcError;
use super::execute::{self, Call, block_env};
use super::state::{State, View};

/// What each account of the genesis has: 10 000 ether.
const ENDOWMENT: u128 = 10_000 * 10_u128.pow(18);
/// What transactions pay for each gas beyond the base fee, if they ask: 1 gwei.
pub(super) const TIP: u128 = 1_000_000_000;

/// What a development chain is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Its id (EIP-155).
    pub chain_id: u64,
    /// From which the keys of its accounts follow.
    pub seed: String,
    /// How many accounts are endowed.
    pub accounts: u32,
    /// When it begins, in Unix seconds.
    pub time: u64,
}

impl Genesis {
    /// The secret key of an endowed account: `keccak("tombola devchain account" | number, 4 bytes | seed)`, again if that is
    /// no key. Everybody who knows the seed knows it.
    #[must_use]
    pub fn key(&self, number: u32) -> Zeroizing<[u8; 32]> {
        let text =
            [b"tombola devchain account".as_slice(), &number.to_be_bytes(), self.seed.as_bytes()].concat();
        let mut key = keccak256(text);
        while SecretKey::from_secret_bytes(key.0).is_err() {
            key = keccak256(key);
        }
        Zeroizing::new(key.0)
    }

    /// The address of an endowed account.
    #[must_use]
    pub fn address(&self, number: u32) -> Address {
        // `key` made sure that it is one.
        SignerKey::from_bytes(&self.key(number)).map_or(Address::ZERO, |key| key.address())
    }
}

/// The chain.
#[derive(Debug)]
pub(super) struct Chain {
    genesis: Genesis,
    accounts: Vec<Address>,
    state: State,
    blocks: Vec<Block>,
    by_hash: BTreeMap<B256, u64>,
    /// In which block a transaction is.
    transactions: BTreeMap<B256, u64>,
    /// By how much its clock is ahead of that of the machine, in seconds.
    ahead: i64,
    next_time: Option<u64>,
}

impl Chain {
    pub(super) fn new(genesis: Genesis) -> Self {
        let accounts: Vec<_> = (0..genesis.accounts).map(|number| genesis.address(number)).collect();
        let mut state = State::default();
        accounts.iter().for_each(|account| state.endow(*account, U256::from(ENDOWMENT)));
        let first = block::genesis(genesis.time, genesis.chain_id, &accounts);
        Self {
            by_hash: BTreeMap::from([(first.hash, 0)]),
            blocks: vec![first],
            genesis,
            accounts,
            state,
            transactions: BTreeMap::new(),
            ahead: 0,
            next_time: None,
        }
    }

    pub(super) const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    pub(super) fn accounts(&self) -> &[Address] {
        &self.accounts
    }

    /// The last block. There is at least the genesis.
    pub(super) fn head(&self) -> &Block {
        self.blocks.last().expect("the genesis is never removed")
    }

    pub(super) fn number(&self) -> u64 {
        self.head().header.number
    }

    pub(super) fn block(&self, number: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(number).ok()?)
    }

    pub(super) fn number_of(&self, hash: &B256) -> Option<u64> {
        self.by_hash.get(hash).copied()
    }

    /// The block of a transaction.
    pub(super) fn find(&self, transaction: &B256) -> Option<(&Block, &Mined)> {
        let block = self.block(*self.transactions.get(transaction)?)?;
        Some((block, block.transaction.as_ref()?))
    }

    pub(super) fn view(&self, number: u64) -> Result<View<'_>, RpcError> {
        self.state.at(number).map_err(|error| RpcError::Missing(error.to_string()))
    }

    /// What the clock of the chain says when that of the machine says `now`.
    fn time(&self, now: u64) -> u64 {
        let time = self.next_time.unwrap_or_else(|| now.saturating_add_signed(self.ahead));
        time.max(self.head().header.timestamp)
    }

    /// What the next block would say.
    pub(super) fn next_header(&self, now: u64) -> Header {
        block::next(self.head(), self.time(now))
    }

    /// The clock goes on from the last block, if it was set forward before.
    pub(super) fn catch_up(&mut self, now: u64) {
        let ahead = self.head().header.timestamp.saturating_sub(now);
        self.ahead = i64::try_from(ahead).unwrap_or(0);
    }

    /// Sets the clock forward. By how much it is ahead in all.
    pub(super) fn increase_time(&mut self, seconds: u64) -> i64 {
        self.ahead = self.ahead.saturating_add_unsigned(seconds);
        self.ahead
    }

    /// Sets the time of the next block, from which the clock then goes on.
    pub(super) fn set_next_time(&mut self, time: u64) -> Result<(), RpcError> {
        let last = self.head().header.timestamp;
        if time < last {
            return Err(RpcError::Params(format!("the last block is of {last}, which is later than {time}")));
        }
        self.next_time = Some(time);
        Ok(())
    }

    fn append(&mut self, block: Block, now: u64) {
        if let Some(time) = self.next_time.take() {
            self.ahead = i64::try_from(i128::from(time) - i128::from(now)).unwrap_or(0);
        }
        self.by_hash.insert(block.hash, block.header.number);
        if let Some(mined) = &block.transaction {
            self.transactions.insert(*mined.envelope.tx_hash(), block.header.number);
        }
        self.blocks.push(block);
    }

    /// Makes an empty block.
    pub(super) fn mine(&mut self, now: u64) {
        let header = self.next_header(now);
        let changes = self.state.apply(&Default::default());
        let block = block::seal(header, self.head(), changes, None);
        self.append(block, now);
    }

    /// Executes a signed transaction in a block of its own.
    pub(super) fn submit(&mut self, raw: &[u8], now: u64) -> Result<B256, RpcError> {
        let mut rest = raw;
        let malformed = |what: &dyn core::fmt::Display| RpcError::Params(format!("no transaction: {what}"));
        let envelope = TxEnvelope::decode_2718(&mut rest).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(malformed(&"more bytes follow it"));
        }
        if !matches!(envelope.tx_type(), TxType::Legacy | TxType::Eip2930 | TxType::Eip1559) {
            return Err(RpcError::Rejected("transaction type not supported".into()));
        }
        if self.transactions.contains_key(envelope.tx_hash()) {
            return Err(RpcError::Rejected("already known".into()));
        }
        if envelope.chain_id().is_none() {
            return Err(RpcError::Rejected("only replay-protected (EIP-155) transactions allowed".into()));
        }
        let from = envelope.recover_signer().map_err(|_| RpcError::Rejected("invalid sender".into()))?;
        self.execute(envelope, from, now)
    }

    fn execute(&mut self, envelope: TxEnvelope, from: Address, now: u64) -> Result<B256, RpcError> {
        let mut header = self.next_header(now);
        header.beneficiary = Address::ZERO;
        let view = self.view(self.number())?;
        let transaction = execute::tx_env(&envelope, from);
        let (result, changes) =
            execute::transact(view, self.genesis.chain_id, block_env(&header), transaction, false)?;
        let hash = *envelope.tx_hash();
        let mined = Mined {
            from,
            success: result.is_success(),
            gas_used: result.tx_gas_used(),
            price: envelope.effective_gas_price(header.base_fee_per_gas),
            created: envelope.to().is_none().then(|| from.create(envelope.nonce())),
            logs: match result {
                ExecutionResult::Success { logs, .. } => logs,
                _ => Vec::new(),
            },
            envelope,
        };
        let changes = self.state.apply(&changes);
        let block = block::seal(header, self.head(), changes, Some(mined));
        self.append(block, now);
        Ok(hash)
    }

    /// The surroundings of a call after a block, and the state there.
    pub(super) fn call(&self, call: &Call, number: u64) -> Result<Bytes, RpcError> {
        let block = self.block(number).ok_or_else(|| no_block(number))?;
        let gas = call.gas.unwrap_or(execute::MOST_GAS).min(execute::MOST_GAS);
        let view = self.view(number)?;
        Ok(execute::call(view, self.genesis.chain_id, block_env(&block.header), call, gas)?.1)
    }

    /// The gas that a call needs in the next block.
    pub(super) fn estimate(&self, call: &Call, now: u64) -> Result<u64, RpcError> {
        let view = self.view(self.number())?;
        execute::estimate(view, self.genesis.chain_id, &block_env(&self.next_header(now)), call)
    }

    /// Takes back the last block, as a reorganisation would, with its transaction.
    pub(super) fn roll_back(&mut self) -> Result<(), RpcError> {
        if self.blocks.len() == 1 {
            return Err(RpcError::Params("the genesis cannot be taken back".into()));
        }
        self.state.roll_back().map_err(|error| RpcError::Missing(error.to_string()))?;
        if let Some(block) = self.blocks.pop() {
            self.by_hash.remove(&block.hash);
            if let Some(mined) = &block.transaction {
                self.transactions.remove(mined.envelope.tx_hash());
            }
        }
        Ok(())
    }
}

pub(super) fn no_block(number: u64) -> RpcError {
    RpcError::Missing(format!("there is no block {number}"))
}
