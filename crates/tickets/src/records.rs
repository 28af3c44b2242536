//! What is kept over a restart, byte for byte.
//!
//! Every value begins with its version, 1. Integers are big-endian. *List* is what was not signed when the process ended,
//! and is not kept: it is void.
//!
//! | table | key | value |
//! |---|---|---|
//! | 1 signed batches that the recipient does not have yet | recipient 20, window 4, number 1 | signed batch 182 |
//! | 2 windows in which we issue | recipient 20, window 4 | class 4, commitment 32, batches signed 2, tickets in them 4, closed 1 |
//! | 3 the number of our next window; of issuer 0: all series begin there, because what there was before was lost | issuer 20 | window 4 |
//! | 4 windows in which we earn | issuer 20, window 4 | class 4, state 1 (0 open, 1 claimed) |
//! | 5 batches with winners | issuer 20, window 4, number 1 | signed batch 182 |
//! | 6 winners | issuer 20, window 4, number 1, k 1 | opener 16, siblings 20 each |
//! | 7 what is over with a peer: winners that were paid, lost, expired, tickets that were redeemed, that lapsed, what was spent | peer 20 | each of the three: tickets 8, value 16; then 8, 8, 16 |
//! | 8 the highest window in which a commitment counts for nothing, because a number may be signed there that was lost | recipient 20 | window 4 |
//! | 9 batches that were accepted, as long as their window is kept | issuer 20, window 4, number 1 | digest 32 |
//!
//! Table 9 came later: of a window that an earlier version kept, only batches with winners are known to be accepted.
//!
//! The tables are those of one account on the chain. Every beginning of the journal can be restored: a batch is put before
//! the window counts it, the number of the next window before a window is opened, a
//! batch before its winners. A window is deleted after whatever else is kept of it.

use alloy_primitives::Address;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

use crate::batch::{Digest, SignedBatch};
use crate::books::SKIPPED_WINDOWS;
use crate::claim::WinnerClaim;
use crate::class::ClassNumber;
use crate::journal::{Journal, Table};
use crate::ledger::{Over, Winners};
use crate::lottery::{Commitment, WindowNumber};
use crate::merkle::{MAX_DEPTH, Node, depth};
use crate::por::Opener;
use crate::reader::Reader;

/// The tables.
pub mod tables {
    use super::Table;

    /// Signed batches that the recipient does not have yet.
    pub const SIGNED: Table = Table(1);
    /// Windows in which we issue.
    pub const ISSUED: Table = Table(2);
    /// The numbers of our next windows.
    pub const SERIES: Table = Table(3);
    /// Windows in which we earn.
    pub const WINDOWS: Table = Table(4);
    /// Batches with winners.
    pub const WON: Table = Table(5);
    /// Winners.
    pub const WINNERS: Table = Table(6);
    /// What is over, by peer: sums of windows that are in no other table any more.
    pub const OVER: Table = Table(7);
    /// The highest windows in which commitments of recipients count for nothing, after a loss.
    pub const SKIPPED: Table = Table(8);
    /// Digests of batches that were accepted.
    pub const ACCEPTED: Table = Table(9);
    /// All of them.
    pub const ALL: [Table; 9] = [SIGNED, ISSUED, SERIES, WINDOWS, WON, WINNERS, OVER, SKIPPED, ACCEPTED];
}

const VERSION: u8 = 1;

/// A record that no version up to this one has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// There is no such table.
    #[error("there is no table {}", .0.0)]
    Table(Table),
    /// Its first byte is another one than 1.
    #[error("a record of table {} has a version that this program does not know", .0.0)]
    Version(Table),
    /// Its fields are wrong, or there are more or fewer.
    #[error("a record of table {} is damaged", .0.0)]
    Damaged(Table),
}

/// A window in which we issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IssuedRecord {
    pub(crate) class: ClassNumber,
    pub(crate) commitment: Commitment,
    pub(crate) batches: u16,
    pub(crate) tickets: u32,
    pub(crate) closed: bool,
}

/// A window in which we earn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowRecord {
    pub(crate) class: ClassNumber,
    pub(crate) claimed: bool,
}

type Place = (Address, WindowNumber);

/// Everything that was kept, read record by record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    pub(crate) signed: BTreeMap<(Place, u8), SignedBatch>,
    pub(crate) issued: BTreeMap<Place, IssuedRecord>,
    pub(crate) series: BTreeMap<Address, u32>,
    pub(crate) windows: BTreeMap<Place, WindowRecord>,
    pub(crate) won: BTreeMap<(Place, u8), SignedBatch>,
    pub(crate) winners: BTreeMap<(Place, u8), Vec<WinnerClaim>>,
    pub(crate) over: BTreeMap<Address, Over>,
    pub(crate) skipped: BTreeMap<Address, WindowNumber>,
    pub(crate) accepted: BTreeMap<(Place, u8), Digest>,
    pub(crate) lost: bool,
}

