//! Accounts and storage, and what they were in the blocks before.

use std::collections::{BTreeMap, VecDeque};

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use revm::database::DBErrorMarker;
use revm::state::{Account as Changed, AccountInfo, Bytecode};
use revm::{DatabaseRef, primitives::AddressMap};
use thiserror::Error;

/// So many blocks before the last one can be looked into.
pub(super) const KEPT_STATES: usize = 256;

/// The state of a block is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the state of block {0} is not kept any more: only those of the last {KEPT_STATES} blocks are")]
pub(super) struct Forgotten(pub(super) u64);

/// Reading the state in memory does not fail; revm wants a type.
#[derive(Clone, Copy, Debug, Error)]
#[error("never")]
pub(super) struct Never;

impl DBErrorMarker for Never {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account {
    nonce: u64,
    balance: U256,
    code: B256,
}

impl Account {
    fn info(&self) -> AccountInfo {
        // The code is asked for by its hash when it is needed.
        AccountInfo {
            nonce: self.nonce,
            balance: self.balance,
            code_hash: self.code,
            code: None,
            account_id: None,
        }
    }
}

/// What a block changed, as it was before.
#[derive(Debug, Default)]
struct Undo {
    accounts: BTreeMap<Address, Option<Account>>,
    storage: BTreeMap<(Address, U256), U256>,
}

/// The state after the last block, and how to get back.
#[derive(Debug, Default)]
pub(super) struct State {
    accounts: BTreeMap<Address, Account>,
    storage: BTreeMap<(Address, U256), U256>,
    code: BTreeMap<B256, Bytecode>,
    /// Of the last blocks; the head's is at the back.
    undo: VecDeque<Undo>,
    head: u64,
}

impl State {
    /// Gives an account of the genesis its balance.
    pub(super) fn endow(&mut self, address: Address, balance: U256) {
        self.accounts.insert(address, Account { nonce: 0, balance, code: KECCAK256_EMPTY });
    }

    /// Applies what the next block changes. The hash of all changes: with the hash before, it stands for the state.
    pub(super) fn apply(&mut self, changes: &AddressMap<Changed>) -> B256 {
        let mut undo = Undo::default();
        let mut touched: Vec<_> = changes.iter().filter(|(_, account)| account.is_touched()).collect();
        touched.sort_by_key(|(address, _)| **address);
        let mut digest = Vec::new();
        for (address, account) in touched {
            let before = self.accounts.get(address).copied();
            let after = (!account.is_selfdestructed() && !account.is_empty()).then(|| self.account(account));
            if before != after {
                undo.accounts.insert(*address, before);
                match after {
                    Some(after) => self.accounts.insert(*address, after),
                    None => self.accounts.remove(address),
                };
            }
            digest.extend_from_slice(address.as_slice());
            if let Some(after) = after {
                digest.extend_from_slice(&after.nonce.to_be_bytes());
                digest.extend_from_slice(&after.balance.to_be_bytes::<32>());
                digest.extend_from_slice(after.code.as_slice());
            }
            let mut slots: Vec<_> = account.changed_storage_slots().collect();
            slots.sort_by_key(|(slot, _)| **slot);
            for (slot, value) in slots {
                let value = if after.is_some() { value.present_value } else { U256::ZERO };
                self.set(*address, *slot, value, &mut undo);
                digest.extend_from_slice(&slot.to_be_bytes::<32>());
                digest.extend_from_slice(&value.to_be_bytes::<32>());
            }
        }
        self.undo.push_back(undo);
        if self.undo.len() > KEPT_STATES {
            self.undo.pop_front();
        }
        self.head += 1;
        keccak256(digest)
    }

    fn account(&mut self, changed: &Changed) -> Account {
        let info = &changed.info;
        if let Some(code) = info.code.as_ref().filter(|code| !code.is_empty()) {
            self.code.entry(info.code_hash).or_insert_with(|| code.clone());
        }
        Account { nonce: info.nonce, balance: info.balance, code: info.code_hash }
    }

    fn set(&mut self, address: Address, slot: U256, value: U256, undo: &mut Undo) {
        let key = (address, slot);
        let before =
            if value.is_zero() { self.storage.remove(&key) } else { self.storage.insert(key, value) };
        undo.storage.insert(key, before.unwrap_or_default());
    }

    /// Takes back the last block's changes.
    pub(super) fn roll_back(&mut self) -> Result<(), Forgotten> {
        let undo = self.undo.pop_back().ok_or(Forgotten(self.head.saturating_sub(1)))?;
        self.head -= 1;
        for (address, before) in undo.accounts {
            match before {
                Some(before) => self.accounts.insert(address, before),
                None => self.accounts.remove(&address),
            };
        }
        for (key, before) in undo.storage {
            if before.is_zero() {
                self.storage.remove(&key);
            } else {
                self.storage.insert(key, before);
            }
        }
        Ok(())
    }

    /// The state after a block.
    pub(super) fn at(&self, number: u64) -> Result<View<'_>, Forgotten> {
        let back = self.head.checked_sub(number).and_then(|back| usize::try_from(back).ok());
        match back.and_then(|back| self.undo.len().checked_sub(back)) {
            Some(skipped) => Ok(View { state: self, skipped }),
            None => Err(Forgotten(number)),
        }
    }
}

/// The state as it was after a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    state: &'a State,
    /// Of the undos those that were before the block, which do not matter.
    skipped: usize,
}

impl View<'_> {
    fn account(&self, address: Address) -> Option<Account> {
        let mut later = self.state.undo.iter().skip(self.skipped);
        match later.find_map(|undo| undo.accounts.get(&address)) {
            Some(before) => *before,
            None => self.state.accounts.get(&address).copied(),
        }
    }

    pub(super) fn nonce(&self, address: Address) -> u64 {
        self.account(address).map_or(0, |account| account.nonce)
    }

    pub(super) fn balance(&self, address: Address) -> U256 {
        self.account(address).map_or(U256::ZERO, |account| account.balance)
    }

    pub(super) fn code(&self, address: Address) -> Bytecode {
        let code = self.account(address).and_then(|account| self.state.code.get(&account.code));
        code.cloned().unwrap_or_default()
    }

    pub(super) fn slot(&self, address: Address, slot: U256) -> U256 {
        let key = (address, slot);
        let mut later = self.state.undo.iter().skip(self.skipped);
        let before = later.find_map(|undo| undo.storage.get(&key));
        before.or_else(|| self.state.storage.get(&key)).copied().unwrap_or_default()
    }
}

impl DatabaseRef for View<'_> {
    type Error = Never;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Never> {
        Ok(self.account(address).map(|account| account.info()))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, Never> {
        Ok(self.state.code.get(&hash).cloned().unwrap_or_default())
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Never> {
        Ok(self.slot(address, slot))
    }

    /// `BLOCKHASH` is not served: the contracts do not ask.
    fn block_hash_ref(&self, _: u64) -> Result<B256, Never> {
        Ok(B256::ZERO)
    }
}