impl Restore {
    /// Whether nothing was kept: the account is new here, or what it had is lost. That a loss was dealt with is written last: what was
    /// left out before that alone does not count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let rest = Self { series: BTreeMap::new(), skipped: BTreeMap::new(), ..self.clone() };
        rest == Self::default()
    }

    /// Takes one record in. Keys of one table must come in their order.
    ///
    /// # Errors
    ///
    /// See [`RecordError`]. Nothing is passed over: what cannot be read may be a winner.
    pub fn feed(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        let damaged = RecordError::Damaged(table);
        let (mut key, mut value) = (Reader::new(key), Reader::new(value));
        if !tables::ALL.contains(&table) {
            return Err(RecordError::Table(table));
        }
        if value.u8().ok_or(damaged)? != VERSION {
            return Err(RecordError::Version(table));
        }
        self.read(table, &mut key, &mut value).filter(|()| key.is_empty() && value.is_empty()).ok_or(damaged)
    }

    fn read(&mut self, table: Table, key: &mut Reader<'_>, value: &mut Reader<'_>) -> Option<()> {
        let peer = Address::from(key.array()?);
        if table == tables::SERIES && peer == Address::ZERO {
            self.lost = true;
            return value.u32().filter(|next| *next == SKIPPED_WINDOWS).map(drop);
        }
        if table == tables::SERIES {
            self.series.insert(peer, value.u32()?);
            return Some(());
        }
        if table == tables::SKIPPED {
            self.skipped.insert(peer, WindowNumber(value.u32()?));
            return Some(());
        }
        if table == tables::OVER {
            let mut winners = || Some(Winners { tickets: value.u64()?, value: value.u128()? });
            let (paid, lost, expired) = (winners()?, winners()?, winners()?);
            let (redeemed, lapsed, spent) = (value.u64()?, value.u64()?, value.u128()?);
            self.over.insert(peer, Over { paid, lost, expired, redeemed, lapsed, spent });
            return Some(());
        }
        let place = (peer, WindowNumber(key.u32()?));
        match table {
            tables::ISSUED => {
                let record = IssuedRecord {
                    class: ClassNumber(value.u32()?),
                    commitment: Commitment::from_bytes(value.array()?),
                    batches: value.u16()?,
                    tickets: value.u32()?,
                    closed: boolean(value)?,
                };
                self.issued.insert(place, record);
            }
            tables::WINDOWS => {
                let record = WindowRecord { class: ClassNumber(value.u32()?), claimed: boolean(value)? };
                self.windows.insert(place, record);
            }
            tables::SIGNED | tables::WON => {
                let number = key.u8()?;
                let batch = SignedBatch::from_bytes(&value.array::<{ SignedBatch::LEN }>()?).ok()?;
                let header = &batch.header;
                let to = if table == tables::SIGNED { &mut self.signed } else { &mut self.won };
                if (header.window, header.number) != (place.1, number) {
                    return None;
                }
                to.insert((place, number), batch);
            }
            tables::ACCEPTED => {
                self.accepted.insert((place, key.u8()?), Digest::from_bytes(value.array()?));
            }
            _ => {
                let (number, k) = (key.u8()?, key.u8()?);
                let opener = Opener::from_bytes(value.array()?);
                let mut siblings = Vec::with_capacity(MAX_DEPTH);
                while !value.is_empty() && siblings.len() < MAX_DEPTH {
                    siblings.push(Node::from_bytes(value.array()?));
                }
                let winners = self.winners.entry((place, number)).or_default();
                if winners.last().is_some_and(|last| last.k >= k) {
                    return None;
                }
                winners.push(WinnerClaim { k, opener, siblings });
            }
        }
        Some(())
    }

    /// Recipients and classes of the windows in which we issue.
    pub fn issued_places(&self) -> BTreeSet<(Address, ClassNumber)> {
        self.issued.iter().map(|((peer, _), record)| (*peer, record.class)).collect()
    }

    /// Issuers and classes of the windows in which we earn.
    pub fn earned_places(&self) -> BTreeSet<(Address, ClassNumber)> {
        self.windows.iter().map(|((peer, _), record)| (*peer, record.class)).collect()
    }

    /// A batch's winners of which everything was kept.
    pub(crate) fn winners_of(&self, place: Place, number: u8) -> &[WinnerClaim] {
        let fits = |winners: &&Vec<WinnerClaim>| {
            let batch = self.won.get(&(place, number));
            batch.is_some_and(|batch| {
                winners.iter().all(|winner| winner.siblings.len() == depth(batch.header.count))
            })
        };
        self.winners.get(&(place, number)).filter(fits).map_or(&[], Vec::as_slice)
    }
}

fn boolean(value: &mut Reader<'_>) -> Option<bool> {
    match value.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

pub(crate) fn window_key(peer: &Address, window: WindowNumber) -> [u8; 24] {
    let mut key = [0; 24];
    key[..20].copy_from_slice(peer.as_slice());
    key[20..].copy_from_slice(&window.0.to_be_bytes());
    key
}

fn batch_key(peer: &Address, window: WindowNumber, number: u8) -> [u8; 25] {
    let mut key = [number; 25];
    key[..24].copy_from_slice(&window_key(peer, window));
    key
}

fn versioned(parts: &[&[u8]]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    value.push(VERSION);
    parts.iter().for_each(|part| value.extend_from_slice(part));
    value
}

/// The changes that the machines ask for.
impl Journal {
    pub(crate) fn put_signed(&mut self, batch: &SignedBatch) {
        let key = batch_key(&batch.header.recipient, batch.header.window, batch.header.number);
        self.put(tables::SIGNED, &key, versioned(&[&batch.to_bytes()]));
    }

    pub(crate) fn delete_signed(&mut self, recipient: &Address, window: WindowNumber, number: u8) {
        self.delete(tables::SIGNED, &batch_key(recipient, window, number));
    }

    pub(crate) fn put_issued(&mut self, recipient: &Address, window: WindowNumber, record: &IssuedRecord) {
        let value = versioned(&[
            &record.class.0.to_be_bytes(),
            record.commitment.as_bytes(),
            &record.batches.to_be_bytes(),
            &record.tickets.to_be_bytes(),
            &[record.closed.into()],
        ]);
        self.put(tables::ISSUED, &window_key(recipient, window), value);
    }

    pub(crate) fn delete_issued(&mut self, recipient: &Address, window: WindowNumber) {
        self.delete(tables::ISSUED, &window_key(recipient, window));
    }

    pub(crate) fn put_lost(&mut self) {
        self.put_series(&Address::ZERO, SKIPPED_WINDOWS);
    }

    pub(crate) fn put_series(&mut self, issuer: &Address, next: u32) {
        self.put(tables::SERIES, issuer.as_slice(), versioned(&[&next.to_be_bytes()]));
    }

    pub(crate) fn put_skipped(&mut self, recipient: &Address, highest: WindowNumber) {
        self.put(tables::SKIPPED, recipient.as_slice(), versioned(&[&highest.0.to_be_bytes()]));
    }

    pub(crate) fn put_over(&mut self, peer: &Address, over: &Over) {
        let Over { paid, lost, expired, redeemed, lapsed, spent } = over;
        let mut value = versioned(&[]);
        for winners in [paid, lost, expired] {
            value.extend_from_slice(&winners.tickets.to_be_bytes());
            value.extend_from_slice(&winners.value.to_be_bytes());
        }
        value.extend_from_slice(&redeemed.to_be_bytes());
        value.extend_from_slice(&lapsed.to_be_bytes());
        value.extend_from_slice(&spent.to_be_bytes());
        self.put(tables::OVER, peer.as_slice(), value);
    }

    pub(crate) fn put_window(&mut self, issuer: &Address, window: WindowNumber, record: &WindowRecord) {
        let value = versioned(&[&record.class.0.to_be_bytes(), &[record.claimed.into()]]);
        self.put(tables::WINDOWS, &window_key(issuer, window), value);
    }

    pub(crate) fn put_won(&mut self, batch: &SignedBatch) {
        let key = batch_key(&batch.header.issuer, batch.header.window, batch.header.number);
        self.put(tables::WON, &key, versioned(&[&batch.to_bytes()]));
    }

    pub(crate) fn put_winner(&mut self, batch: &SignedBatch, winner: &WinnerClaim) {
        let header = &batch.header;
        let mut key = batch_key(&header.issuer, header.window, header.number).to_vec();
        key.push(winner.k);
        let mut value = versioned(&[winner.opener.as_bytes()]);
        winner.siblings.iter().for_each(|sibling| value.extend_from_slice(sibling.as_bytes()));
        self.put(tables::WINNERS, &key, value);
    }

    pub(crate) fn put_accepted(
        &mut self,
        issuer: &Address,
        window: WindowNumber,
        number: u8,
        digest: &Digest,
    ) {
        let value = versioned(&[digest.as_bytes()]);
        self.put(tables::ACCEPTED, &batch_key(issuer, window, number), value);
    }

    /// Winners first: what is left of a crash in between is still whole.
    pub(crate) fn delete_window<'w>(
        &mut self,
        issuer: &Address,
        window: WindowNumber,
        accepted: impl IntoIterator<Item = u8>,
        winners: impl IntoIterator<Item = (u8, &'w [WinnerClaim])>,
    ) {
        for (number, winners) in winners {
            let mut key = batch_key(issuer, window, number).to_vec();
            for winner in winners {
                key.push(winner.k);
                self.delete(tables::WINNERS, &key);
                key.pop();
            }
            self.delete(tables::WON, &key);
        }
        for number in accepted {
            self.delete(tables::ACCEPTED, &batch_key(issuer, window, number));
        }
        self.delete(tables::WINDOWS, &window_key(issuer, window));
    }
}
